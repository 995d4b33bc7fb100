//! Upload sessions: where the bytes go next, and how many are there.

use std::fmt;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Response, Url};
use shoal_core::{Digest, RepositoryName};

use crate::error::UpstreamError;
use crate::registry::Registry;
use crate::token::Scope;
use crate::transport::{Call, what};

/// An upload that a registry has begun. Who has it can write to it: it is kept as a secret is.
#[derive(Clone, PartialEq, Eq)]
pub struct Session(String);

/// A session, and how far it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) session: Session,
    pub(super) offset: u64,
    /// The least that the registry takes at a time, but for the last part.
    pub(super) min_part: u64,
}

impl Session {
    /// A session that was kept. Where it leads is checked when it is used.
    #[must_use]
    pub fn kept(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What to keep.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[session]")
    }
}

impl Registry {
    /// Begins an upload; `None` where the registry mounted the blob instead.
    pub(super) async fn begin(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Option<Place>, UpstreamError> {
        let mut url = self.path(repository, "blobs/uploads/")?;
        let mut scope = Scope::push(repository);
        if let Some(from) = from.filter(|from| *from != repository) {
            url.query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", from.as_str());
            scope = scope.and(&Scope::pull(from));
        }
        let call = Call::new(Method::POST, url, scope).header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.transport.expect(&call, &[StatusCode::CREATED, StatusCode::ACCEPTED]).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(None);
        }
        let session = self.session_of(&call.url, &response)?;
        let min_part = response.headers().get("oci-chunk-min-length");
        let min_part =
            min_part.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0).min(MAX_MIN_PART);
        Ok(Some(Place { session, offset: 0, min_part }))
    }

    /// How far a session is; `None` where the registry does not know it any more, or does not say.
    pub(super) async fn session_status(
        &self,
        repository: &RepositoryName,
        session: Session,
    ) -> Result<Option<Place>, UpstreamError> {
        let Ok(url) = self.session_url(&session) else { return Ok(None) };
        let call = Call::new(Method::GET, url, Scope::push(repository));
        let response = self.transport.send(&call).await?;
        if response.status() != StatusCode::NO_CONTENT {
            return match response.status().as_u16() {
                // Somebody else's path, a session that ran out, or one that cannot be asked about.
                400 | 404 | 405 | 410 | 416 => Ok(None),
                _ => self.transport.judge(&call.what(), response, &[]).await.map(|_| None),
            };
        }
        let session = self.session_of(&call.url, &response).unwrap_or(session);
        Ok(held(&response).map(|offset| Place { session, offset, min_part: 0 }))
    }

    /// Where the last part goes.
    pub(super) fn commit_url(&self, place: &Place, digest: &Digest) -> Result<Url, UpstreamError> {
        let mut url = self.session_url(&place.session)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        Ok(url)
    }

    /// The last request of an upload, which may be the only one; `offset` where it carries the rest of a blob.
    pub(super) fn put_part(
        &self,
        repository: &RepositoryName,
        url: Url,
        offset: Option<u64>,
        length: u64,
    ) -> Result<Call, UpstreamError> {
        let call = Call::new(Method::PUT, url, Scope::push(repository)).header(CONTENT_TYPE, OCTETS);
        match offset {
            Some(offset) => Ok(call.header(CONTENT_RANGE, range(offset, length)?)),
            None => Ok(call),
        }
    }

    /// A part that is not the last.
    pub(super) fn patch_part(
        &self,
        repository: &RepositoryName,
        place: &Place,
        length: u64,
    ) -> Result<Call, UpstreamError> {
        let call = Call::new(Method::PATCH, self.session_url(&place.session)?, Scope::push(repository));
        Ok(call.header(CONTENT_TYPE, OCTETS).header(CONTENT_RANGE, range(place.offset, length)?))
    }

    /// Where an answer says to go on: at this registry, or nowhere, for the bytes and the token go there.
    fn session_of(&self, asked: &Url, response: &Response) -> Result<Session, UpstreamError> {
        let what = what(&Method::POST, asked);
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location =
            location.ok_or_else(|| UpstreamError::malformed(&what, "the answer has no Location"))?;
        let url =
            asked.join(location).map_err(|_| UpstreamError::malformed(&what, "its Location is no URL"))?;
        let session = Session(url.into());
        self.session_url(&session)?;
        Ok(session)
    }

    fn session_url(&self, session: &Session) -> Result<Url, UpstreamError> {
        let base = self.transport.base();
        let what = format!("upload to {}", self.host());
        let url =
            base.join(&session.0).map_err(|_| UpstreamError::malformed(&what, "the session is no URL"))?;
        let userinfo = !url.username().is_empty() || url.password().is_some();
        if url.origin() != base.origin() || userinfo {
            let there = url.origin().ascii_serialization();
            let reason = format!(
                "it leads to {there}, another place than the registry; behind a proxy the registry has to be told its own URL"
            );
            return Err(UpstreamError::Unsafe { what, reason });
        }
        Ok(url)
    }
}

impl Place {
    /// A part went: what the registry says of it counts. How far that brought it.
    pub(super) fn advance(
        &mut self,
        registry: &Registry,
        response: &Response,
        sent: u64,
    ) -> Result<u64, UpstreamError> {
        let asked = registry.session_url(&self.session)?;
        self.session = registry.session_of(&asked, response)?;
        let (before, most) = (self.offset, self.offset + sent);
        self.offset = held(response).map_or(most, |held| held.clamp(before, most));
        Ok(self.offset - before)
    }
}

/// How many bytes a session has: `Range: 0-<last>`. `0-0` may be one or none, and `None` is neither.
fn held(response: &Response) -> Option<u64> {
    read_range(response.headers().get(RANGE)?.to_str().ok()?)
}

fn read_range(text: &str) -> Option<u64> {
    let last: u64 = text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.parse().ok()?;
    (last > 0).then(|| last.checked_add(1)).flatten()
}

/// Without the unit, unlike everywhere else (distribution-spec, "Pushing a blob in chunks").
fn range(offset: u64, length: u64) -> Result<HeaderValue, UpstreamError> {
    let text = format!("{offset}-{}", offset + length.saturating_sub(1));
    HeaderValue::try_from(text).map_err(|error| UpstreamError::malformed("Content-Range", error.to_string()))
}

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Object stores ask for 5 MiB; nobody may ask for all of a blob.
const MAX_MIN_PART: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credentials, EndpointConfig, RegistryHost};

    #[test]
    fn the_range_of_a_session_is_how_much_it_has() {
        for (text, held) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("0-0", None),
            ("1-9", None),
            ("0-", None),
            ("0-18446744073709551615", None),
            ("x", None),
        ] {
            assert_eq!(read_range(text), held, "{text}");
        }
    }

    #[test]
    fn a_session_is_at_the_registry_or_nowhere() {
        let host = RegistryHost::parse("r.example").unwrap();
        let registry = Registry::new(host, &EndpointConfig::default(), Credentials::Anonymous).unwrap();
        for (location, good) in [
            ("https://r.example/v2/a/blobs/uploads/1?_state=x", true),
            ("/v2/a/blobs/uploads/1", true),
            ("http://r.example/v2/a", false),
            ("https://r.example:8443/v2/a", false),
            ("https://evil.example/v2/a", false),
            ("https://u:p@r.example/v2/a", false),
        ] {
            assert_eq!(registry.session_url(&Session::kept(location)).is_ok(), good, "{location}");
        }
    }
}
