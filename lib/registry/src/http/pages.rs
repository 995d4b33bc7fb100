//! Pages of a list: `n`, `last`, and the `Link` to the next one (distribution-spec, "Listing tags"; RFC 8288).

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK};
use serde_json::Value;

use super::error::{ApiError, Code};
use super::{Exchange, ascii, with_body};

/// How many entries the client wants: `None` where it does not say, and never more than `limit`.
pub(super) fn page_size(exchange: &Exchange, limit: usize) -> Result<Option<usize>, ApiError> {
    let Some(n) = exchange.query("n") else { return Ok(None) };
    let digits = !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
    let number = n.parse::<usize>().ok().filter(|_| digits);
    let number = number.ok_or_else(|| {
        let message = "n must be a number from 0 on";
        ApiError::new(StatusCode::BAD_REQUEST, Code::PaginationNumberInvalid, message)
    })?;
    Ok(Some(number.min(limit)))
}

/// One page as JSON, with the address of the next one if there is one.
pub(super) fn answer(exchange: &Exchange, page: &Value, next: Option<&str>) -> Response {
    let body = page.to_string();
    let headers = [(CONTENT_TYPE, "application/json".into()), (CONTENT_LENGTH, body.len().to_string())];
    let body = if exchange.is_head() { Body::empty() } else { Body::from(body) };
    let mut response = with_body(StatusCode::OK, headers, body);
    if let Some(url) = next {
        response.headers_mut().insert(LINK, link(url));
    }
    response
}

fn link(url: &str) -> HeaderValue {
    ascii(&format!("<{url}>; rel=\"next\""))
}
