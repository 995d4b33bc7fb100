//! The admin port of every role: `/healthz`, `/readyz`, `/metrics`, and what `status` serves. Apart from the ports that serve, loopback by default.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use shoal_http::{Limits, Running, Server};

/// Whether the role is ready; if not, why.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Opens the admin port.
pub async fn serve(
    listen: SocketAddr,
    metrics: Registry,
    readiness: Readiness,
    status: Router,
) -> anyhow::Result<Running> {
    let server = Server::bind(listen, None, Limits::default()).await.with_context(|| {
        format!("cannot listen on {listen} for health and metrics: free it, or set `admin` to another")
    })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(async move || ready(&readiness)))
        .route("/metrics", get(async move || encode(&metrics)))
        .merge(status);
    Ok(server.serve(router))
}

fn ready(readiness: &Readiness) -> Response {
    match readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

fn encode(metrics: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&metrics.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
