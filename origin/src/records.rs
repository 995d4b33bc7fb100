//! The links and tags in this origin's files, and their order in time.
//!
//! A tag's file has a second line where the origin is one of several: the version of what it names. A newer version
//! replaces an older one, never the other way round. What was deleted a moment ago is not put again by a list that
//! another origin began to send before.

mod deleted;
mod listing;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

use bytes::Bytes;
use shoal_control::cluster::message::{
    LinkName, LinkRecord, LinkTo, MetadataRecord, TagName, TagRecord, TagValue, TagVersion,
};
use shoal_core::{Digest, PeerId, RepositoryName, Tag};
use shoal_driver::{
    Context, DriverError, FilesystemDriver, Link, LinkKind, RegistryPath, StorageDriver as _, TransferError,
};
use tokio::sync::{Mutex, MutexGuard};

use self::deleted::{Deleted, Name};
use crate::tags::RecentTags;

/// The links and tags of this origin.
pub(crate) struct Records {
    metadata: FilesystemDriver,
    pub(crate) recent_tags: RecentTags,
    /// One writer a tag, or an older version could be written over a newer one.
    turns: Vec<Mutex<()>>,
    deleted: Mutex<Deleted>,
}

impl Records {
    /// How many tags may be written at a time: more share a turn by chance, which costs them a sync.
    const TURNS: usize = 64;

    pub(crate) fn new(metadata: FilesystemDriver) -> Self {
        let turns = std::iter::repeat_with(Mutex::default).take(Self::TURNS).collect();
        Self { metadata, recent_tags: RecentTags::default(), turns, deleted: Mutex::default() }
    }

    /// What the tag names, by the disk.
    pub(crate) async fn tag(&self, name: &TagName) -> Result<TagValue, TransferError> {
        let path = current(name).to_driver_path();
        let content = self.metadata.get_content(&Context::default(), &path).await.map_err(from_driver)?;
        parse_tag(&content)
    }

    /// The same digest, remembered for a while.
    pub(crate) async fn read_tag(&self, name: &TagName) -> Result<Digest, TransferError> {
        let asked = self.recent_tags.moment();
        let digest = self.tag(name).await?.digest;
        self.recent_tags.learn((asked, Instant::now()), &name.repository, &name.tag, digest);
        Ok(digest)
    }

    /// Lets the tag name that, as the only origin does it.
    pub(crate) async fn put_tag(&self, name: &TagName, digest: &Digest) -> Result<(), TransferError> {
        self.write_tag(name, digest.to_string()).await
    }

    /// Lets the tag name that, unless what it names is newer; says what it names then.
    pub(crate) async fn keep_tag(&self, record: &TagRecord) -> Result<TagValue, TransferError> {
        let name = Name::Tag(record.name.clone());
        self.deleted.lock().await.forget(&name);
        self.keep_newer_tag(record).await
    }

    async fn keep_newer_tag(&self, TagRecord { name, value }: &TagRecord) -> Result<TagValue, TransferError> {
        let _turn = self.turn(name).await;
        match self.tag(name).await {
            Ok(known) if !value.is_newer_than(&known) => return Ok(known),
            Ok(_) | Err(TransferError::NotFound) => {}
            Err(error) => return Err(error),
        }
        self.write_tag(name, tag_content(value)).await?;
        Ok(*value)
    }

    /// Lets the tag name nothing.
    pub(crate) async fn delete_tag(&self, name: &TagName) -> Result<(), TransferError> {
        let mut deleted = self.deleted.lock().await;
        let _turn = self.turn(name).await;
        deleted.note(Instant::now(), Name::Tag(name.clone()))?;
        let path = RegistryPath::Tag(name.repository.clone(), name.tag.clone()).to_driver_path();
        let removed = self.metadata.delete(&Context::default(), &path).await;
        self.recent_tags.forget(&name.repository, &name.tag);
        removed.map_err(from_driver)
    }

