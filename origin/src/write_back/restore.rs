//! An origin whose disk was lost has its links and tags again from the backends: those that are asked for at once, all of them
//! in the background. Until it has all it does not say that something is not there without having looked.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use shoal_control::cluster::message::{
    LinkName, LinkRecord, LinkVersion, MetadataRecord, TagName, TagRecord,
};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Link, TransferError};
use tokio::time::{sleep, timeout};

use super::job::Job;
use super::{WriteBack, tag_object};
use crate::backend::{BackendError, Key, Objects, REPOSITORIES, tags_of};
use crate::records::{link_of, name_of};

impl WriteBack {
    /// Whether every link and tag is here that the backends had when this origin began.
    pub(super) fn is_restored(&self) -> bool {
        *self.0.is_restored.borrow()
    }

    /// Waits a while until that is so.
    pub(super) async fn require_restored(&self) -> Result<(), TransferError> {
        let mut restored = self.0.is_restored.subscribe();
        let waited = timeout(PATIENCE, restored.wait_for(|is_restored| *is_restored)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(TransferError::Unavailable(
                "this origin still reads from its backends what there is: try again".to_owned(),
            )),
        }
    }

    /// Takes over all links and tags of the backends, unless that was done before. Goes on until it is done.
    pub(super) async fn restore_all(&self) {
        let mark = self.mark("read");
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_restore_all(&mark).await {
                Ok(count) => {
                    if count > 0 {
                        tracing::info!(count, "links and tags are here again from the backends");
                    }
                    self.0.is_restored.send_replace(true);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read from the backends what there is: trying again, and until then names that are not here are answered 503");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn try_restore_all(&self, mark: &str) -> Result<usize, TransferError> {
        if self.0.records.is_marked(mark).await? {
            return Ok(0);
        }
        let was_empty = self.0.records.is_empty().await?;
        let mut count = 0;
        for backend in self.0.backends.iter() {
            count += self.restore_below(backend, REPOSITORIES).await?;
        }
        if was_empty {
            // All that is here now is from there.
            self.0.records.mark(&self.mark("written")).await?;
        }
        self.0.records.mark(mark).await?;
        Ok(count)
    }

    /// Takes over what is listed there; says how much was news.
    async fn restore_below(&self, backend: &Objects, below: &str) -> Result<usize, TransferError> {
        let listed = backend.list(below).map_err(|error| unavailable(&error));
        let restored = listed.map_ok(|(path, length)| async move {
            match Key::parse(&path) {
                Some(key) => self.restore(backend, key, Some(length)).await,
                None => Ok(false),
            }
        });
        let news = restored.try_buffer_unordered(AT_ONCE);
        news.try_fold(0, async |count, is_news| Ok(count + usize::from(is_news))).await
    }

    /// Takes over a link or a tag as it is at a backend; says whether it is news here.
    async fn restore(&self, backend: &Objects, key: Key, length: Option<u64>) -> Result<bool, TransferError> {
        let Some(job) = Option::<Job>::from(key.clone()) else { return Ok(false) };
        let is_backends =
            self.0.backends.of(job.repository()).is_some_and(|own| own.name() == backend.name());
        // What waits to be written is newer than what is there.
        if !is_backends || self.0.queue.has(&job.key()) {
            return Ok(false);
        }
        match job {
            Job::Link(name) => self.restore_link(backend, &key, name, length).await,
            Job::Tag(name) => self.restore_tag_from(backend, &key, name).await,
        }
    }

    async fn restore_link(
        &self,
        backend: &Objects,
        key: &Key,
        name: LinkName,
        length: Option<u64>,
    ) -> Result<bool, TransferError> {
        // A link names its own digest, or one of another algorithm, which has another length.
        let target = match length {
            Some(length) if length == name.digest.to_string().len() as u64 => name.digest,
            _ => match backend.small(key).await.map_err(|error| unavailable(&error))? {
                Some(small) => match Digest::parse(String::from_utf8_lossy(&small.content).trim()) {
                    Ok(target) => target,
                    Err(error) => return self.unreadable(backend, key, &error.to_string()),
                },
                None => return Ok(false),
            },
        };
        self.0
            .records
            .learn(&MetadataRecord::Link(LinkRecord { name, target, version: LinkVersion::default() }))
            .await
    }

    async fn restore_tag_from(
        &self,
        backend: &Objects,
        key: &Key,
        name: TagName,
    ) -> Result<bool, TransferError> {
        let Some(small) = backend.small(key).await.map_err(|error| unavailable(&error))? else {
            return Ok(false);
        };
        let vote = match tag_object::parse(&small.content) {
            Ok(vote) => vote,
            Err(reason) => return self.unreadable(backend, key, &reason),
        };
        let record = TagRecord { name, vote };
        if self.peers()?.alone {
            return self.0.records.restore_tag(&record).await;
        }
        self.0.records.learn(&MetadataRecord::Tag(record)).await
    }

    fn unreadable(&self, backend: &Objects, key: &Key, reason: &str) -> Result<bool, TransferError> {
        tracing::error!(
            backend = backend.name(),
            path = key.path(),
            reason,
            "left out an object that is no record"
        );
        Ok(false)
    }

    /// A link that is not here, as its backend has it.
    pub(super) async fn find_link(&self, link: &Link) -> Result<Digest, TransferError> {
        let name = name_of(link);
        let Some(backend) = self.0.backends.of(&name.repository) else { return Err(TransferError::NotFound) };
        if self.0.records.was_deleted(link).await? {
            return Err(TransferError::NotFound);
        }
        self.restore(backend, Key::Link(name.clone()), None).await?;
        self.0.records.link(&link_of(&name)).await
    }

    /// Takes over a tag from its backend; says whether that was news.
    pub(super) async fn restore_tag(&self, name: &TagName) -> Result<bool, TransferError> {
        match self.0.backends.of(&name.repository) {
            Some(backend) => self.restore(backend, Key::Tag(name.clone()), None).await,
            None => Ok(false),
        }
    }

    /// Takes over all tags of a repository.
    pub(super) async fn restore_tags(&self, repository: &RepositoryName) -> Result<(), TransferError> {
        match self.0.backends.of(repository) {
            Some(backend) => self.restore_below(backend, &tags_of(repository)).await.map(drop),
            None => Ok(()),
        }
    }
}

fn unavailable(error: &BackendError) -> TransferError {
    TransferError::Unavailable(format!("what stands behind this origin: {error}"))
}

/// How long a list waits for the rest of the names.
const PATIENCE: Duration = Duration::from_secs(10);
/// Objects that are read and written down at a time.
const AT_ONCE: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A backend that comes back is read soon: until then much is answered 503.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
