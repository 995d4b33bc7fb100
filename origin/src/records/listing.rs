//! All links and tags of this origin, read from the disk as somebody takes them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use shoal_control::cluster::message::{LinkRecord, MetadataRecord, TagName, TagRecord};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Context, DriverError, Link, RegistryPath, TransferError, Walk, walk};
use tokio::sync::mpsc;

use super::links::Deleted;
use super::{Records, from_driver, name_of};
use crate::register::Register;

/// The paths of links and tags, as they are found.
struct Paths<'a>(Walk<'a>);

static NOBODY: Context = Context { repository: None };

impl Paths<'_> {
    async fn next(&mut self) -> Result<Option<RegistryPath>, TransferError> {
        loop {
            let info = match self.0.next().await {
                Ok(Some(info)) => info,
                Ok(None) | Err(DriverError::PathNotFound { .. }) => return Ok(None),
                Err(error) => return Err(from_driver(error)),
            };
            match RegistryPath::parse(&info.path) {
                Ok(RegistryPath::Uploads(_) | RegistryPath::TagIndex(..)) => self.0.skip_directory(),
                Ok(path) => return Ok(Some(path)),
                Err(_) => {}
            }
        }
    }
}

impl Records {
    /// Sends every record, and then the end. Whoever takes no more ends it.
    pub(crate) async fn send_all(
        self: Arc<Self>,
        records: mpsc::Sender<MetadataRecord>,
    ) -> Result<(), TransferError> {
        let mut walk = self.walk();
        while let Some(path) = walk.next().await? {
            if let Some(record) = self.record(&path).await
                && records.send(record).await.is_err()
            {
                return Ok(());
            }
        }
        drop(walk);
        let (sender, mut deleted) = mpsc::channel(1);
        let sending = async {
            let sent = self.send_deleted_links(&sender).await;
            drop(sender);
            sent
        };
        let passing = async {
            while let Some(Deleted { deletion, .. }) = deleted.recv().await {
                if records.send(MetadataRecord::Unlinked(deletion)).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(sending, passing).0?;
        // Nobody listens any more: nothing is lost.
        let _ = records.send(MetadataRecord::End).await;
        Ok(())
    }

    /// Sends every tag of which something is kept and that names nothing.
    pub(crate) async fn send_deleted_tags(
        self: Arc<Self>,
        tags: mpsc::Sender<(TagName, Register)>,
    ) -> Result<(), TransferError> {
        let mut walk = self.walk();
        while let Some(path) = walk.next().await? {
            let RegistryPath::TagCurrentLink(repository, tag) = path else { continue };
            let name = TagName { repository, tag };
            if let Ok(register) = self.register(&name).await
                && register.digest().is_none()
                && tags.send((name, register)).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The blobs and manifests that any repository links. Some 70 bytes each.
    pub(crate) async fn linked(&self) -> Result<HashSet<Digest>, TransferError> {
        let (mut linked, mut walk) = (HashSet::new(), self.walk());
        while let Some(path) = walk.next().await? {
            if let Some(link) = Link::of(&path)
                && let Some((target, _)) = self.filed(&link).await?
            {
                linked.insert(target);
            }
        }
        Ok(linked)
    }

    /// The repositories below that prefix that have, or had, manifests.
    pub(crate) async fn repositories_below(
        &self,
        prefix: &RepositoryName,
    ) -> Result<Vec<RepositoryName>, TransferError> {
        let root = RegistryPath::Repository(prefix.clone()).to_driver_path();
        let mut walk = walk(&self.metadata, &NOBODY, &root);
        let mut repositories = Vec::new();
        loop {
            let info = match walk.next().await {
                Ok(Some(info)) => info,
                Ok(None) | Err(DriverError::PathNotFound { .. }) => return Ok(repositories),
                Err(error) => return Err(from_driver(error)),
            };
            match RegistryPath::parse(&info.path) {
                Ok(RegistryPath::Manifests(repository)) => {
                    repositories.push(repository);
                    walk.skip_directory();
                }
                Ok(RegistryPath::Layers(_) | RegistryPath::Uploads(_)) => walk.skip_directory(),
                _ => {}
            }
        }
    }

    /// The manifests that a repository has.
    pub(crate) async fn revisions(
        &self,
        repository: &RepositoryName,
    ) -> Result<BTreeSet<Digest>, TransferError> {
        let root = RegistryPath::Revisions(repository.clone()).to_driver_path();
        let mut walk = Paths(walk(&self.metadata, &NOBODY, &root));
        let mut revisions = BTreeSet::new();
        while let Some(path) = walk.next().await? {
            if let RegistryPath::RevisionLink(_, digest) = path {
                revisions.insert(digest);
            }
        }
        Ok(revisions)
    }

    /// Whether there is no link and no tag.
    pub(crate) async fn is_empty(&self) -> Result<bool, TransferError> {
        Ok(self.walk().next().await?.is_none())
    }

    fn walk(&self) -> Paths<'_> {
        Paths(walk(&self.metadata, &NOBODY, &RegistryPath::Repositories.to_driver_path()))
    }

    /// What a file is; nothing if it is none of these, or cannot be read.
    async fn record(&self, path: &RegistryPath) -> Option<MetadataRecord> {
        match path {
            RegistryPath::LayerLink(..) | RegistryPath::RevisionLink(..) => {
                let link = Link::of(path)?;
                let (target, version) = self.filed(&link).await.ok()??;
                Some(MetadataRecord::Link(LinkRecord { name: name_of(&link), target, version }))
            }
            RegistryPath::TagCurrentLink(repository, tag) => {
                let name = TagName { repository: repository.clone(), tag: tag.clone() };
                let vote = self.vote(&name).await.ok()??;
                Some(MetadataRecord::Tag(TagRecord { name, vote }))
            }
            _ => None,
        }
    }
}
