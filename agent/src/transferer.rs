//! What the agent's read-only driver stands on: its store, its swarm, and the origins for tags.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use prometheus::IntCounter;
use shoal_control::{ControlError, OriginClient};
use shoal_core::{Digest, RepositoryName, Tag, causes};
use shoal_driver::{
    ByteRange, ByteStream, DriverError, Freshness, ResolvedTag, TagExpectation, TransferError, Transferer,
};
use shoal_store::{BlobReader, Entry, ReadError, Store};

use crate::access::Access;
use crate::config::Prefetch;
use crate::fetches::{FetchError, Fetches};
use crate::interest::Reading;
use crate::tags::Tags;

/// Reads through the swarm; writes nothing.
pub(crate) struct SwarmTransferer {
    pub(crate) store: Store,
    pub(crate) fetches: Fetches,
    pub(crate) access: Access,
    pub(crate) tags: Tags,
    pub(crate) stale_tags: IntCounter,
    pub(crate) origins: OriginClient,
    pub(crate) resolve_timeout: Duration,
    pub(crate) prefetch: Prefetch,
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
            self.access.grant(repository, digest, verified.grant()).await;
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
        for _ in 0..OPEN_ATTEMPTS {
            let (entry, reading) = self.fetches.open(repository, digest, self.prefetch.want(range)).await?;
            let reader = reader(&entry, range);
            // It may be evicted between its look-up and now; then it is fetched anew.
            if !reader.is_gone() {
                return Ok(stream(reader, reading));
            }
        }
        Err(TransferError::Unavailable("evicted again and again before it could be read".into()))
    }

    async fn upload(&self, _: Option<&RepositoryName>, _: &Digest) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, TransferError> {
        // An answer is as old as its question: a tag that moved while the origin spoke is seen in time as well.
        let asked = Instant::now();
        if let Some(digest) = self.tags.recall(repository, tag, asked) {
            return Ok(ResolvedTag::current(digest));
        }
        match self.in_time(self.origins.resolve_tag(repository, tag)).await {
            Ok(reply) if reply.unconfirmed => {
                Ok(ResolvedTag { digest: reply.digest, freshness: Freshness::Unconfirmed })
            }
            Ok(reply) => {
                self.tags.learn(repository, tag, reply.digest, asked);
                Ok(ResolvedTag::current(reply.digest))
            }
            Err(TransferError::NotFound) => {
                self.tags.forget(repository, tag, asked);
                Err(TransferError::NotFound)
            }
            Err(error) => {
                let digest = self.tags.recall_stale(repository, tag, Instant::now()).ok_or(error)?;
                self.stale_tags.inc();
                Ok(ResolvedTag { digest, freshness: Freshness::Remembered })
            }
        }
    }

    async fn put_tag(
        &self,
        _: &RepositoryName,
        _: &Tag,
        _: &Digest,
        _: &TagExpectation,
    ) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn delete_tag(&self, _: &RepositoryName, _: &Tag, _: &TagExpectation) -> Result<(), TransferError> {
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
            Some(repository) => self.access.grant_of(repository, digest, Instant::now()).await.is_some(),
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
            Ok(Err(error)) => Err(TransferError::Unavailable(causes(&error))),
            Err(_) => Err(TransferError::Unavailable("no origin answered in time".into())),
        }
    }
}

impl From<FetchError> for TransferError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotFound => Self::NotFound,
            FetchError::Unavailable(detail) => Self::Unavailable(detail.to_string()),
            // An agent that is broken (a full disk, say) is a mirror that does not have it: the runtime turns to the next.
            // Its operator hears of it here.
            FetchError::Failed(detail) => {
                tracing::error!(error = %detail, "this agent cannot keep what it is asked for");
                Self::Unavailable(detail.to_string())
            }
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

/// The bytes, for as long as which the fetch knows that somebody reads.
fn stream(reader: BlobReader, reading: Option<Reading>) -> ByteStream {
    let bytes = reader.into_stream().map(move |bytes| {
        let _ = &reading;
        bytes.map_err(read_failed)
    });
    bytes.boxed()
}

/// A fetch that was given up is nobody's fault here: a manifest that did not come is 404, not 500.
fn read_failed(error: ReadError) -> DriverError {
    let driver = "agent";
    match error {
        ReadError::FetchFailed { .. } => DriverError::Unavailable { driver, detail: error.to_string() },
        _ => DriverError::Failed { driver, detail: error.to_string(), source: Some(Box::new(error)) },
    }
}

/// How often a blob may be evicted between its look-up and its reading, microseconds later, before that is no accident.
const OPEN_ATTEMPTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_agent_is_a_mirror_that_does_not_have_it() {
        let full = FetchError::Failed("the disk is full".into());
        assert!(
            matches!(TransferError::from(full), TransferError::Unavailable(detail) if detail.contains("full"))
        );
    }
}
