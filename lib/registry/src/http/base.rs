//! `/v2/`: this is a registry (distribution-spec, "Determining Support").

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::with_body;

pub(super) fn answer() -> Response {
    with_body(StatusCode::OK, [(CONTENT_TYPE, "application/json".into())], Body::from("{}"))
}
