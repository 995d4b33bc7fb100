//! What the origin's read-write driver stands on. One origin is the whole cluster for now: a blob in its store is as
//! far as it goes, and tags are links in its own metadata.

use async_trait::async_trait;
use bytes::Bytes;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, FilesystemDriver, RegistryPath, StorageDriver,
    TransferError, Transferer,
};
use shoal_store::Store;

/// The store and the tags of this origin.
pub(crate) struct LocalTransferer {
    pub(crate) store: Store,
    pub(crate) metadata: FilesystemDriver,
}

#[async_trait]
impl Transferer for LocalTransferer {
    async fn stat(&self, _: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        self.store.blob(digest).map(|blob| blob.metainfo().length()).ok_or(TransferError::NotFound)
    }

    async fn open(
        &self,
        _: Option<&RepositoryName>,
        _: &Digest,
        _: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        // The driver looks into the store first, and there is no other place.
        Err(TransferError::NotFound)
    }

    async fn upload(&self, _: Option<&RepositoryName>, digest: &Digest) -> Result<(), TransferError> {
        self.store.blob(digest).map(|_| ()).ok_or(TransferError::NotFound)
    }

    async fn resolve_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Digest, TransferError> {
        let path = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        let link = self.metadata.get_content(&Context::default(), &path).await.map_err(from_driver)?;
        let text = std::str::from_utf8(&link).map_err(|error| TransferError::Failed(Box::new(error)))?;
        Digest::parse(text.trim()).map_err(|error| TransferError::Failed(Box::new(error)))
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), TransferError> {
        let path = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        let link = Bytes::from(digest.to_string());
        self.metadata.put_content(&Context::default(), &path, link).await.map_err(from_driver)
    }

    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), TransferError> {
        let path = RegistryPath::Tag(repository.clone(), tag.clone()).to_driver_path();
        self.metadata.delete(&Context::default(), &path).await.map_err(from_driver)
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
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
}

fn from_driver(error: DriverError) -> TransferError {
    match error {
        DriverError::PathNotFound { .. } => TransferError::NotFound,
        other => TransferError::Failed(Box::new(other)),
    }
}
