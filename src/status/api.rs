//! The answers of the admin port.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use shoal_core::Digest;

use super::{Peers, Query, ReadOnly, Retried, Status, Swarm, path};

/// A role that can be asked.
pub trait Source: Send + Sync + 'static {
    /// What it is and does.
    fn status(&self, query: Query) -> impl Future<Output = Status> + Send;
    /// Has what it gave up tried again.
    fn retry(&self) -> impl Future<Output = Result<Retried, String>> + Send {
        std::future::ready(Ok(Retried::default()))
    }
    /// Whether it takes no writes, once that is changed as asked; `None`: it takes none ever.
    fn read_only(&self, _change: Option<ReadOnly>) -> Option<ReadOnly> {
        None
    }
    /// Whom it knows.
    fn peers(&self, query: Query) -> impl Future<Output = Peers> + Send;
    /// Who has what of a blob.
    fn swarm(&self, digest: Digest, query: Query) -> impl Future<Output = Swarm> + Send;
}

/// The paths of a role.
pub fn router<S: Source>(source: S) -> Router {
    Router::new()
        .route(path::STATUS, get(status::<S>))
        .route(path::RETRY, post(retry::<S>))
        .route(path::READ_ONLY, get(read_only::<S>))
        .route(&format!("{}/{{mode}}", path::READ_ONLY), post(set_read_only::<S>))
        .route(path::PEERS, get(peers::<S>))
        .route(&format!("{}/{{digest}}", path::SWARM), get(swarm::<S>))
        .with_state(Arc::new(source))
}

async fn status<S: Source>(State(source): State<Arc<S>>, UrlQuery(query): UrlQuery<Query>) -> Json<Status> {
    Json(source.status(query).await)
}

async fn retry<S: Source>(State(source): State<Arc<S>>) -> Response {
    match source.retry().await {
        Ok(retried) => Json(retried).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn read_only<S: Source>(State(source): State<Arc<S>>) -> Response {
    mode(source.read_only(None))
}

async fn set_read_only<S: Source>(State(source): State<Arc<S>>, Path(mode_name): Path<String>) -> Response {
    match mode_name.as_str() {
        "on" => mode(source.read_only(Some(ReadOnly { on: true }))),
        "off" => mode(source.read_only(Some(ReadOnly { on: false }))),
        _ => (StatusCode::NOT_FOUND, "it is on or off\n").into_response(),
    }
}

fn mode(mode: Option<ReadOnly>) -> Response {
    match mode {
        Some(mode) => Json(mode).into_response(),
        None => (StatusCode::CONFLICT, "only an origin takes writes, or stops to: ask one\n").into_response(),
    }
}

async fn peers<S: Source>(State(source): State<Arc<S>>, UrlQuery(query): UrlQuery<Query>) -> Json<Peers> {
    Json(source.peers(query).await)
}

async fn swarm<S: Source>(
    State(source): State<Arc<S>>,
    Path(digest): Path<String>,
    UrlQuery(query): UrlQuery<Query>,
) -> Response {
    match Digest::parse(&digest) {
        Ok(digest) => Json(source.swarm(digest, query).await).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
