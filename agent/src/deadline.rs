//! A manifest is answered in time, or 404: a runtime that waits does not turn to its next mirror.
//!
//! The limit is of the whole answer: each question behind it (what the tag means, whether the repository may see the
//! manifest, its bytes) has a limit of its own, and together they may take longer. Blobs have none: they are long.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// The same routes, with `limit` for the answer to a GET or HEAD of a manifest.
pub(crate) fn limit_manifests(routes: Router, limit: Duration) -> Router {
    routes.layer(middleware::from_fn_with_state(limit, in_time))
}

async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    if !asks_for_manifest(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let path = request.uri().path().to_owned();
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        tracing::warn!(path, ?limit, "the manifest did not come in time, answered as unknown");
        unknown()
    })
}

/// `/v2/<name>/manifests/<reference>`; a repository's name may have a part called `manifests` too.
fn asks_for_manifest(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && path.rsplit('/').nth(1) == Some("manifests")
}

/// distribution-spec, "Error Codes".
fn unknown() -> Response {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"cannot be reached now: nobody sent it in time"}]}"#;
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_told_from_what_has_manifests_in_its_name() {
        for (method, path) in
            [(Method::GET, "/v2/a/manifests/1"), (Method::HEAD, "/v2/manifests/b/manifests/1")]
        {
            assert!(asks_for_manifest(&method, path), "{method} {path}");
        }
        for (method, path) in [
            (Method::PUT, "/v2/a/manifests/1"),
            (Method::GET, "/v2/a/manifests/blobs/sha256:00"),
            (Method::GET, "/v2/manifests/tags/list"),
            (Method::GET, "/v2/"),
            (Method::GET, "manifests"),
        ] {
            assert!(!asks_for_manifest(&method, path), "{method} {path}");
        }
    }
}
