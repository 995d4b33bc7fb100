//! The images of this origin, and of the cluster that it is one of, as a place from which they are copied.
//!
//! A repository shows what is linked in it and nothing else, as it does to clients: who may push an index does not thereby
//! get at another repository's manifests.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use shoal_core::{Digest, Reference, RepositoryName, Tag, causes};
use shoal_driver::{
    ByteRange, Context, DriverPath, Freshness, RegistryPath, StorageDriver, TransferError, Transferer,
};
use shoal_images::{ImageError, Source};
use shoal_upstream::{ByteStream, Descriptor, Manifest, RegistryHost, fallback_tag};

use crate::api::is_linked;
use crate::records::Records;

/// What this origin can give. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    pub(crate) driver: Arc<dyn StorageDriver>,
    pub(crate) records: Arc<Records>,
    pub(crate) transferer: Arc<dyn Transferer>,
}

/// One of them.
pub(crate) struct LocalImage {
    images: Images,
    repository: RepositoryName,
    root: Digest,
}

impl Images {
    /// What a tag names, if anything. Where that is not sure it is an error: another time it is.
    pub(crate) async fn resolve(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, TransferError> {
        match self.transferer.resolve_tag(repository, tag).await {
            Ok(resolved) if resolved.freshness == Freshness::Current => Ok(Some(resolved.digest)),
            Ok(_) => Err(TransferError::Unavailable("too few origins answer to be sure of the tag".into())),
            Err(TransferError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest that a reference names, if it is in the repository.
    pub(crate) async fn find(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Digest>, TransferError> {
        match reference {
            Reference::Tag(tag) => self.resolve(repository, tag).await,
            Reference::Digest(digest) => match self.is_linked(repository, digest).await {
                Ok(()) => Ok(Some(*digest)),
                Err(TransferError::NotFound) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// The image whose manifest that is. Nothing is looked up yet.
    pub(crate) fn image(&self, repository: &RepositoryName, root: Digest) -> LocalImage {
        LocalImage { images: self.clone(), repository: repository.clone(), root }
    }

    async fn is_linked(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), TransferError> {
        is_linked((&self.records, &*self.transferer), repository, digest).await.map(drop)
    }
}

impl LocalImage {
    async fn read(&self, digest: &Digest) -> Result<Manifest, ImageError> {
        self.images.is_linked(&self.repository, digest).await.map_err(|error| self.failed(digest, &error))?;
        let (context, path) = self.place(digest);
        let bytes = self.images.driver.get_content(&context, &path).await;
        let bytes = bytes.map_err(|error| self.failed(digest, &error))?;
        Manifest::parse(bytes, digest, None).map_err(|error| self.failed(digest, &error))
    }

    fn place(&self, digest: &Digest) -> (Context, DriverPath) {
        let context = Context { repository: Some(self.repository.clone()) };
        (context, RegistryPath::BlobData(*digest).to_driver_path())
    }

    fn failed(&self, digest: &Digest, error: &dyn std::error::Error) -> ImageError {
        let place = format!("{}@{digest}", self.repository);
        ImageError::Invalid { place, reason: causes(error) }
    }
}

#[async_trait]
impl Source for LocalImage {
    async fn root(&self) -> Result<Manifest, ImageError> {
        self.read(&self.root).await
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        self.read(&descriptor.digest).await
    }

    /// The store has proved what it gives.
    async fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<ByteStream> {
        let linked = self.images.is_linked(&self.repository, &blob.digest).await;
        linked.map_err(io::Error::other)?;
        let (context, path) = self.place(&blob.digest);
        let range = ByteRange { start: offset, end: None };
        let stream = self.images.driver.reader(&context, &path, range).await.map_err(io::Error::other)?;
        Ok(stream.map_err(io::Error::other).boxed())
    }

    /// Those of the list under the fallback tag that are there.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let list = self.images.resolve(&self.repository, &fallback_tag(subject)).await;
        let Some(list) = list.map_err(|error| self.failed(subject, &error))? else { return Ok(Vec::new()) };
        let mut referrers = Vec::new();
        for entry in self.read(&list).await?.manifests() {
            match self.images.is_linked(&self.repository, &entry.digest).await {
                Ok(()) => referrers.push(entry.clone()),
                Err(TransferError::NotFound) => {}
                Err(error) => return Err(self.failed(&entry.digest, &error)),
            }
        }
        Ok(referrers)
    }

    fn repository(&self) -> Option<(&RegistryHost, &RepositoryName)> {
        None
    }
}
