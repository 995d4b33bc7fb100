//! Blobs: GET, HEAD, one range, and DELETE (distribution-spec, "Pulling blobs").

use std::ops::Range;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use shoal_core::Digest;
use shoal_driver::ByteRange;

use super::conditions::{allows_range, entity_tag, is_known_to_client};
use super::error::{ApiError, Code};
use super::names::Target;
use super::pull_body::PullBody;
use super::range::Selection;
use super::{CONTENT_DIGEST, Exchange, ascii, empty, not_modified, with_body};
use crate::event::Action;
use crate::storage::Descriptor;

/// GET and HEAD.
pub(super) async fn pull(exchange: Exchange, target: Target, digest: &str) -> Result<Response, ApiError> {
    let digest = Digest::parse(digest).map_err(ApiError::invalid_digest)?;
    let blobs = exchange.repository(&target).blobs();
    let blob = blobs.stat(&digest).await?;
    if is_known_to_client(exchange.header(IF_NONE_MATCH), &digest) {
        return Ok(not_modified(headers(&blob)));
    }
    if exchange.is_head() {
        return Ok(describe(&blob, StatusCode::OK, 0..blob.size, Body::empty()));
    }
    exchange.teller(&target, &Action::Pull).tell_of_blob(Action::Pull, &blob).await;
    let range = exchange.header(RANGE).filter(|_| allows_range(exchange.header(IF_RANGE), &digest));
    match Selection::parse(range, blob.size) {
        Selection::Whole => {
            let parts = blobs.open(&blob, ByteRange::default()).await?;
            let body = PullBody::stream(&exchange, parts, blob.size);
            Ok(describe(&blob, StatusCode::OK, 0..blob.size, body))
        }
        Selection::Part(range) => {
            let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size);
            let bytes = ByteRange { start: range.start, end: Some(range.end) };
            let parts = blobs.open(&blob, bytes).await?;
            let body = PullBody::stream(&exchange, parts, range.end - range.start);
            let mut response = describe(&blob, StatusCode::PARTIAL_CONTENT, range, body);
            response.headers_mut().insert(CONTENT_RANGE, ascii(&content_range));
            Ok(response)
        }
        Selection::Unsatisfiable => {
            let message = format!("the blob has {} bytes", blob.size);
            Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::RangeInvalid, message)
                .with_header(CONTENT_RANGE, ascii(&format!("bytes */{}", blob.size))))
        }
    }
}

/// DELETE: the repository's link; the bytes are the collector's.
pub(super) async fn delete(exchange: Exchange, target: Target, digest: &str) -> Result<Response, ApiError> {
    let digest = Digest::parse(digest).map_err(ApiError::invalid_digest)?;
    let blobs = exchange.repository(&target).blobs();
    let teller = exchange.teller(&target, &Action::Delete);
    let delete = async move {
        blobs.delete(&digest).await.map_err(ApiError::from_write)?;
        teller.tell_of_deleted_blob(&digest).await;
        Ok(empty(StatusCode::ACCEPTED, [(CONTENT_LENGTH, "0".to_owned())]))
    };
    exchange.api.finish(delete).await
}

fn describe(blob: &Descriptor, status: StatusCode, range: Range<u64>, body: Body) -> Response {
    let mut response = with_body(status, headers(blob), body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    response
}

/// What is said of a blob with every answer.
fn headers(blob: &Descriptor) -> [(HeaderName, String); 5] {
    [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DIGEST, blob.digest.to_string()),
        (ETAG, entity_tag(&blob.digest)),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CACHE_CONTROL, "max-age=31536000".to_owned()),
    ]
}
