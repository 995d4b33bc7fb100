//! Requests about uploads whose session is at another node.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use shoal_driver::UploadId;

use super::Exchange;
use super::error::{ApiError, Code};
use super::request_body::RequestBody;
use crate::elsewhere::{Elsewhere, Vouched};

impl Exchange {
    /// Who knows the node of that session, if it is another; and its mark.
    pub(super) fn elsewhere(&self, id: &str) -> Option<(Arc<dyn Elsewhere>, u32)> {
        // What was handed over is here or nowhere.
        let others = self.api.others.clone().filter(|_| !self.caller.is_vouched_for())?;
        let mark = UploadId::parse(id)?.mark();
        (mark != others.mark() && others.knows(mark)).then_some((others, mark))
    }
}

pub(super) async fn hand_over(
    exchange: Exchange,
    others: &dyn Elsewhere,
    mark: u32,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let caller = Vouched(exchange.caller.identity().map(str::to_owned));
    let request = Request::from_parts(exchange.parts, body.into_body());
    others.hand_over(mark, request, caller).await.map_err(|error| {
        tracing::warn!(%error, "an upload cannot go on");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, error.to_string())
            .with_header(RETRY_AFTER, HeaderValue::from_static("5"))
    })
}
