//! What the driver of one origin of several stands on: this origin first, and then the others.
//!
//! A tag is read at every origin that is well, and the newest version counts; it is put with a version that is greater than
//! any of those. So whoever reaches one of those that acknowledged the last put sees it, or a later one.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use shoal_control::ControlError;
use shoal_control::cluster::message::{
    BlobQuery, LinkRecord, MetadataRecord, RefillQuery, TagName, TagRecord, TagValue, TagVersion,
};
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{ByteRange, ByteStream, Link, TransferError, Transferer};

use super::Cluster;
use crate::records::name_of;
use crate::transferer::name;

/// The whole cluster, as one origin of it sees it.
pub(crate) struct ClusterTransferer(pub(crate) Arc<Cluster>);

#[async_trait]
impl Transferer for ClusterTransferer {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        if let Some(blob) = self.0.store.blob(digest) {
            return Ok(blob.metainfo().length());
        }
        match self.0.find_metainfo(digest).await {
            Ok(found) => Ok(found.metainfo.length()),
            Err(error) => self.0.or_stat_behind(repository, digest, error).await,
        }
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        let ByteRange { start, end } = range;
        match self.0.clone().open_remote(BlobQuery { digest: *digest, start, end }).await {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let query = RefillQuery { repository: repository.cloned(), digest: *digest, start, end };
                self.0.clone().or_open_behind(query, error).await
            }
        }
    }

    async fn upload(&self, _: Option<&RepositoryName>, digest: &Digest) -> Result<(), TransferError> {
        self.0.replicate(digest).await
    }

    async fn writable(&self) -> Result<(), TransferError> {
        self.0.require_writable()
    }

    async fn find_link(&self, link: &Link) -> Result<Digest, TransferError> {
        let link = name_of(link);
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = link.clone();
                async move { client.link(place, &asked).await }
            })
            .await;
        let asked = 1 + answers.iter().flatten().count();
        answers.into_iter().flatten().flatten().next().ok_or_else(|| self.0.not_found(asked))
    }

    async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.0.require_writable()?;
        let record = LinkRecord { name: name_of(link), target: *target };
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = record.clone();
                async move { client.put_link(place, &asked).await }
            })
            .await;
        self.require_copies(answers.iter().flatten().count(), "a link")?;
        // Also where it was deleted here a moment ago.
        self.0.records.put_link(link, target).await
    }

    async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        self.require_everybody()?;
        self.0.records.note_deletion(link).await?;
        let link = name_of(link);
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = link.clone();
                async move { client.delete_link(place, &asked).await }
            })
            .await;
        self.everybody_deleted(answers)
    }

    async fn resolve_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Digest, TransferError> {
        let recent = &self.0.records.recent_tags;
        if let Some(digest) = recent.recall(Instant::now(), repository, tag) {
            return Ok(digest);
        }
        let tag_name = name(repository, tag);
        let value = self.newest(&tag_name).await?;
        // It is not to go back to an older one once it has heard of this.
        let record = MetadataRecord::Tag(TagRecord { name: tag_name.clone(), value });
        self.0.records.learn(&record).await?;
        // What was put in the meantime is newer than what was heard.
        self.0.records.read_tag(&tag_name).await
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), TransferError> {
        self.0.require_writable()?;
        let name = name(repository, tag);
        let before = match self.newest(&name).await {
            Ok(value) => value.version.stamp,
            Err(TransferError::NotFound) => 0,
            Err(error) => return Err(error),
        };
        let version = TagVersion {
            stamp: microseconds().max(before.saturating_add(1)),
            by: Some(self.0.source.borrow().id),
        };
        let record = TagRecord { name, value: TagValue { digest: *digest, version } };
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = record.clone();
                async move { client.put_tag(place, &asked).await }
            })
            .await;
        self.require_copies(answers.iter().flatten().count(), "a tag")?;
        self.0.records.keep_tag(&record).await.map(drop)
    }

    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), TransferError> {
        self.require_everybody()?;
        let name = name(repository, tag);
        // Here first: it is not to be learned again from those who still have it.
        let here = match self.0.records.delete_tag(&name).await {
            Err(TransferError::NotFound) => false,
            deleted => deleted.map(|()| true)?,
        };
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = name.clone();
                async move { client.delete_tag(place, &asked).await }
            })
            .await;
        let elsewhere = self.everybody_deleted(answers)?;
        if here || elsewhere { Ok(()) } else { Err(TransferError::NotFound) }
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        let here = match self.0.records.list_tags(repository).await {
            Err(TransferError::NotFound) => None,
            here => Some(here?),
        };
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = repository.clone();
                async move { client.tags(place, &asked).await }
            })
            .await;
        let asked = 1 + answers.iter().filter(|answer| is_answer(answer)).count();
        let lists: Vec<_> = answers.into_iter().flatten().chain(here).collect();
        if lists.is_empty() {
            return Err(self.0.not_found(asked));
        }
        let mut tags: Vec<_> = lists.into_iter().flatten().collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }
}

impl ClusterTransferer {
    /// What the tag names, by the newest version of all origins that answer.
    async fn newest(&self, name: &TagName) -> Result<TagValue, TransferError> {
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = name.clone();
                async move { client.tag(place, &asked).await }
            })
            .await;
        let here = match self.0.records.tag(name).await {
            Err(TransferError::NotFound) => None,
            here => Some(here?),
        };
        let asked = 1 + answers.iter().flatten().count();
        let values = answers.into_iter().flatten().flatten().chain(here);
        let newest = values.reduce(|one, other| if other.is_newer_than(&one) { other } else { one });
        newest.ok_or_else(|| self.0.not_found(asked))
    }

    /// `others` have it, and this origin is about to.
    fn require_copies(&self, others: usize, what: &str) -> Result<(), TransferError> {
        let (have, least) = (others + 1, self.0.min_replicas);
        if have >= least {
            return Ok(());
        }
        Err(TransferError::Unavailable(format!(
            "{what} is kept by {least} origins at least, and {have} took it"
        )))
    }

    /// What one origin does not hear of it would bring back.
    fn require_everybody(&self) -> Result<(), TransferError> {
        let (well, all) = (self.0.members.well().count(), self.0.rendezvous.len());
        if well == all {
            return Ok(());
        }
        Err(TransferError::Unavailable(format!("a delete needs all {all} origins, of which {well} are well")))
    }

    /// Whether anybody had it; all must have said.
    fn everybody_deleted(&self, answers: Vec<Result<bool, ControlError>>) -> Result<bool, TransferError> {
        if answers.len() + 1 < self.0.rendezvous.len() || answers.iter().any(Result::is_err) {
            return Err(TransferError::Unavailable(
                "not every origin has deleted it: delete it again".to_owned(),
            ));
        }
        Ok(answers.into_iter().flatten().any(|deleted| deleted))
    }
}

/// Whether the origin said what it has, or that it has nothing.
fn is_answer<T>(answer: &Result<T, ControlError>) -> bool {
    matches!(answer, Ok(_) | Err(ControlError::NotFound { .. }))
}

fn microseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
