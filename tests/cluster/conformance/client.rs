//! A client that takes nothing for granted: what a registry answers is looked at, never assumed.

use std::net::SocketAddr;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Body, Method, StatusCode};
use serde_json::Value;
use shoal_core::{Algorithm, Digest};

use super::report::{Checked, ensure, same};

/// A registry, and how it is asked.
#[derive(Clone)]
pub(super) struct Registry {
    http: reqwest::Client,
    base: String,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// How the bytes of a blob are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    PostOnly,
    PostPut,
    ChunkedSingle,
    Stream,
    ChunkedMulti,
    ChunkedMultiAndPutChunk,
}

impl Way {
    pub(super) const ALL: [Self; 6] = [
        Self::PostOnly,
        Self::PostPut,
        Self::ChunkedSingle,
        Self::Stream,
        Self::ChunkedMulti,
        Self::ChunkedMultiAndPutChunk,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PostOnly => "post only",
            Self::PostPut => "post+put",
            Self::ChunkedSingle => "chunked single",
            Self::Stream => "stream",
            Self::ChunkedMulti => "chunked multi",
            Self::ChunkedMultiAndPutChunk => "chunked multi and put chunk",
        }
    }
}

impl Registry {
    pub(super) fn at(address: SocketAddr) -> Self {
        shoal_identity::install_crypto_provider();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: http.build().unwrap(), base: format!("http://{address}") }
    }

    /// One request; `place` is a path, or the URL of a `Location`.
    pub(super) async fn send(
        &self,
        method: Method,
        place: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Checked<Answer> {
        let url = if place.starts_with('/') { format!("{}{place}", self.base) } else { place.to_owned() };
        let mut request = self.http.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.map_err(|error| format!("{place}: {error}"))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(|error| format!("{place}: the body: {error}"))?;
        Ok(Answer { status, headers, body })
    }

    pub(super) async fn get(&self, place: &str) -> Checked<Answer> {
        // Two lines, as clients of Go send them.
        let accept = [("accept", INDEX), ("accept", MANIFEST)];
        self.send(Method::GET, place, &accept, "").await
    }

    pub(super) async fn head(&self, place: &str) -> Checked<Answer> {
        self.send(Method::HEAD, place, &[("accept", INDEX), ("accept", MANIFEST)], "").await
    }

    pub(super) async fn delete(&self, place: &str) -> Checked<Answer> {
        self.send(Method::DELETE, place, &[], "").await
    }

    pub(super) async fn post(&self, place: &str) -> Checked<Answer> {
        self.send(Method::POST, place, &[("content-length", "0")], "").await
    }

    /// Starts an upload; gives where it goes on.
    pub(super) async fn start(&self, repository: &str, algorithm: Algorithm) -> Checked<String> {
        let query = match algorithm {
            Algorithm::Sha256 => String::new(),
            other => format!("?digest-algorithm={other}"),
        };
        let answer = self.post(&format!("/v2/{repository}/blobs/uploads/{query}")).await?;
        answer.expect(StatusCode::ACCEPTED)?.location()
    }

    /// A part of an upload, at that offset if it is a chunk.
    pub(super) async fn patch(&self, place: &str, chunk: Option<usize>, bytes: &[u8]) -> Checked<Answer> {
        let range = chunk.map(|start| format!("{start}-{}", start + bytes.len() - 1));
        let mut headers = vec![(CONTENT_TYPE.as_str(), OCTETS)];
        headers.extend(range.as_deref().map(|range| (CONTENT_RANGE.as_str(), range)));
        let bytes = Bytes::copy_from_slice(bytes);
        let body = match chunk {
            Some(_) => Body::from(bytes),
            None => Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(bytes)])),
        };
        self.send(Method::PATCH, place, &headers, body).await
    }

    /// The end of an upload.
    pub(super) async fn put(
        &self,
        place: &str,
        digest: &str,
        chunk: Option<usize>,
        bytes: &[u8],
    ) -> Checked<Answer> {
        let separator = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{separator}digest={digest}");
        let range = chunk.map(|start| format!("{start}-{}", start + bytes.len() - 1));
        let mut headers = vec![(CONTENT_TYPE.as_str(), OCTETS)];
        headers.extend(range.as_deref().map(|range| (CONTENT_RANGE.as_str(), range)));
        self.send(Method::PUT, &place, &headers, Bytes::copy_from_slice(bytes)).await
    }

    /// Uploads a blob in that way, looking at every answer. Gives the last one.
    pub(super) async fn upload(
        &self,
        repository: &str,
        digest: &Digest,
        content: &[u8],
        way: Way,
    ) -> Checked<Answer> {
        if way == Way::PostOnly {
            let place = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let content = Bytes::copy_from_slice(content);
            let answer = self.send(Method::POST, &place, &[(CONTENT_TYPE.as_str(), OCTETS)], content).await?;
            return answer.expect(StatusCode::CREATED);
        }
        let mut place = self.start(repository, digest.algorithm()).await?;
        let (parts, last) = match way {
            Way::PostPut => (vec![], content),
            _ if content.is_empty() => (vec![], content),
            Way::ChunkedSingle | Way::Stream => (vec![content], &[][..]),
            Way::ChunkedMulti => (thirds(content), &[][..]),
            _ => {
                let mut parts = thirds(content);
                let last = parts.pop().unwrap_or_default();
                (parts, last)
            }
        };
        let mut offset = 0;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let answer = self.patch(&place, (way != Way::Stream).then_some(offset), part).await?;
            offset += part.len();
            let answer = answer.expect(StatusCode::ACCEPTED)?;
            same("the range", answer.header("range")?, &format!("0-{}", offset - 1))?;
            place = answer.location()?;
        }
        let chunk = (way == Way::ChunkedMultiAndPutChunk && !last.is_empty()).then_some(offset);
        self.put(&place, &digest.to_string(), chunk, last).await?.expect(StatusCode::CREATED)
    }
}

fn thirds(content: &[u8]) -> Vec<&[u8]> {
    let third = content.len().div_ceil(3).max(1);
    content.chunks(third).collect()
}

impl Answer {
    pub(super) fn expect(self, status: StatusCode) -> Checked<Self> {
        self.expect_one_of(&[status])
    }

    pub(super) fn expect_one_of(self, statuses: &[StatusCode]) -> Checked<Self> {
        ensure(statuses.contains(&self.status), || {
            let body = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned();
            format!("the status is {}, not {statuses:?}: {body}", self.status)
        })?;
        Ok(self)
    }

    pub(super) fn header(&self, name: &str) -> Checked<&str> {
        let value = self.headers.get(name).ok_or_else(|| format!("there is no {name}"))?;
        value.to_str().map_err(|_| format!("{name} is no text"))
    }

    pub(super) fn location(&self) -> Checked<String> {
        self.header(LOCATION.as_str()).map(str::to_owned)
    }

    pub(super) fn json(&self) -> Checked<Value> {
        serde_json::from_slice(&self.body).map_err(|error| format!("the body is no JSON: {error}"))
    }

    /// An error of the specification: JSON, with codes that it knows.
    pub(super) fn is_error(&self, code: &str) -> Checked {
        ensure(self.header(CONTENT_TYPE.as_str())?.starts_with("application/json"), || {
            "an error that is no JSON".into()
        })?;
        let body = self.json()?;
        let errors = body["errors"].as_array().ok_or("there are no errors in the body")?;
        ensure(!errors.is_empty() && errors.iter().all(|error| error["code"] == code), || {
            format!("the errors are {errors:?}, not {code}")
        })
    }
}

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCTETS: &str = "application/octet-stream";
