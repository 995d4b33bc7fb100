//! The list of tags, whole or in pages (distribution-spec, "Listing tags").

use axum::response::Response;
use serde_json::json;

use super::Exchange;
use super::error::ApiError;
use super::names::Target;
use super::pages::{answer, page_size};

/// GET and HEAD.
pub(super) async fn list(exchange: Exchange, target: Target) -> Result<Response, ApiError> {
    let limit = page_size(&exchange, exchange.api.config.max_tags_page)?;
    let tags = exchange.repository(&target).tags().list().await?;
    let from = exchange.query("last").map_or(0, |last| tags.partition_point(|tag| tag.as_str() <= last));
    let rest = &tags[from..];
    let page = &rest[..limit.unwrap_or(rest.len()).min(rest.len())];
    let last = page.last().filter(|_| page.len() < rest.len());
    let next =
        last.map(|last| target.url("tags/list", &[("last", last.as_str()), ("n", &page.len().to_string())]));
    Ok(answer(&exchange, &json!({ "name": target.external, "tags": page }), next.as_deref()))
}
