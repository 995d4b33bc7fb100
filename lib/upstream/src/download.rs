//! A blob on its way: hashed as it comes, taken up again by a range where the connection breaks.
//!
//! Whoever reads a blob whole gets its last bytes only after its digest was proved. Memory is two chunks of the connection.

use std::ops::Range;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use shoal_core::{Digest, Digester, RepositoryName};

use crate::error::UpstreamError;
use crate::registry::Registry;
use crate::retry::{self, Decision, Failure};
use crate::token::Scope;
use crate::transport::Call;

/// A blob that is being read.
#[derive(Debug)]
pub struct Download {
    registry: Registry,
    repository: RepositoryName,
    digest: Digest,
    /// How long the blob is, as far as anybody said.
    total: Option<u64>,
    /// Where the reader stops, if that is before the end.
    until: Option<u64>,
    /// Where the next byte that comes belongs.
    at: u64,
    /// `None` where only a part is read: then whoever reads it proves the whole.
    digester: Option<Digester>,
    response: Option<Response>,
    /// How much of what comes first was read before.
    skip: u64,
    /// The last that came: it is given out when more came, or all was proved.
    held: Option<Bytes>,
    failures: u32,
    breaks: u32,
    ended: bool,
}

impl Download {
    pub(crate) fn whole(
        registry: Registry,
        repository: RepositoryName,
        digest: Digest,
        total: Option<u64>,
    ) -> Self {
        let digester = Some(Digester::new(digest.algorithm()));
        Self {
            registry,
            repository,
            digest,
            total,
            until: None,
            at: 0,
            digester,
            response: None,
            skip: 0,
            held: None,
            failures: 0,
            breaks: 0,
            ended: false,
        }
    }

    /// Goes on after `at` bytes that `digester` has seen: an earlier read's. The whole is proved all the same.
    #[must_use]
    pub fn resumed(mut self, at: u64, digester: Digester) -> Self {
        (self.at, self.digester) = (at, Some(digester));
        self
    }

    /// Begins after `at` bytes, and proves nothing: whoever puts the parts together has to.
    #[must_use]
    pub fn unproved_from(mut self, at: u64) -> Self {
        (self.at, self.digester) = (at, None);
        self
    }

    /// Reads the bytes of that range alone, and proves nothing. Ends where the blob does, at the latest.
    #[must_use]
    pub fn part(mut self, range: Range<u64>) -> Self {
        (self.at, self.until, self.digester) = (range.start, Some(range.end), None);
        self
    }

    /// Asks for the bytes, and says how long the blob is; `None`: the registry does not say.
    pub async fn begin(&mut self) -> Result<Option<u64>, UpstreamError> {
        if self.response.is_none() && !self.ended {
            self.response = Some(self.open().await?);
        }
        Ok(self.total)
    }

    /// The next bytes; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while !self.ended {
            match self.advance().await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(error @ UpstreamError::Unreachable { .. }) => self.broken(error).await?,
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, UpstreamError>> + Send {
        futures_util::stream::try_unfold(self, async |mut download| {
            Ok(download.next().await?.map(|bytes| (bytes, download)))
        })
    }

