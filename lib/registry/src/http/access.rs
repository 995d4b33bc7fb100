//! What a request needs to be allowed, and how it is refused: 401 with a challenge, or 403.
//!
//! The name that is decided about is the one that is then served: the repository after namespaces, not what the
//! client calls it. A client without rights learns nothing of what exists.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};

use super::error::{ApiError, Code};
use super::names::Target;
use super::route::{Resource, Route};
use super::{Api, Exchange, with_body};
use crate::auth::{Action, CATALOG, Caller, Challenge, Fault, Guard, Host, Refusal, Verdict};
use crate::storage::owner::Owner;

/// Finds out who asks. From here on nobody sees the credentials.
pub(super) async fn admit(
    api: &Api,
    guard: &Arc<Guard>,
    parts: &mut Parts,
    query: &[(String, String)],
    route: &Route,
) -> Result<Caller, ApiError> {
    let admitted = guard.admit(&mut parts.headers, &parts.extensions).await;
    admitted.map_err(|refusal| match refusal {
        Refusal::BadCredentials(reason) => {
            tracing::info!(reason, "refused credentials");
            let scope = scope(api, &parts.method, query, route);
            unauthorized((guard.challenge(), parts), &scope, Fault::Invalid, reason)
        }
        Refusal::Nobody(reason) => {
            tracing::info!(reason, "refused a client certificate");
            ApiError::new(StatusCode::FORBIDDEN, Code::Denied, reason)
        }
        Refusal::Busy => {
            let message = "too many credentials are being checked, try later";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message)
                .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
        }
    })
}

impl Exchange {
    /// Whether the client may do what it asks for.
    pub(super) fn check_access(&self, route: &Route) -> Result<(), ApiError> {
        if self.caller.is_trusted() {
            return Ok(());
        }
        let verdict = match wanted(&self.api, &self.parts.method, &self.query, route) {
            Ok(None) => self.caller.may_enter(),
            Ok(Some((action, repository))) => self.caller.may(action, &repository),
            // What is wrong with a name is told to those who may do something.
            Err(error) => match self.caller.may_enter() {
                Verdict::Allowed => return Err(error),
                verdict => verdict,
            },
        };
        let (fault, message) = match verdict {
            Verdict::Allowed => return Ok(()),
            Verdict::Unauthenticated => (Fault::Absent, "authentication is required"),
            Verdict::InsufficientScope => (Fault::InsufficientScope, "the token does not allow this"),
            Verdict::Denied => {
                let message = "access to this resource is denied";
                return Err(ApiError::new(StatusCode::FORBIDDEN, Code::Denied, message));
            }
        };
        let scope = scope(&self.api, &self.parts.method, &self.query, route);
        Err(unauthorized((self.caller.challenge(), &self.parts), &scope, fault, message))
    }

    /// Whose the uploads are that this client starts.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.caller.identity().map(Owner::of)
    }

    /// Whether the client may read the blobs that it wants from another repository.
    pub(super) fn may_mount_from(&self, source: &Target) -> bool {
        self.caller.may(Action::Pull, source.repository.as_str()) == Verdict::Allowed
    }
}

/// What a request has to be allowed, and where; `None` for the base, which is about no repository.
fn wanted(
    api: &Api,
    method: &Method,
    query: &[(String, String)],
    route: &Route,
) -> Result<Option<(Action, String)>, ApiError> {
    let Some(resource) = &route.resource else { return Ok(None) };
    if *resource == Resource::Pass {
        return Ok(None);
    }
    // An address without a repository is about all of them.
    if route.name.is_empty() {
        return Ok(Some((Action::Pull, CATALOG.to_owned())));
    }
    let target = api.namespaces.resolve(value(query, "ns"), &route.name)?;
    Ok(Some((action(method, resource), target.repository.to_string())))
}

/// What a token would have to allow: as the CNCF registry asks for it, so that clients get a token for all of it.
/// Empty where no token is about it.
fn scope(api: &Api, method: &Method, query: &[(String, String)], route: &Route) -> String {
    let (action, repository) = match wanted(api, method, query, route) {
        Ok(Some((_, repository))) if repository == CATALOG => return "registry:catalog:*".to_owned(),
        Ok(Some(wanted)) => wanted,
        Ok(None) | Err(_) => return String::new(),
    };
    let actions = match action {
        Action::Pull => "pull",
        Action::Push => "pull,push",
        Action::Delete => "delete",
    };
    let mut scope = format!("repository:{repository}:{actions}");
    let source = value(query, "mount").and(value(query, "from"));
    let source = source.and_then(|from| api.namespaces.resolve(value(query, "ns"), from).ok());
    if let Some(source) = source {
        scope.push_str(&format!(" repository:{}:pull", source.repository));
    }
    scope
}

fn value<'a>(query: &'a [(String, String)], key: &str) -> Option<&'a str> {
    query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// What a request does. A session of an upload belongs to a push, its end too.
fn action(method: &Method, resource: &Resource) -> Action {
    match (resource, method.as_str()) {
        (Resource::Uploads | Resource::Upload(_), _) => Action::Push,
        (_, "GET" | "HEAD") => Action::Pull,
        (_, "DELETE") => Action::Delete,
        _ => Action::Push,
    }
}

/// Gives the client a pass for what it showed.
pub(super) async fn give_pass(caller: &Caller) -> Result<Response, ApiError> {
    let message = "a token is given for a name and a password, or for no credentials";
    let refused = || ApiError::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
    let pass = caller.pass().await.ok_or_else(refused)?;
    let body = serde_json::to_vec(&pass).expect("texts and a number are JSON");
    let headers = [(CONTENT_TYPE, "application/json".into()), (CACHE_CONTROL, "no-store".into())];
    Ok(with_body(StatusCode::OK, headers, Body::from(body)))
}

fn unauthorized(
    (challenge, parts): (&Challenge, &Parts),
    scope: &str,
    fault: Fault,
    message: &str,
) -> ApiError {
    let error = ApiError::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
    let host = parts.uri.authority().map(Authority::as_str);
    let host = host.or_else(|| parts.headers.get(HOST)?.to_str().ok()).map(Host);
    match challenge.header(scope, fault, host) {
        Some(header) => error.with_header(WWW_AUTHENTICATE, header),
        None => error,
    }
}
