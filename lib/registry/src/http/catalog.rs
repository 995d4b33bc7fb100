//! The names of all repositories, in pages: `/v2/_catalog` of the CNCF registry; no part of the distribution-spec.

use axum::response::Response;
use serde_json::json;
use shoal_core::RepositoryName;

use super::Exchange;
use super::error::ApiError;
use super::pages::{answer, page_size};

/// GET and HEAD. The order is that of a walk (`a/b` before `a-b`): the next page goes on where this one ended.
pub(super) async fn list(exchange: Exchange) -> Result<Response, ApiError> {
    let limit = exchange.api.config.max_catalog_page;
    let limit = page_size(&exchange, limit)?.unwrap_or(limit);
    let last =
        exchange.query("last").filter(|last| !last.is_empty()).map(RepositoryName::parse).transpose()?;
    let page =
        exchange.api.storage.repositories(last.as_ref(), limit).await.map_err(ApiError::from_driver)?;
    let last = page.names.last().filter(|_| page.more);
    let next = last.map(|last| format!("/v2/_catalog?last={last}&n={limit}"));
    Ok(answer(&exchange, &json!({ "repositories": page.names }), next.as_deref()))
}