    /// One step: opens, reads, or ends. `None`: nothing to give out yet.
    async fn advance(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if self.end().is_some_and(|end| self.at >= end) {
            return self.finish();
        }
        if self.response.is_none() {
            match self.open().await {
                Ok(response) => self.response = Some(response),
                Err(error) => {
                    // Opening has tried often enough when it fails.
                    self.failures = retry::MAX_ATTEMPTS;
                    return Err(error);
                }
            }
        }
        let (what, transport) = (self.what(), &self.registry.transport);
        let Some(response) = &mut self.response else { return Ok(None) };
        match transport.chunk(&what, response).await? {
            Some(chunk) => self.take(chunk),
            None if self.total.is_none() => self.finish(),
            None => Err(UpstreamError::Unreachable {
                what,
                reason: format!("it broke off after {} bytes", self.at),
            }),
        }
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, UpstreamError> {
        let known = usize::try_from(self.skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        let mut chunk = chunk.split_off(known);
        self.skip -= known as u64;
        let wanted = self.until.map_or(u64::MAX, |until| until.saturating_sub(self.at));
        chunk.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        if chunk.is_empty() {
            return Ok(None);
        }
        let after = self.at + chunk.len() as u64;
        if after > self.total.unwrap_or(MAX_BLOB) {
            return Err(UpstreamError::wrong(&self.what(), "more bytes come than the blob has"));
        }
        if let Some(digester) = &mut self.digester {
            digester.update(&chunk);
        }
        (self.at, self.failures) = (after, 0);
        // Where nothing is to be proved there is nothing to wait for.
        if self.digester.is_none() {
            return Ok(Some(chunk));
        }
        Ok(self.held.replace(chunk))
    }

    /// All came: proves it, and gives out what was held back.
    fn finish(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        self.ended = true;
        self.response = None;
        if let Some(digester) = self.digester.take() {
            let found = digester.finish();
            if found != self.digest {
                return Err(UpstreamError::wrong(
                    &self.what(),
                    format!("the bytes that came have digest {found}"),
                ));
            }
        }
        Ok(self.held.take())
    }

    /// Waits before the next attempt, or gives up.
    async fn broken(&mut self, error: UpstreamError) -> Result<(), UpstreamError> {
        self.response = None;
        self.breaks += 1;
        let decision = self.registry.transport.decide(self.failures, Failure::Connection);
        self.failures += 1;
        match decision {
            Decision::After(wait) if self.breaks < MAX_BREAKS => {
                tracing::debug!(digest = %self.digest, at = self.at, %error, ?wait, "a blob is taken up again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            _ => {
                self.ended = true;
                Err(error)
            }
        }
    }

    async fn open(&mut self) -> Result<Response, UpstreamError> {
        let url = self.registry.path(&self.repository, format_args!("blobs/{}", self.digest))?;
        let mut call = Call::new(Method::GET, url, Scope::pull(&self.repository));
        if self.at > 0 || self.until.is_some() {
            let last = self.until.map_or_else(String::new, |until| until.saturating_sub(1).to_string());
            let range = HeaderValue::try_from(format!("bytes={}-{last}", self.at));
            call = call.header(
                RANGE,
                range.map_err(|error| UpstreamError::malformed(&self.what(), error.to_string()))?,
            );
        }
        let statuses = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let response = self.registry.transport.expect(&call, &statuses).await?;
        let (start, length) = extent(&response, self.at).ok_or_else(|| {
            UpstreamError::malformed(&self.what(), format!("its range is not the one from {} on", self.at))
        })?;
        self.check_length(length)?;
        // A server that knows no ranges sends all again.
        self.skip = self.at - start;
        Ok(response)
    }

    fn check_length(&mut self, length: Option<u64>) -> Result<(), UpstreamError> {
        match (self.total, length) {
            (Some(total), Some(length)) if total != length => Err(UpstreamError::wrong(
                &self.what(),
                format!("it has {length} bytes, and should have {total}"),
            )),
            (None, Some(length)) if length > MAX_BLOB => Err(UpstreamError::wrong(
                &self.what(),
                format!("it has {length} bytes, {MAX_BLOB} are allowed"),
            )),
            (total, length) => {
                self.total = total.or(length);
                Ok(())
            }
        }
    }

    /// Where reading stops, as far as it is known.
    fn end(&self) -> Option<u64> {
        match (self.until, self.total) {
            (Some(until), Some(total)) => Some(until.min(total)),
            (until, total) => until.or(total),
        }
    }

    fn what(&self) -> String {
        format!("blob {} of {}/{}", self.digest, self.registry.host(), self.repository)
    }
}

/// Where an answer begins, and how long the whole is; `None` where that is not what was asked.
fn extent(response: &Response, asked: u64) -> Option<(u64, Option<u64>)> {
    let header = |name| response.headers().get(name)?.to_str().ok();
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some((0, header(CONTENT_LENGTH).and_then(|length| length.parse().ok())));
    }
    let (start, total) = content_range(header(CONTENT_RANGE)?)?;
    (start == asked).then_some((start, total))
}

/// `bytes <start>-<end>/<total or *>` (RFC 9110, 14.4).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

/// A blob whose length nobody says ends there, at the latest.
const MAX_BLOB: u64 = 1 << 40;
/// A connection that breaks again and again after a few bytes ends there, at the latest.
const MAX_BREAKS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        for (text, range) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-9/x", None),
            ("bytes -9/10", None),
        ] {
            assert_eq!(content_range(text), range, "{text}");
        }
    }
}
