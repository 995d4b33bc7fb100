//! Why a request is not answered as it hoped to be, and the HTTP status that says so.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use shoal_control::ErrorReply;
use shoal_control::message::AnnounceRequest;
use shoal_core::{Digest, PeerId, Role};

use crate::prefetch::OrderError;
use crate::state::LimitError;

/// What a caller is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no client certificate")]
    NoCertificate,
    #[error("the client certificate is of no use here: {0}")]
    Certificate(String),
    #[error("only agents and origins may ask a tracker, not a node of role {0}")]
    Role(Role),
    #[error("the certificate is of {id} ({role}), which cannot announce {claimed_id} ({claimed_role})")]
    OtherNode { id: PeerId, role: Role, claimed_id: PeerId, claimed_role: Role },
    #[error("only origins have an api, not {0}")]
    ApiOfAgent(PeerId),
    #[error("{0} asks for another certificate before half of its own one's life is over")]
    TooEarly(PeerId),
    #[error("this tracker does not hold the authority's key: it renews no certificates")]
    NotHere,
    #[error("no certificate can be issued: {0}")]
    Issue(String),
    #[error("request cannot be read: {0}")]
    Body(String),
    #[error("request is longer than allowed here")]
    TooLong,
    #[error("request took too long to arrive or to answer")]
    TooSlow,
    #[error("{0} changes in one announce: at most {max} are allowed", max = AnnounceRequest::MAX_CHANGES)]
    TooManyChanges(usize),
    #[error("announced address is not valid: {0}")]
    Address(String),
    #[error("too much to keep: {0}")]
    Limit(#[from] LimitError),
    #[error("only origins order agents to fetch something, not {0}")]
    OrderOfAgent(PeerId),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("blob {0} is not in the cluster, or not in that repository")]
    NotFound(Digest),
    #[error("blob {digest} cannot be looked up now: {reason}")]
    Unavailable { digest: Digest, reason: String },
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoCertificate => StatusCode::UNAUTHORIZED,
            Self::Certificate(_)
            | Self::Role(_)
            | Self::OtherNode { .. }
            | Self::ApiOfAgent(_)
            | Self::OrderOfAgent(_) => StatusCode::FORBIDDEN,
            Self::Order(OrderError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Order(OrderError::Full(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(_) | Self::Address(_) => StatusCode::BAD_REQUEST,
            Self::TooLong | Self::TooManyChanges(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Limit(_) | Self::TooEarly(_) => StatusCode::TOO_MANY_REQUESTS,
            // Not final: another tracker may.
            Self::NotHere => StatusCode::NOT_IMPLEMENTED,
            Self::Issue(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The result's name in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Unavailable { .. } => "unavailable",
            Self::Limit(_) => "limited",
            _ => "refused",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        match status {
            // Somebody in the cluster says what it is not entitled to say.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                tracing::warn!(%status, reason = %self, "request refused");
            }
            _ => tracing::debug!(%status, reason = %self, "request refused"),
        }
        ErrorReply::response(status, self.to_string()).into_response()
    }
}
