//! The links and tags in this origin's files.
//!
//! A tag's file has a second line where the origin is one of several: its votes on what the tag names ([`Register`]). So has a
//! link's: which put of it that is.

pub(crate) mod links;
mod listing;
mod marks;
mod tags;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use shoal_control::cluster::message::{LinkName, LinkTo, MetadataRecord, TagAcceptance, TagName, TagVersion};
use shoal_driver::{DriverError, FilesystemDriver, Link, LinkKind, TransferError};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::link_state::Change;
use crate::tags::RecentTags;
use crate::time::microseconds;

/// The links and tags of this origin.
pub(crate) struct Records {
    metadata: FilesystemDriver,
    pub(crate) recent_tags: RecentTags,
    /// One writer a tag or a link, or an older version could be written over a newer one.
    turns: Vec<Mutex<()>>,
    /// Every ballot up to this one may have been promised for a tag of which nothing is kept.
    floor: OnceCell<Mutex<TagVersion>>,
    follower: OnceLock<Arc<dyn Follower>>,
}

/// Who is told of every link and tag that changed here, before that is acknowledged. What another origin had and this one
/// took over is no change.
#[async_trait]
pub(crate) trait Follower: Send + Sync + 'static {
    /// An error means that the change is not acknowledged; it stands all the same.
    async fn changed(&self, what: Changed<'_>) -> Result<(), TransferError>;
}

/// What changed: look how it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed<'a> {
    Link(&'a Link),
    Tag(&'a TagName),
}

impl Records {
    /// How many tags may be written at a time: more share a turn by chance, which costs them a sync.
    const TURNS: usize = 64;

    pub(crate) fn new(metadata: FilesystemDriver) -> Self {
        let turns = std::iter::repeat_with(Mutex::default).take(Self::TURNS).collect();
        let (recent_tags, floor) = (RecentTags::default(), OnceCell::new());
        Self { metadata, recent_tags, turns, floor, follower: OnceLock::new() }
    }

    /// Has every change told. To be said once, before the first request.
    pub(crate) fn followed_by(&self, follower: Arc<dyn Follower>) {
        // The first to say it counts.
        let _ = self.follower.set(follower);
    }

    /// Whether anybody is told.
    pub(crate) fn is_followed(&self) -> bool {
        self.follower.get().is_some()
    }

    async fn changed(&self, what: Changed<'_>) -> Result<(), TransferError> {
        match self.follower.get() {
            Some(follower) => follower.changed(what).await,
            None => Ok(()),
        }
    }

    /// Takes over what another origin has, where it is news; says whether it was.
    pub(crate) async fn learn(&self, record: &MetadataRecord) -> Result<bool, TransferError> {
        match record {
            MetadataRecord::Link(record) => self.learn_link(record).await,
            MetadataRecord::Unlinked(deletion) => {
                Ok(self.delete_link(deletion, microseconds()).await?.0 == Change::Write)
            }
            MetadataRecord::Tag(record) => {
                let known = self.vote(&record.name).await?;
                let is_news = known.is_none_or(|known| record.vote.is_newer_than(&known));
                Ok(is_news && self.keep_vote(record).await? == TagAcceptance::Accepted)
            }
            MetadataRecord::End => Ok(false),
        }
    }

    async fn turn(&self, name: &impl Hash) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let turn = hasher.finish() % Self::TURNS as u64;
        self.turns[usize::try_from(turn).unwrap_or(0)].lock().await
    }
}

/// A link as the wire names it.
pub(crate) fn name_of(link: &Link) -> LinkName {
    let to = match link.kind {
        LinkKind::Layer => LinkTo::Layer,
        LinkKind::Revision => LinkTo::Revision,
    };
    LinkName { repository: link.repository.clone(), to, digest: link.digest }
}

/// The link that the wire names.
pub(crate) fn link_of(name: &LinkName) -> Link {
    let kind = match name.to {
        LinkTo::Layer => LinkKind::Layer,
        LinkTo::Revision => LinkKind::Revision,
    };
    Link { repository: name.repository.clone(), kind, digest: name.digest }
}

pub(crate) fn from_driver(error: DriverError) -> TransferError {
    match error {
        DriverError::PathNotFound { .. } => TransferError::NotFound,
        other => TransferError::Failed(Box::new(other)),
    }
}

#[cfg(test)]
mod tests;
