//! What this origin answers the others of upstreams, as the one that asks them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use shoal_control::ErrorReply;
use shoal_control::cluster::message::{LinkName, TagName, UpstreamPause, UpstreamTag, Use, path};
use shoal_core::{RepositoryName, Role};
use shoal_http::ClientCertificate;
use shoal_identity::Identity;
use tokio::time::Instant;

use super::PullThrough;
use super::links::Found;
use super::tags::Untold;

struct Refusal(StatusCode, String);

type Answer<T> = Result<Json<T>, Refusal>;

impl PullThrough {
    /// For the other origins alone.
    pub(crate) fn router(&self, identity: &Identity) -> Router {
        Router::new()
            .route(path::UPSTREAM_TAG, post(tag))
            .route(path::UPSTREAM_LINK, post(link))
            .route(path::UPSTREAM_PAUSE, post(pause))
            .route(path::UPSTREAM_USES, post(uses))
            .layer(middleware::from_fn_with_state(Arc::new(identity.clone()), admit))
            .with_state(self.clone())
    }
}

async fn admit(
    State(identity): State<Arc<Identity>>,
    Extension(ClientCertificate(certificate)): Extension<ClientCertificate>,
    request: Request,
    next: Next,
) -> Response {
    match identity.peer(&certificate) {
        Ok(peer) if peer.role == Role::Origin => next.run(request).await,
        Ok(peer) => {
            Refusal(StatusCode::FORBIDDEN, format!("role {} is no origin", peer.role)).into_response()
        }
        Err(error) => Refusal(StatusCode::FORBIDDEN, error.to_string()).into_response(),
    }
}

async fn tag(State(through): State<PullThrough>, Json(name): Json<TagName>) -> Answer<UpstreamTag> {
    match through.tell(&name).await {
        Ok(tag) => Ok(Json(tag)),
        Err(Untold::NotFound) => Err(not_here()),
        Err(Untold::Unavailable(reason)) => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, reason.to_string())),
    }
}

async fn link(State(through): State<PullThrough>, Json(link): Json<LinkName>) -> Answer<bool> {
    match through.establish(&link).await {
        Found::Yes => Ok(Json(true)),
        Found::No => Err(not_here()),
        Found::Unknown(reason) => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, reason.to_string())),
    }
}

/// Another heard that the upstream is asked too much.
async fn pause(State(through): State<PullThrough>, Json(pause): Json<UpstreamPause>) -> Json<bool> {
    let mut upstreams = through.0.upstreams.0.iter();
    let named = upstreams.find(|upstream| upstream.name.as_str() == pause.upstream);
    let asked = Duration::from_millis(pause.for_ms);
    Json(named.is_some_and(|upstream| upstream.gate.close(Instant::now(), asked)))
}

async fn uses(
    State(through): State<PullThrough>,
    Json(repository): Json<RepositoryName>,
) -> Answer<Vec<Use>> {
    let uses = through.0.uses.of(&repository).await;
    Ok(Json(uses.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?))
}

fn not_here() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "not here".to_owned())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorReply { error: self.1 })).into_response()
    }
}
