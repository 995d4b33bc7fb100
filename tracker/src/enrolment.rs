//! Where nodes get their certificates: the first by a join token, at a port of its own that asks for no certificate, and
//! further ones at the tracker's port by the one they have.
//!
//! Role and name come from the token, or from the certificate; what a node asks for is its key and nothing else. Strangers
//! have a port to themselves, so that nothing they do takes a place from the cluster. Files are written on a blocking thread.

mod pace;
mod uses;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use data_encoding::BASE64;
use http::StatusCode;
use serde::Deserialize;
use shoal_control::ErrorReply;
use shoal_control::message::{CertificateReply, EnrolRequest, path};
use shoal_http::RemoteAddress;
use shoal_identity::{
    Authority, FileError, IdentityError, JoinToken, Ledger, Peer, Refusals, Revocations, TokenError,
};
use tokio::time::Instant;

use crate::api::{Body, in_time};
use crate::refusal::Refusal;
use pace::Pace;
use uses::{Uses, UsesError};

/// How nodes are enrolled.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The folder that `shoal ca init` wrote. It must be writable: used tokens and issued certificates are noted there.
    pub ca: PathBuf,
    /// Where nodes join that have no certificate yet. Default `0.0.0.0:15004`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// How long certificates are good for. Default 30 days: renewed after 20, so a cluster goes on for 10 days without any
    /// tracker that enrols.
    #[serde(default = "default_lifetime", with = "humantime_serde")]
    pub lifetime: Duration,
    /// How many uses of tokens are remembered, each until its token ends; one more is refused. Default 100,000, about 10 MB.
    #[serde(default = "default_max_uses")]
    pub max_uses: usize,
    /// How often an address (of IPv6, a /64) may try in a minute, after a first 20 at once. Default 60: a rack behind one
    /// address joins in a minute, and who guesses tokens gets nowhere.
    #[serde(default = "default_attempts")]
    pub attempts_per_minute: u32,
}

/// Issues certificates.
#[derive(Debug)]
pub(crate) struct Registrar {
    authority: Authority,
    directory: PathBuf,
    lifetime: Duration,
    uses: Mutex<Uses>,
    pace: Mutex<Pace>,
    refusals: Refusals,
}

