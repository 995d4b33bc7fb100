//! An upstream as a source of the refill: blobs stream, a manifest comes whole, since it is small and its length may be a lie.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Link, LinkKind};
use shoal_upstream::{Registry, UpstreamError};

use super::remote::{Kind, Upstream};
use crate::records::Records;
use crate::source::{Incoming, Source, SourceError};

/// See the module.
pub(super) struct UpstreamSource {
    pub(super) upstream: Arc<Upstream>,
    pub(super) records: Arc<Records>,
}

#[async_trait]
impl Source for UpstreamSource {
    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError> {
        let repository = repository.ok_or(SourceError::NotFound)?;
        let remote = self.upstream.remote(repository).ok_or(SourceError::NotFound)?;
        if self.is_manifest(repository, digest).await {
            self.open_manifest(&remote, digest, start).await
        } else {
            self.open_blob(&remote, digest, start).await
        }
    }

    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, SourceError> {
        let name = repository.ok_or(SourceError::NotFound)?;
        let remote = self.upstream.remote(name).ok_or(SourceError::NotFound)?;
        if self.is_manifest(name, digest).await {
            return Ok(self.open(repository, digest, 0).await?.length);
        }
        match self.upstream.find_blob(&remote, digest).await?.length {
            Some(length) => Ok(length),
            None => Ok(self.open(repository, digest, 0).await?.length),
        }
    }

    /// A token, and an object store behind the registry, may each take as long as the client lets them.
    fn patience(&self) -> Option<Duration> {
        Some(PATIENCE)
    }
}

impl UpstreamSource {
    /// What nothing says is a blob.
    async fn is_manifest(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let link = Link { repository: repository.clone(), kind: LinkKind::Revision, digest: *digest };
        self.upstream.expects_manifest(repository, digest) || self.records.link(&link).await.is_ok()
    }

    async fn open_manifest(
        &self,
        remote: &RepositoryName,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError> {
        let mut bytes = self.upstream.manifest(remote, digest).await?.bytes().clone();
        let length = bytes.len() as u64;
        let rest = bytes.split_off(usize::try_from(start.min(length)).unwrap_or(bytes.len()));
        Ok(Incoming { length, bytes: stream::once(async { Ok(rest) }).boxed() })
    }

    async fn open_blob(
        &self,
        remote: &RepositoryName,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError> {
        let opened = self.upstream.ask(Kind::Blob, remote, async |registry: &Registry| {
            let mut download = registry.blob(remote, digest, None).unproved_from(start);
            match download.begin().await? {
                Some(length) => Ok((length, download)),
                None => Err(UpstreamError::Malformed {
                    what: format!("blob {digest} of {}/{remote}", registry.host()),
                    reason: "the registry does not say how long it is".to_owned(),
                }),
            }
        });
        let (length, download) = opened.await?;
        let upstream = self.upstream.clone();
        let bytes = download.into_stream().map_err(move |error| upstream.failed(Kind::Blob, &error));
        Ok(Incoming { length, bytes: bytes.boxed() })
    }
}

/// Longer than a connection, a token and an answer take at most, with the client's own limits.
const PATIENCE: Duration = Duration::from_secs(75);
