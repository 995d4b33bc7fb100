//! The links and tags in this origin's files.
//!
//! A tag's file has a second line where the origin is one of several: its votes on what the tag names ([`Register`]). Links
//! that were deleted a moment ago are not put again by a list that another origin began to send before.

mod deleted;
mod listing;
mod marks;
mod tags;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use shoal_control::cluster::message::{
    LinkName, LinkRecord, LinkTo, MetadataRecord, TagAcceptance, TagName, TagVersion,
};
use shoal_core::Digest;
use shoal_driver::{
    Context, DriverError, FilesystemDriver, Link, LinkKind, StorageDriver as _, TransferError,
};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use self::deleted::Deleted;
use crate::tags::RecentTags;

/// The links and tags of this origin.
pub(crate) struct Records {
    metadata: FilesystemDriver,
    pub(crate) recent_tags: RecentTags,
    /// One writer a tag, or an older version could be written over a newer one.
    turns: Vec<Mutex<()>>,
    deleted: Mutex<Deleted>,
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
        let (recent_tags, deleted, floor) = (RecentTags::default(), Mutex::default(), OnceCell::new());
        Self { metadata, recent_tags, turns, deleted, floor, follower: OnceLock::new() }
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

    /// What a link names.
    pub(crate) async fn link(&self, link: &Link) -> Result<Digest, TransferError> {
        let path = link.path().to_driver_path();
        let content = self.metadata.get_content(&Context::default(), &path).await.map_err(from_driver)?;
        let digest = Digest::parse(String::from_utf8_lossy(&content).trim());
        digest.map_err(|error| TransferError::Failed(error.into()))
    }

    /// Puts a link.
    pub(crate) async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.deleted.lock().await.forget(link);
        self.write_link(link, target).await?;
        self.changed(Changed::Link(link)).await
    }

    /// Nothing is to put that link again because another origin still had it.
    pub(crate) async fn note_deletion(&self, link: &Link) -> Result<(), TransferError> {
        self.deleted.lock().await.note(Instant::now(), link.clone())
    }

    /// Deletes a link; says whether there was one.
    pub(crate) async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        let mut deleted = self.deleted.lock().await;
        deleted.note(Instant::now(), link.clone())?;
        let path = link.folder().to_driver_path();
        let was_there = match self.metadata.delete(&Context::default(), &path).await {
            Ok(()) => true,
            Err(DriverError::PathNotFound { .. }) => false,
            Err(error) => return Err(from_driver(error)),
        };
        drop(deleted);
        self.changed(Changed::Link(link)).await?;
        Ok(was_there)
    }

    /// Takes over what another origin has, where it is news; says whether it was.
    pub(crate) async fn learn(&self, record: &MetadataRecord) -> Result<bool, TransferError> {
        match record {
            MetadataRecord::Link(LinkRecord { name, target }) => {
                let link = link_of(name);
                // Held until it is written, so that no delete comes in between.
                let deleted = self.deleted.lock().await;
                if deleted.has(Instant::now(), &link) || self.link(&link).await.is_ok() {
                    return Ok(false);
                }
                self.write_link(&link, target).await?;
                Ok(true)
            }
            MetadataRecord::Tag(record) => {
                let known = self.vote(&record.name).await?;
                let is_news = known.is_none_or(|known| record.vote.is_newer_than(&known));
                Ok(is_news && self.keep_vote(record).await? == TagAcceptance::Accepted)
            }
            MetadataRecord::End => Ok(false),
        }
    }

    async fn write_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        let (path, content) = (link.path().to_driver_path(), Bytes::from(target.to_string()));
        self.metadata.put_content(&Context::default(), &path, content).await.map_err(from_driver)
    }

    async fn turn(&self, name: &TagName) -> MutexGuard<'_, ()> {
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