/// Why a tracker cannot enrol nodes.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The authority's files.
    #[error("enrolment.ca")]
    Authority(#[from] IdentityError),
    /// The file of used tokens.
    #[error("enrolment.ca: cannot keep {}: make the folder writable for this service", path.display())]
    Uses {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate that nobody can use.
    #[error("enrolment.lifetime must be 2 s at least: a certificate's times are whole seconds")]
    Lifetime,
}

/// Why a node is not enrolled.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error("too many attempts from this address: try again in a minute")]
    TooOften,
    #[error(transparent)]
    Body(#[from] Refusal),
    #[error("request is not base64")]
    Base64,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Uses(#[from] UsesError),
    #[error("the tracker cannot note it now")]
    Note(#[source] std::io::Error),
    #[error("the tracker cannot note it now")]
    Ledger(#[from] FileError),
    #[error("the tracker is shutting down")]
    Stopped,
}

fn default_listen() -> SocketAddr {
    ([0, 0, 0, 0], 15004).into()
}

fn default_lifetime() -> Duration {
    Duration::from_secs(30 * 86_400)
}

fn default_max_uses() -> usize {
    100_000
}

fn default_attempts() -> u32 {
    60
}

impl Registrar {
    /// Opens the authority, and what was used of its tokens. Blocks.
    pub(crate) fn open(config: &Enrolment) -> Result<Self, EnrolmentError> {
        let authority = Authority::load(&config.ca)?;
        let path = config.ca.join("used-tokens");
        let now = seconds_now();
        let uses = Uses::open(&path, config.max_uses, now)
            .map_err(|source| EnrolmentError::Uses { path, source })?;
        Ok(Self {
            authority,
            directory: config.ca.clone(),
            lifetime: config.lifetime,
            uses: Mutex::new(uses),
            pace: Mutex::new(Pace::new(config.attempts_per_minute)),
            refusals: Refusals::of("enrolment"),
        })
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A further certificate for a node that has one.
    pub(crate) fn renew(&self, node: &Peer) -> Result<String, IdentityError> {
        self.authority.renew(node, self.lifetime)
    }

    /// The list beside the authority's key, where `shoal ca revoke` writes it. Blocks.
    pub(crate) fn revocations(&self) -> Result<Option<Revocations>, IdentityError> {
        self.authority.load_revocations(&self.directory)
    }

    async fn enrol(self: Arc<Self>, source: IpAddr, request: Request) -> Result<CertificateReply, Rejection> {
        let now = Instant::now().into_std();
        if !self.pace.lock().unwrap_or_else(PoisonError::into_inner).admits(now, source) {
            return Err(Rejection::TooOften);
        }
        let Body(request) = Body::<EnrolRequest>::read(request).await?;
        let here = Arc::clone(&self);
        let enrolled = tokio::task::spawn_blocking(move || here.issue(&request)).await;
        let (node, certificate) = enrolled.map_err(|_| Rejection::Stopped)??;
        tracing::info!(peer = %node.id, role = %node.role, name = node.name, %source, "enrolled");
        Ok(CertificateReply { certificate })
    }

    /// The use is on disk before there is a certificate: no crash lets a token be used once more.
    fn issue(&self, request: &EnrolRequest) -> Result<(Peer, String), Rejection> {
        let token = JoinToken::parse(&request.token)?;
        let grant = self.authority.check_token(&token, SystemTime::now())?;
        let csr = BASE64.decode(request.request.as_bytes()).map_err(|_| Rejection::Base64)?;
        let (node, certificate) = self.authority.enrol(&grant, &csr, self.lifetime)?;
        let is_new = {
            let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            uses.admit(&grant, node.id, seconds_now())?.note().map_err(Rejection::Note)?
        };
        if is_new {
            Ledger::of(&self.directory).note(&node)?;
        }
        Ok((node, certificate))
    }
}

impl Enrolment {
    pub(crate) fn check(&self) -> Result<(), EnrolmentError> {
        if self.lifetime < MIN_LIFETIME { Err(EnrolmentError::Lifetime) } else { Ok(()) }
    }
}

/// What strangers may ask.
pub(crate) fn router(registrar: Arc<Registrar>) -> Router {
    Router::new()
        .route(path::ENROL, post(enrol).layer(DefaultBodyLimit::max(EnrolRequest::MAX_LENGTH)))
        .fallback(|| async { ErrorReply::response(StatusCode::NOT_FOUND, "nodes join here, at /v1/enrol") })
        .layer(middleware::from_fn(in_time))
        .with_state(registrar)
}

async fn enrol(
    State(registrar): State<Arc<Registrar>>,
    Extension(RemoteAddress(remote)): Extension<RemoteAddress>,
    request: Request,
) -> Response {
    let outcome = Arc::clone(&registrar).enrol(remote.ip(), request).await;
    match outcome {
        Ok(reply) => Json(reply).into_response(),
        Err(rejection) => {
            registrar.refusals.note(remote, &rejection);
            rejection.into_response()
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(_) | Self::Base64 => StatusCode::BAD_REQUEST,
            Self::Token(_) | Self::Identity(_) => StatusCode::FORBIDDEN,
            Self::Uses(UsesError::Full) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Uses(UsesError::Spent { .. }) => StatusCode::FORBIDDEN,
            Self::Note(_) | Self::Ledger(_) | Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        let causes = std::iter::successors(Some(&self as &dyn std::error::Error), |error| error.source());
        let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        ErrorReply::response(status, reason).into_response()
    }
}

fn seconds_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// Certificates have whole seconds, and a shorter one might never be valid. Tests need few; nobody else does.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use shoal_core::Role;
    use shoal_identity::{Config, JoinConfig, Joining, NamePattern, TokenOrder};

    use super::*;

    fn registrar(folder: &std::path::Path) -> Registrar {
        Authority::generate("prod").unwrap().save(folder).unwrap();
        let text = format!("ca = {folder:?}");
        Registrar::open(&toml::from_str(&text).unwrap()).unwrap()
    }

    fn token(authority: &Authority, number: u8, age: Duration) -> String {
        let name = NamePattern::parse("host-1").unwrap();
        let lifetime = Duration::from_secs(60);
        let order = TokenOrder { id: [number; 16], role: Role::Agent, name, uses: 1, lifetime };
        authority.token(order, SystemTime::now() - age).unwrap().as_str().to_owned()
    }

    /// What a node of its own, with a key of its own, asks with that token.
    fn request(token: &str) -> EnrolRequest {
        let home = tempfile::tempdir().unwrap();
        let good = token_of_anybody();
        let join = JoinConfig { token: Some(good), token_file: None, trackers: Vec::new() };
        let config = Config { join: Some(join), ..Config::at(home.path()) };
        let csr = Joining::begin(&config, SystemTime::now()).unwrap().request().unwrap();
        EnrolRequest { token: token.to_owned(), request: BASE64.encode(&csr) }
    }

    fn token_of_anybody() -> String {
        token(&Authority::generate("any").unwrap(), 0, Duration::ZERO)
    }

    #[test]
    fn a_good_token_gives_its_role_and_name_once() {
        let folder = tempfile::tempdir().unwrap();
        let registrar = registrar(folder.path());
        let first = request(&token(registrar.authority(), 1, Duration::ZERO));
        let (node, _) = registrar.issue(&first).unwrap();
        assert_eq!((node.role, node.name.as_str()), (Role::Agent, "host-1"));
        assert_eq!(registrar.issue(&first).unwrap().0, node, "who lost the answer may ask again");
        let second = registrar.issue(&request(&first.token)).unwrap_err();
        assert!(matches!(second, Rejection::Uses(UsesError::Spent { uses: 1 })), "{second}");
        assert_eq!(Ledger::of(folder.path()).named("host-1").unwrap(), [node]);
    }

    #[test]
    fn tokens_of_others_old_ones_and_garbage_give_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let registrar = registrar(folder.path());
        let old = token(registrar.authority(), 1, Duration::from_secs(120));
        for token in [token_of_anybody(), old, "shoal-token-1.e30.AAAA".to_owned(), String::new()] {
            let refused = registrar.issue(&request(&token)).unwrap_err();
            assert!(matches!(refused, Rejection::Token(_)), "{token}: {refused}");
        }
        let good = token(registrar.authority(), 2, Duration::ZERO);
        let garbage = EnrolRequest { token: good, request: BASE64.encode(b"no request") };
        assert!(matches!(registrar.issue(&garbage).unwrap_err(), Rejection::Identity(_)));
    }
}
