//! What refers to a manifest (distribution-spec, "Listing Referrers"): one page, since a list is a manifest at most.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use shoal_core::Digest;

use super::error::ApiError;
use super::names::Target;
use super::{Exchange, with_body};
use crate::manifest::MediaType;

/// GET and HEAD. Never "not found": clients would take that for a registry without the API. And never an empty list where
/// the list cannot be had: a missing signature has a meaning.
pub(super) async fn list(exchange: Exchange, target: Target, subject: &str) -> Result<Response, ApiError> {
    let subject = Digest::parse(subject).map_err(ApiError::invalid_digest)?;
    let mut list =
        exchange.repository(&target).referrers(subject).list().await.map_err(ApiError::from_driver)?;
    let filter = exchange.query("artifactType").filter(|artifact_type| !artifact_type.is_empty());
    if let Some(artifact_type) = filter {
        list.keep(artifact_type);
    }
    let index = list.to_index();
    let headers =
        [(CONTENT_TYPE, MediaType::OciIndex.as_str().to_owned()), (CONTENT_LENGTH, index.len().to_string())];
    let body = if exchange.is_head() { Body::empty() } else { Body::from(index) };
    let mut response = with_body(StatusCode::OK, headers, body);
    if filter.is_some() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
