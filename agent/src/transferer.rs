//! What the agent's read-only driver stands on: its store, its swarm, and the origins for tags.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use shoal_control::{ControlError, OriginClient};
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{ByteRange, ByteStream, DriverError, TransferError, Transferer};
use shoal_store::{BlobReader, Entry, Store};

use crate::access::Access;
use crate::fetches::{FetchError, Fetches};
use crate::tags::Tags;

/// Reads through the swarm; writes nothing.
pub(crate) struct SwarmTransferer {
    pub(crate) store: Store,
    pub(crate) fetches: Fetches,
    pub(crate) access: Access,
    pub(crate) tags: Tags,
    pub(crate) origins: OriginClient,
    pub(crate) resolve_timeout: Duration,
}

#[async_trait]
impl Transferer for SwarmTransferer {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        if let Some(length) = self.held(digest)
            && self.may_see(repository, digest).await
        {
            return Ok(length);
        }
        let verified = self.fetches.find(repository, digest).await?;
        if let Some(repository) = repository {
            self.access.grant(repository, digest).await;
        }
        Ok(verified.length())
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        if !self.may_see(repository, digest).await {
            self.stat(repository, digest).await?;
        }
        let entry = self.fetches.open(repository, digest).await?;
        Ok(stream(reader(&entry, range)))
    }

    async fn upload(&self, _: Option<&RepositoryName>, _: &Digest) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn resolve_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Digest, TransferError> {
        if let Some(digest) = self.tags.recall(repository, tag, Instant::now()) {
            return Ok(digest);
        }
        let digest = self.in_time(self.origins.resolve_tag(repository, tag)).await?;
        self.tags.learn(repository, tag, digest, Instant::now());
        Ok(digest)
    }

    async fn put_tag(&self, _: &RepositoryName, _: &Tag, _: &Digest) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn delete_tag(&self, _: &RepositoryName, _: &Tag) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        self.in_time(self.origins.list_tags(repository)).await
    }
}

impl SwarmTransferer {
    /// The length of a blob of which at least the metainfo is here.
    fn held(&self, digest: &Digest) -> Option<u64> {
        self.store.entry(digest).map(|entry| match entry {
            Entry::Whole(blob) => blob.metainfo().length(),
            Entry::Partial(partial) => partial.metainfo().length(),
        })
    }

    async fn may_see(&self, repository: Option<&RepositoryName>, digest: &Digest) -> bool {
        match repository {
            Some(repository) => self.access.is_granted(repository, digest).await,
            None => true,
        }
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, TransferError> {
        match tokio::time::timeout(self.resolve_timeout, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ControlError::NotFound { .. })) => Err(TransferError::NotFound),
            Ok(Err(error)) => Err(TransferError::Unavailable(error.to_string())),
            Err(_) => Err(TransferError::Unavailable("no origin answered in time".into())),
        }
    }
}

impl From<FetchError> for TransferError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotFound => Self::NotFound,
            FetchError::Unavailable(detail) => Self::Unavailable(detail.to_string()),
            FetchError::Failed(_) => Self::Failed(Box::new(error)),
        }
    }
}

fn reader(entry: &Entry, range: ByteRange) -> BlobReader {
    let bytes = range.start..range.end.unwrap_or(u64::MAX);
    match entry {
        Entry::Whole(blob) => blob.reader(bytes),
        Entry::Partial(partial) => partial.reader(bytes),
    }
}

fn stream(reader: BlobReader) -> ByteStream {
    let failed = |error: shoal_store::ReadError| DriverError::Failed {
        driver: "agent",
        detail: error.to_string(),
        source: Some(Box::new(error)),
    };
    reader.into_stream().map(move |bytes| bytes.map_err(failed)).boxed()
}
