//! What the driver of an origin that stands alone stands on: a blob in its store is as far as it goes, and tags are links in
//! its own metadata.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use shoal_control::cluster::message::TagName;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{
    ByteRange, ByteStream, DriverError, Link, ResolvedTag, TagExpectation, TransferError, Transferer,
};
use shoal_store::{BlobReader, Entry, ReadError, Store};

use crate::records::Records;
use crate::refill::Refill;

/// The store and the tags of this origin.
pub(crate) struct LocalTransferer {
    store: Store,
    records: Arc<Records>,
    refill: Refill,
}

#[async_trait]
impl Transferer for LocalTransferer {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        match self.store.blob(digest) {
            Some(blob) => Ok(blob.metainfo().length()),
            None => Ok(self.refill.stat(repository, digest).await?),
        }
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        // The driver has looked into the store.
        let entry = self.refill.open(repository, digest).await?;
        Ok(stream(reader(&entry, range)))
    }

    async fn upload(&self, _: Option<&RepositoryName>, digest: &Digest) -> Result<(), TransferError> {
        self.store.blob(digest).map(|_| ()).ok_or(TransferError::NotFound)
    }

    async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        // The driver writes it too: here only so that it is there before anybody is told.
        if self.records.is_followed() { self.records.put_link_alone(link, target).await } else { Ok(()) }
    }

    async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        if !self.records.is_followed() {
            return Ok(false);
        }
        let was_there = self.records.link(link).await.is_ok();
        self.records.delete_link_alone(link).await?;
        Ok(was_there)
    }

    async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, TransferError> {
        let digest = match self.records.recent_tags.recall(Instant::now(), repository, tag) {
            Some(digest) => digest,
            None => self.records.read_tag(&name(repository, tag)).await?,
        };
        Ok(ResolvedTag::current(digest))
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.records.put_tag(&name(repository, tag), digest, expected).await
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.records.delete_tag(&name(repository, tag), expected).await
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        self.records.list_tags(repository).await
    }
}

impl LocalTransferer {
    pub(crate) fn new(store: Store, records: Arc<Records>, refill: Refill) -> Self {
        Self { store, records, refill }
    }
}

/// A range of a blob that is whole, or on its way.
pub(crate) fn reader(entry: &Entry, range: ByteRange) -> BlobReader {
    let bytes = range.start..range.end.unwrap_or(u64::MAX);
    match entry {
        Entry::Whole(blob) => blob.reader(bytes),
        Entry::Partial(partial) => partial.reader(bytes),
    }
}

/// A source that does not bring the rest is nobody's fault here, and may do so later.
fn stream(reader: BlobReader) -> ByteStream {
    let failed = |error: ReadError| DriverError::Unavailable { driver: "origin", detail: error.to_string() };
    reader.into_stream().map(move |bytes| bytes.map_err(failed)).boxed()
}

/// A tag of a repository.
pub(crate) fn name(repository: &RepositoryName, tag: &Tag) -> TagName {
    TagName { repository: repository.clone(), tag: tag.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use shoal_driver::FilesystemDriver;

    use super::*;

    async fn origin() -> (tempfile::TempDir, LocalTransferer) {
        let directory = tempfile::tempdir().unwrap();
        let store = shoal_store::Config { directory: directory.path().join("store") };
        let metadata = FilesystemDriver::new(directory.path().join("metadata"));
        let records = Arc::new(Records::new(metadata));
        let store = Store::open(store).await.unwrap();
        let refill = crate::refill::testing::refill(&store, Vec::new());
        let origin = LocalTransferer::new(store, records, refill);
        (directory, origin)
    }

    fn names() -> (RepositoryName, Tag) {
        (RepositoryName::parse("app").unwrap(), Tag::parse("latest").unwrap())
    }

    #[tokio::test]
    async fn a_moved_tag_is_seen_at_once_and_a_deleted_one_is_gone() {
        let ((_directory, origin), (app, tag)) = (origin().await, names());
        for content in ["one", "two", "three"] {
            let digest = Digest::sha256(content.as_bytes());
            origin.put_tag(&app, &tag, &digest, &TagExpectation::anything()).await.unwrap();
            for _ in 0..2 {
                assert_eq!(origin.resolve_tag(&app, &tag).await.unwrap(), ResolvedTag::current(digest));
            }
        }
        origin.delete_tag(&app, &tag, &TagExpectation::anything()).await.unwrap();
        assert!(matches!(origin.resolve_tag(&app, &tag).await, Err(TransferError::NotFound)));
        origin.store.close().await;
    }

    /// Readers race every move, so that some of them read the disk just before it and answer after it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_sees_an_older_tag_than_the_last_that_was_acknowledged() {
        let ((_directory, origin), (app, tag)) = (origin().await, names());
        let digests: Arc<Vec<Digest>> =
            Arc::new((0..=MOVES).map(|number| Digest::sha256(&number.to_be_bytes())).collect());
        origin.put_tag(&app, &tag, &digests[0], &TagExpectation::anything()).await.unwrap();
        let (origin, acknowledged) = (Arc::new(origin), Arc::new(AtomicUsize::new(0)));
        let read = |(app, tag): (RepositoryName, Tag)| {
            let (origin, acknowledged, digests) = (origin.clone(), acknowledged.clone(), digests.clone());
            async move {
                while acknowledged.load(Ordering::SeqCst) < MOVES {
                    let least = acknowledged.load(Ordering::SeqCst);
                    let seen = origin.resolve_tag(&app, &tag).await.unwrap().digest;
                    let seen = digests.iter().position(|digest| *digest == seen).unwrap();
                    assert!(seen >= least, "saw {seen} after {least}");
                    tokio::task::yield_now().await;
                }
            }
        };
        let readers = [tokio::spawn(read(names())), tokio::spawn(read(names()))];
        for (number, digest) in digests.iter().enumerate().skip(1) {
            origin.put_tag(&app, &tag, digest, &TagExpectation::anything()).await.unwrap();
            acknowledged.store(number, Ordering::SeqCst);
        }
        for reader in readers {
            reader.await.unwrap();
        }
        origin.store.close().await;
    }

    #[tokio::test]
    async fn of_those_who_expect_the_same_of_a_tag_one_writes() {
        let ((_directory, origin), (app, tag)) = (origin().await, names());
        let mut expected = TagExpectation::nothing();
        for round in 0..4u8 {
            let digests: Vec<_> = (0..8u8).map(|number| Digest::sha256(&[round, number])).collect();
            let puts = digests.iter().map(|digest| origin.put_tag(&app, &tag, digest, &expected));
            let done = futures_util::future::join_all(puts).await;
            assert_eq!(done.iter().filter(|put| put.is_ok()).count(), 1, "round {round}: {done:?}");
            let named = origin.resolve_tag(&app, &tag).await.unwrap().digest;
            assert!(done[digests.iter().position(|digest| *digest == named).unwrap()].is_ok());
            let moved = |put: &Result<(), TransferError>| matches!(put, Err(TransferError::TagMoved { current }) if **current == Some(named));
            assert_eq!(done.iter().filter(|put| moved(put)).count(), digests.len() - 1);
            expected = TagExpectation::one_of([named]);
        }
        let other = TagExpectation::nothing_or(Digest::sha256(b"other"));
        let refused = origin.delete_tag(&app, &tag, &other).await;
        assert!(matches!(refused, Err(TransferError::TagMoved { .. })), "{refused:?}");
        origin.delete_tag(&app, &tag, &expected).await.unwrap();
        origin.store.close().await;
    }

    const MOVES: usize = 100;
}
