//! Manifests: GET, HEAD, PUT and DELETE, by tag and by digest (distribution-spec, "Pulling manifests", "Pushing manifests").
//!
//! What comes back is what was pushed, byte for byte, whatever the client accepts: another form has another digest.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, LOCATION, WARNING,
};
use http::{HeaderValue, StatusCode};
use shoal_core::{Digest, NameError, Reference, Tag};
use shoal_driver::{ResolvedTag, TagExpectation};

use super::conditions::{entity_tag, expectation, is_known_to_client, warning};
use super::error::{ApiError, Code};
use super::names::Target;
use super::pull_body::PullBody;
use super::request_body::RequestBody;
use super::{CONTENT_DIGEST, Exchange, SUBJECT, TAG, ascii, empty, not_modified, with_body};
use crate::event::Action;
use crate::manifest::{MAX_MANIFEST_SIZE, Manifest};

/// GET and HEAD.
pub(super) async fn pull(exchange: Exchange, target: Target, reference: &str) -> Result<Response, ApiError> {
    let reference = parse_known(reference)?;
    let manifests = exchange.repository(&target).manifests();
    let ResolvedTag { digest, freshness } =
        manifests.resolve(&reference).await.map_err(ApiError::from_pull)?;
    let mut response = if is_known_to_client(exchange.header(IF_NONE_MATCH), &digest) {
        not_modified(identity(&digest))
    } else {
        // A HEAD reads it as well: for its type, and so that it says 200 only where a GET will.
        let manifest = manifests.read(&reference, &digest).await.map_err(ApiError::from_pull)?;
        if !exchange.is_head() {
            let (teller, tag) = (exchange.teller(&target, &Action::Pull), tag_of(&reference));
            teller.tell_of_manifest(Action::Pull, &manifest, &digest, tag).await;
        }
        send(&exchange, &manifest, &digest)
    };
    if let Some(warning) = warning(freshness) {
        response.headers_mut().insert(WARNING, HeaderValue::from_static(warning));
    }
    Ok(response)
}

/// PUT.
pub(super) async fn put(
    exchange: Exchange,
    target: Target,
    reference: &str,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let reference = Reference::parse(reference)?;
    let tags = more_tags(&exchange, &reference)?;
    let expected = expected(&exchange, &reference)?;
    let bytes = body.collect(MAX_MANIFEST_SIZE).await?.ok_or_else(too_large)?;
    let content_type =
        exchange.header(CONTENT_TYPE).map(|text| text.split(';').next().unwrap_or(text).trim());
    let manifest = Manifest::parse(bytes, content_type)?;
    let manifests = exchange.repository(&target).manifests();
    let (observer, teller) = (exchange.api.observer.clone(), exchange.teller(&target, &Action::Push));
    let write = async move {
        let digest = manifests.put(&reference, &expected, &tags, &manifest).await?;
        observer.pushed(manifest.bytes().len() as u64);
        let tags_put = if tags.is_empty() { tag_of(&reference) } else { &tags };
        teller.tell_of_manifest(Action::Push, &manifest, &digest, tags_put).await;
        let headers =
            [(LOCATION, target.manifest_url(digest)), (CONTENT_DIGEST, digest.to_string()), no_content()];
        let mut response = empty(StatusCode::CREATED, headers);
        if let Some(subject) = manifest.subject() {
            response.headers_mut().insert(SUBJECT, ascii(&subject));
        }
        for tag in &tags {
            response.headers_mut().append(TAG, ascii(tag));
        }
        Ok(response)
    };
    exchange.api.finish(write).await
}

/// What the tag must name, by `If-Match` and `If-None-Match`. Content that is put under its digest is always the same.
fn expected(exchange: &Exchange, reference: &Reference) -> Result<TagExpectation, ApiError> {
    let conditions = [exchange.header(IF_MATCH), exchange.header(IF_NONE_MATCH)];
    match (reference, conditions) {
        (_, [None, None]) => Ok(TagExpectation::anything()),
        (Reference::Tag(_), [matches, differs]) => {
            expectation(matches, differs).map_err(ApiError::bad_condition)
        }
        (Reference::Digest(_), _) => {
            Err(ApiError::bad_condition("If-Match and If-None-Match are for manifests that are put by a tag"))
        }
    }
}

/// The tags that a manifest gets beside its digest: `?tag=a&tag=b`. Beside a tag they mean nothing, and get no answer.
fn more_tags(exchange: &Exchange, reference: &Reference) -> Result<Vec<Tag>, ApiError> {
    if matches!(reference, Reference::Tag(_)) {
        return Ok(vec![]);
    }
    let tags: Vec<&str> = exchange.all("tag").collect();
    if tags.len() > MAX_TAGS {
        let message = format!("at most {MAX_TAGS} tags can be put at once");
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, Code::Unsupported, message));
    }
    Ok(tags.into_iter().map(Tag::parse).collect::<Result<_, _>>()?)
}

/// DELETE: a tag; or a manifest by digest, with every tag that names it.
pub(super) async fn delete(
    exchange: Exchange,
    target: Target,
    reference: &str,
) -> Result<Response, ApiError> {
    let reference = parse_known(reference)?;
    let manifests = exchange.repository(&target).manifests();
    let teller = exchange.teller(&target, &Action::Delete);
    let delete = async move {
        manifests.delete(&reference).await?;
        let (digest, tag) = match reference {
            Reference::Tag(tag) => (None, Some(tag)),
            Reference::Digest(digest) => (Some(digest), None),
        };
        teller.tell_of_deleted_manifest(digest, tag).await;
        Ok(empty(StatusCode::ACCEPTED, [no_content()]))
    };
    exchange.api.finish(delete).await
}

/// The tag, if it is one.
fn tag_of(reference: &Reference) -> &[Tag] {
    match reference {
        Reference::Tag(tag) => std::slice::from_ref(tag),
        Reference::Digest(_) => &[],
    }
}

/// Reads the reference of what has to be there. What is no tag names nothing: not found is what clients expect, rather
/// than a fault of theirs.
fn parse_known(reference: &str) -> Result<Reference, ApiError> {
    match Reference::parse(reference) {
        Err(error @ NameError::Tag(_)) => {
            Err(ApiError::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, error.to_string()))
        }
        reference => Ok(reference?),
    }
}

fn send(exchange: &Exchange, manifest: &Manifest, digest: &Digest) -> Response {
    let body =
        if exchange.is_head() { Body::empty() } else { PullBody::whole(exchange, manifest.bytes().clone()) };
    let [digest, tag] = identity(digest);
    let headers = [
        digest,
        tag,
        (CONTENT_TYPE, manifest.media_type().as_str().to_owned()),
        (CONTENT_LENGTH, manifest.bytes().len().to_string()),
    ];
    with_body(StatusCode::OK, headers, body)
}

fn identity(digest: &Digest) -> [(HeaderName, String); 2] {
    [(CONTENT_DIGEST, digest.to_string()), (ETAG, entity_tag(digest))]
}

fn no_content() -> (HeaderName, String) {
    (CONTENT_LENGTH, "0".to_owned())
}

fn too_large() -> ApiError {
    let message = format!("a manifest has at most {MAX_MANIFEST_SIZE} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}

/// The most tags in one request; what zot takes. The specification asks for ten.
const MAX_TAGS: usize = 46;
