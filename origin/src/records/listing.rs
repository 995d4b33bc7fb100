//! All links and tags of this origin, read from the disk as somebody takes them.

use std::sync::Arc;
use std::time::Instant;

use shoal_control::cluster::message::{LinkRecord, MetadataRecord, TagName, TagRecord};
use shoal_driver::{Context, DriverError, Link, RegistryPath, TransferError, Walk, walk};
use tokio::sync::mpsc;

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

    /// Whether there is no link and no tag.
    pub(crate) async fn is_empty(&self) -> Result<bool, TransferError> {
        Ok(self.walk().next().await?.is_none())
    }

    /// Whether a link was deleted here a moment ago, which nobody may put again by mistake.
    pub(crate) async fn was_deleted(&self, link: &Link) -> bool {
        self.deleted.lock().await.has(Instant::now(), link)
    }

    fn walk(&self) -> Paths<'_> {
        Paths(walk(&self.metadata, &NOBODY, &RegistryPath::Repositories.to_driver_path()))
    }

    /// What a file is; nothing if it is none of these, or cannot be read.
    async fn record(&self, path: &RegistryPath) -> Option<MetadataRecord> {
        match path {
            RegistryPath::LayerLink(..) | RegistryPath::RevisionLink(..) => {
                let link = Link::of(path)?;
                let target = self.link(&link).await.ok()?;
                Some(MetadataRecord::Link(LinkRecord { name: name_of(&link), target }))
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
