//! The list of tags, whole or in pages (distribution-spec, "Listing tags").

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK};
use serde_json::json;
use shoal_core::Tag;

use super::error::{ApiError, Code};
use super::names::Target;
use super::{Exchange, with_body};

/// GET and HEAD.
pub(super) async fn list(exchange: Exchange, target: Target) -> Result<Response, ApiError> {
    let limit = page_size(exchange.query("n"))?;
    let tags = exchange.repository(&target).tags().list().await?;
    let from = exchange.query("last").map_or(0, |last| tags.partition_point(|tag| tag.as_str() <= last));
    let rest = &tags[from..];
    let page = &rest[..limit.unwrap_or(rest.len()).min(rest.len())];
    let body = json!({ "name": target.external, "tags": page }).to_string();
    let headers = [(CONTENT_TYPE, "application/json".into()), (CONTENT_LENGTH, body.len().to_string())];
    let body = if exchange.is_head() { Body::empty() } else { Body::from(body) };
    let mut response = with_body(StatusCode::OK, headers, body);
    if let Some(last) = page.last().filter(|_| page.len() < rest.len()) {
        response.headers_mut().insert(LINK, next_page(&target, last, page.len()));
    }
    Ok(response)
}

/// The most tags that are wanted; `None` where the client has no limit of its own.
fn page_size(n: Option<&str>) -> Result<Option<usize>, ApiError> {
    let Some(n) = n else { return Ok(None) };
    let digits = !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
    let number = n.parse::<usize>().ok().filter(|_| digits);
    let number = number.ok_or_else(|| {
        let message = "n must be a number from 0 on";
        ApiError::new(StatusCode::BAD_REQUEST, Code::PaginationNumberInvalid, message)
    })?;
    Ok(Some(number.min(MAX_PAGE)))
}

fn next_page(target: &Target, last: &Tag, n: usize) -> HeaderValue {
    let url = target.url("tags/list", &[("last", last.as_str()), ("n", &n.to_string())]);
    HeaderValue::from_str(&format!("<{url}>; rel=\"next\"")).expect("made of validated names and numbers")
}

/// The longest page, whatever the client asks for; what the CNCF registry has as well.
const MAX_PAGE: usize = 1000;
