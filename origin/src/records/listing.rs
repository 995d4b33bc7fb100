//! All links and tags of this origin, read from the disk as somebody takes them.

use std::sync::Arc;

use shoal_control::cluster::message::{LinkRecord, MetadataRecord, TagName, TagRecord};
use shoal_driver::{Context, DriverError, Link, RegistryPath, TransferError, walk};
use tokio::sync::mpsc;

use super::{Records, from_driver, name_of};

impl Records {
    /// Sends every record, and then the end. Whoever takes no more ends it.
    pub(crate) async fn send_all(
        self: Arc<Self>,
        records: mpsc::Sender<MetadataRecord>,
    ) -> Result<(), TransferError> {
        let (context, root) = (Context::default(), RegistryPath::Repositories.to_driver_path());
        let mut walk = walk(&self.metadata, &context, &root);
        loop {
            let info = match walk.next().await {
                Ok(Some(info)) => info,
                Ok(None) | Err(DriverError::PathNotFound { .. }) => break,
                Err(error) => return Err(from_driver(error)),
            };
            let Ok(path) = RegistryPath::parse(&info.path) else { continue };
            if matches!(path, RegistryPath::Uploads(_) | RegistryPath::TagIndex(..)) {
                walk.skip_directory();
                continue;
            }
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
                let value = self.tag(&name).await.ok()?;
                Some(MetadataRecord::Tag(TagRecord { name, value }))
            }
            _ => None,
        }
    }
}