    /// The tags of a repository, in lexical order.
    pub(crate) async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        let path = RegistryPath::Tags(repository.clone()).to_driver_path();
        let entries = self.metadata.list(&Context::default(), &path).await.map_err(from_driver)?;
        let mut tags = Vec::new();
        for tag in entries.iter().filter_map(|entry| Tag::parse(entry.name()?).ok()) {
            let link = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
            // A tag's folder without its current link is one whose push was cut, or that was deleted.
            if self.metadata.stat(&Context::default(), &link).await.is_ok() {
                tags.push(tag);
            }
        }
        tags.sort();
        Ok(tags)
    }

    /// What a link names.
    pub(crate) async fn link(&self, link: &Link) -> Result<Digest, TransferError> {
        let path = link.path().to_driver_path();
        let content = self.metadata.get_content(&Context::default(), &path).await.map_err(from_driver)?;
        Ok(parse_tag(&content)?.digest)
    }

    /// Puts a link.
    pub(crate) async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.deleted.lock().await.forget(&Name::Link(link.clone()));
        self.write_link(link, target).await
    }

    /// Nothing is to put that link again because another origin still had it.
    pub(crate) async fn note_deletion(&self, link: &Link) -> Result<(), TransferError> {
        self.deleted.lock().await.note(Instant::now(), Name::Link(link.clone()))
    }

    /// Deletes a link; says whether there was one.
    pub(crate) async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        let mut deleted = self.deleted.lock().await;
        deleted.note(Instant::now(), Name::Link(link.clone()))?;
        let path = link.folder().to_driver_path();
        match self.metadata.delete(&Context::default(), &path).await {
            Ok(()) => Ok(true),
            Err(DriverError::PathNotFound { .. }) => Ok(false),
            Err(error) => Err(from_driver(error)),
        }
    }

    /// Takes over what another origin has, where it is news; says whether it was.
    pub(crate) async fn learn(&self, record: &MetadataRecord) -> Result<bool, TransferError> {
        // Held until it is written, so that no delete comes in between.
        let deleted = self.deleted.lock().await;
        let now = Instant::now();
        match record {
            MetadataRecord::Link(LinkRecord { name, target }) => {
                let link = link_of(name);
                if deleted.has(now, &Name::Link(link.clone())) || self.link(&link).await.is_ok() {
                    return Ok(false);
                }
                self.write_link(&link, target).await?;
                Ok(true)
            }
            MetadataRecord::Tag(record) => {
                let known = self.tag(&record.name).await.ok();
                let is_news = known.is_none_or(|known| record.value.is_newer_than(&known));
                if !is_news || deleted.has(now, &Name::Tag(record.name.clone())) {
                    return Ok(false);
                }
                Ok(self.keep_newer_tag(record).await? == record.value)
            }
            MetadataRecord::End => Ok(false),
        }
    }

    async fn write_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        let (path, content) = (link.path().to_driver_path(), Bytes::from(target.to_string()));
        self.metadata.put_content(&Context::default(), &path, content).await.map_err(from_driver)
    }

    async fn write_tag(&self, name: &TagName, content: String) -> Result<(), TransferError> {
        let path = current(name).to_driver_path();
        let put = self.metadata.put_content(&Context::default(), &path, content.into()).await;
        self.recent_tags.forget(&name.repository, &name.tag);
        put.map_err(from_driver)
    }

    async fn turn(&self, name: &TagName) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let turn = hasher.finish() % Self::TURNS as u64;
        self.turns[usize::try_from(turn).unwrap_or(0)].lock().await
    }
}

fn current(name: &TagName) -> RegistryPath {
    RegistryPath::TagCurrentLink(name.repository.clone(), name.tag.clone())
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

fn tag_content(value: &TagValue) -> String {
    let TagVersion { stamp, by } = value.version;
    match by {
        Some(by) => format!("{}\n{stamp} {by}", value.digest),
        None => value.digest.to_string(),
    }
}

/// A tag's file, or a link's, which has no version.
fn parse_tag(content: &[u8]) -> Result<TagValue, TransferError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| TransferError::Failed(error);
    let text = std::str::from_utf8(content).map_err(|error| failed(error.into()))?;
    let (digest, version) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
    let digest = Digest::parse(digest.trim()).map_err(|error| failed(error.into()))?;
    let version = match version.split_once(' ') {
        Some((stamp, by)) => TagVersion {
            stamp: stamp.parse::<u64>().map_err(|error| failed(error.into()))?,
            by: Some(PeerId::parse(by).map_err(|error| failed(error.into()))?),
        },
        None => TagVersion::default(),
    };
    Ok(TagValue { digest, version })
}

pub(crate) fn from_driver(error: DriverError) -> TransferError {
    match error {
        DriverError::PathNotFound { .. } => TransferError::NotFound,
        other => TransferError::Failed(Box::new(other)),
    }
}

#[cfg(test)]
mod tests;
