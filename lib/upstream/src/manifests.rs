//! Manifests, tags and referrers at a registry (distribution-spec, "Pulling manifests", "Content Discovery", "Content Management").

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Response, Url};
use serde::Deserialize;
use shoal_core::{Algorithm, Digest, Reference, RepositoryName, Tag};

use crate::MAX_MANIFEST_BYTES;
use crate::error::UpstreamError;
use crate::link;
use crate::manifest::{Descriptor, Manifest, MediaType};
use crate::registry::Registry;
use crate::token::Scope;
use crate::transport::Call;

#[derive(Deserialize)]
struct TagList {
    /// Some registries say `null` where there is none.
    tags: Option<Vec<String>>,
}

/// What a registry says of a manifest that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFound {
    /// Its digest in the registry's word, if it says so: good to compare and nothing else.
    pub claimed: Option<Digest>,
}

impl Registry {
    /// Gets a manifest by tag or digest. What was asked for by digest is proved by it; what a tag means is the registry's word,
    /// and the digest of it is that of the bytes that came, whatever the registry says.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, UpstreamError> {
        let call = self.manifest_call(Method::GET, repository, reference)?;
        let response = self.transport.expect(&call, &[StatusCode::OK]).await?;
        let content_type = content_type(&response);
        let bytes = self.transport.read(&call.what(), response, MAX_MANIFEST_BYTES).await?;
        let parsed = match reference {
            Reference::Digest(digest) => Manifest::parse(bytes, digest, content_type.as_deref()),
            Reference::Tag(_) => Manifest::parse_new(bytes, Algorithm::Sha256, content_type.as_deref()),
        };
        parsed.map_err(|error| UpstreamError::wrong(&call.what(), error.to_string()))
    }

    /// Whether there is such a manifest, and which.
    pub async fn find_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<ManifestFound>, UpstreamError> {
        let call = self.manifest_call(Method::HEAD, repository, reference)?;
        match self.transport.expect(&call, &[StatusCode::OK]).await {
            Ok(response) => Ok(Some(ManifestFound { claimed: claimed_digest(&response) })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<(), UpstreamError> {
        let media_type = HeaderValue::from_static(manifest.media_type().as_str());
        let response = self.put(repository, reference, media_type, manifest.bytes().clone()).await?;
        // A registry that lists referrers says so; where it does not, whoever pushes keeps the list.
        match manifest.subject() {
            Some(subject) if !response.headers().contains_key("oci-subject") => {
                self.add_referrer(repository, &subject.digest, manifest).await
            }
            _ => Ok(()),
        }
    }

    async fn put(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: HeaderValue,
        bytes: Bytes,
    ) -> Result<Response, UpstreamError> {
        let url = self.path(repository, format_args!("manifests/{reference}"))?;
        let mut call = Call::new(Method::PUT, url, Scope::push(repository)).header(CONTENT_TYPE, media_type);
        call.body = bytes;
        let call = self.sign(call);
        self.transport.expect(&call, &[StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::OK]).await
    }

    /// Deletes a tag, or a manifest with all its tags. It is no error that there is none.
    pub async fn delete(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<bool, UpstreamError> {
        let url = self.path(repository, format_args!("manifests/{reference}"))?;
        let call = self.sign(Call::new(Method::DELETE, url, Scope::delete(repository)));
        let good = [StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT];
        match self.transport.expect(&call, &good).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The tags of a repository, all pages, at most `limit`; and whether there are more.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        limit: usize,
    ) -> Result<(Vec<Tag>, bool), UpstreamError> {
        let mut page = Some(self.path(repository, format_args!("tags/list?n={TAGS_PER_PAGE}"))?);
        let mut tags = Vec::new();
        let mut pages = 0;
        while let Some(url) = page {
            pages += 1;
            if pages > MAX_PAGES {
                return Err(UpstreamError::malformed(
                    &format!("tags of {repository}"),
                    "the list has no end",
                ));
            }
            let (body, next) = self.page(url, repository).await?;
            let list: TagList = serde_json::from_slice(&body).map_err(|_| {
                UpstreamError::malformed(&format!("tags of {repository}"), "the answer is no list of tags")
            })?;
            // A tag that is none cannot be asked for either.
            tags.extend(list.tags.unwrap_or_default().iter().filter_map(|tag| Tag::parse(tag).ok()));
            if tags.len() > limit {
                tags.truncate(limit);
                return Ok((tags, true));
            }
            page = next;
        }
        Ok((tags, false))
    }

    /// What refers to a manifest: by the API, else by the list that clients keep under a tag.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, UpstreamError> {
        let mut page = Some(self.path(repository, format_args!("referrers/{subject}"))?);
        let (mut found, mut seen, mut pages) = (Vec::new(), HashSet::new(), 0);
        while let Some(url) = page {
            pages += 1;
            let (body, next) = match self.page(url, repository).await {
                // distribution before 3 has no such route; others say that they cannot.
                Err(UpstreamError::NotFound { .. } | UpstreamError::Refused { .. }) if pages == 1 => {
                    return Ok(self.tagged_referrers(repository, subject).await?.unwrap_or_default());
                }
                outcome => outcome?,
            };
            let what = format!("referrers of {repository}@{subject}");
            let list = read_index(&what, body)?;
            found.extend(list.into_iter().filter(|referrer| seen.insert(referrer.digest)));
            if found.len() > MAX_REFERRERS || pages > MAX_PAGES {
                return Err(UpstreamError::malformed(&what, format!("there are more than {MAX_REFERRERS}")));
            }
            page = next;
        }
        Ok(found)
    }

    /// The list under the fallback tag; `None` where there is none.
    async fn tagged_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, UpstreamError> {
        match self.manifest(repository, &Reference::Tag(fallback_tag(subject))).await {
            Ok(index) => Ok(Some(index.manifests().to_vec())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds to that list. Two that do so at once may lose one: there is no compare-and-set in the protocol.
    async fn add_referrer(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        referrer: &Manifest,
    ) -> Result<(), UpstreamError> {
        let mut list = self.tagged_referrers(repository, subject).await?.unwrap_or_default();
        if list.iter().any(|listed| listed.digest == referrer.digest()) {
            return Ok(());
        }
        list.push(referrer.referrer_descriptor());
        let index = MediaType::OciIndex.as_str();
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": index, "manifests": list });
        let media_type = HeaderValue::from_static(MediaType::OciIndex.as_str());
        let tag = Reference::Tag(fallback_tag(subject));
        self.put(repository, &tag, media_type, Bytes::from(index.to_string())).await.map(drop)
    }

    /// One page of a list, and where the next is.
    async fn page(
        &self,
        url: Url,
        repository: &RepositoryName,
    ) -> Result<(Bytes, Option<Url>), UpstreamError> {
        let call = Call::new(Method::GET, url, Scope::pull(repository));
        let response = self.transport.expect(&call, &[StatusCode::OK]).await?;
        let links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let next = link::next(&call.url, links)
            .map_err(|reason| UpstreamError::Unsafe { what: call.what(), reason: reason.to_string() })?;
        Ok((self.transport.read(&call.what(), response, MAX_MANIFEST_BYTES).await?, next))
    }

    fn manifest_call(
        &self,
        method: Method,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Call, UpstreamError> {
        let url = self.path(repository, format_args!("manifests/{reference}"))?;
        let call = Call::new(method, url, Scope::pull(repository));
        Ok(MediaType::ALL
            .iter()
            .fold(call, |call, kind| call.header(ACCEPT, HeaderValue::from_static(kind.as_str()))))
    }
}

/// The tag under which clients keep referrers where the registry does not (distribution-spec, "Referrers Tag Schema").
#[must_use]
pub fn fallback_tag(subject: &Digest) -> Tag {
    let hex = subject.hex();
    Tag::parse(&format!("{}-{}", subject.algorithm(), &hex[..64]))
        .expect("hexadecimal characters and a hyphen")
}

fn read_index(what: &str, body: Bytes) -> Result<Vec<Descriptor>, UpstreamError> {
    let index = Manifest::parse_new(body, Algorithm::Sha256, None);
    let index = index.map_err(|error| UpstreamError::malformed(what, error.to_string()))?;
    Ok(index.manifests().to_vec())
}

fn content_type(response: &Response) -> Option<String> {
    Some(response.headers().get(CONTENT_TYPE)?.to_str().ok()?.to_owned())
}

fn claimed_digest(response: &Response) -> Option<Digest> {
    Digest::parse(response.headers().get("docker-content-digest")?.to_str().ok()?).ok()
}

/// What every registry gives at once.
const TAGS_PER_PAGE: usize = 1000;
/// A million tags; a registry that always names a next page ends there.
const MAX_PAGES: usize = 1000;
/// Signatures and attestations of one image.
const MAX_REFERRERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_tag_is_the_specifications() {
        let sha512 = Digest::of(Algorithm::Sha512, b"");
        assert_eq!(
            fallback_tag(&Digest::sha256(b"")).as_str(),
            format!("sha256-{}", Digest::sha256(b"").hex())
        );
        assert_eq!(fallback_tag(&sha512).as_str(), format!("sha512-{}", &sha512.hex()[..64]));
    }
}
