//! What the driver of one origin of several stands on: this origin first, and then the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use shoal_control::ControlError;
use shoal_control::cluster::message::{BlobQuery, LinkRecord, RefillQuery, TagEntry, TagVersion};
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{ByteRange, ByteStream, Link, ResolvedTag, TagExpectation, TransferError, Transferer};

use super::Cluster;
use super::ballots::Change;
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
        let (own, link) = (link, name_of(link));
        let answers = self
            .0
            .ask_others(|client, place| {
                let asked = link.clone();
                async move { client.delete_link(place, &asked).await }
            })
            .await;
        let elsewhere = self.everybody_deleted(answers)?;
        // Here too, before that is told to whoever follows.
        Ok(self.0.records.delete_link(own).await? || elsewhere)
    }

    async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, TransferError> {
        self.0.read_tag(&name(repository, tag)).await
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        let change = Change::Write { digest: Some(*digest), expected: expected.clone() };
        self.0.change_tag(&name(repository, tag), &change).await
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        let expected = expected.clone().and(&TagExpectation::something());
        let change = Change::Write { digest: None, expected };
        match self.0.change_tag(&name(repository, tag), &change).await {
            Err(TransferError::TagMoved { current }) if current.is_none() => Err(TransferError::NotFound),
            deleted => deleted,
        }
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        let here = match self.0.records.tag_entries(repository).await {
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
        // The last vote on each: one that was deleted may still be listed by an origin that has not heard of that.
        let mut last: BTreeMap<Tag, (TagVersion, bool)> = BTreeMap::new();
        for TagEntry { tag, ballot, named } in lists.into_iter().flatten() {
            let known = last.entry(tag).or_insert((ballot, named));
            *known = (*known).max((ballot, named));
        }
        Ok(last.into_iter().filter(|(_, (_, named))| *named).map(|(tag, _)| tag).collect())
    }
}

impl ClusterTransferer {
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
