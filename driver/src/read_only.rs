//! The agent's driver: reads through the swarm, writes nothing.
//!
//! It has no files. A link is there if the cluster says that the repository may see the blob; a tag is what the cluster
//! says it is. What only a disk could list (repositories, blobs) is unsupported, and there are no uploads.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_store::Store;

use crate::blobs::{Blobs, children_of_trunk, directory, file};
use crate::driver::{ByteRange, ByteStream, Context, FileInfo, FileWriter, StorageDriver, WriteMode};
use crate::error::{DriverError, Errors};
use crate::path::DriverPath;
use crate::registry_path::RegistryPath;
use crate::request::Operation;
use crate::tag::ResolvedTag;
use crate::transferer::Transferer;

/// The agent's: reads through the swarm, writes nothing.
pub struct ReadOnlyDriver {
    blobs: Blobs,
}

const ERRORS: Errors = Errors("p2p-read-only");

impl ReadOnlyDriver {
    /// A driver that answers from `store`, and from the cluster what the store does not have.
    #[must_use]
    pub fn new(store: Store, transferer: Arc<dyn Transferer>) -> Self {
        Self { blobs: Blobs { errors: ERRORS, store, transferer } }
    }

    /// The content of a link: the digest, if the repository may see that blob.
    async fn link(
        &self,
        operation: Operation,
        path: &DriverPath,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Digest, DriverError> {
        let length = self.blobs.transferer.stat(Some(repository), digest).await;
        length.map(|_| *digest).map_err(|error| ERRORS.transfer(operation, path, error))
    }

    async fn tag(
        &self,
        operation: Operation,
        path: &DriverPath,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Digest, DriverError> {
        let resolved = self.blobs.transferer.resolve_tag(repository, tag).await;
        resolved.map(|resolved| resolved.digest).map_err(|error| ERRORS.transfer(operation, path, error))
    }

    async fn tags(
        &self,
        operation: Operation,
        path: &DriverPath,
        repository: &RepositoryName,
    ) -> Result<Vec<Tag>, DriverError> {
        let tags = self.blobs.transferer.list_tags(repository).await;
        tags.map_err(|error| ERRORS.transfer(operation, path, error))
    }
}

#[async_trait]
impl StorageDriver for ReadOnlyDriver {
    fn name(&self) -> &'static str {
        ERRORS.0
    }

    async fn get_content(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        let operation = Operation::GetContent;
        let digest = match ERRORS.admit(operation, path)?.into_path() {
            RegistryPath::LayerLink(name, digest) | RegistryPath::RevisionLink(name, digest) => {
                self.link(operation, path, &name, &digest).await?
            }
            RegistryPath::TagCurrentLink(name, tag) => self.tag(operation, path, &name, &tag).await?,
            RegistryPath::BlobData(digest) => return self.blobs.content(context, &digest).await,
            RegistryPath::UploadStartedAt(..) | RegistryPath::UploadHashState(..) => {
                return Err(ERRORS.not_found(path));
            }
            _ => return Err(ERRORS.unsupported(operation)),
        };
        Ok(digest.to_string().into())
    }

    async fn reader(
        &self,
        context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        match ERRORS.admit(Operation::Reader, path)?.path() {
            RegistryPath::BlobData(digest) => self.blobs.reader(context, digest, range).await,
            _ => Err(ERRORS.not_found(path)),
        }
    }

    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        let operation = Operation::Stat;
        match ERRORS.admit(operation, path)?.into_path() {
            trunk if children_of_trunk(&trunk).is_some() => Ok(directory(path.clone())),
            RegistryPath::Repositories | RegistryPath::Blobs => Ok(directory(path.clone())),
            RegistryPath::BlobData(digest) => self.blobs.stat(context, &digest).await,
            RegistryPath::LayerLink(name, digest) | RegistryPath::RevisionLink(name, digest) => {
                let link = self.link(operation, path, &name, &digest).await?;
                Ok(file(path.clone(), link.to_string().len() as u64))
            }
            RegistryPath::TagCurrentLink(name, tag) => {
                let digest = self.tag(operation, path, &name, &tag).await?;
                Ok(file(path.clone(), digest.to_string().len() as u64))
            }
            RegistryPath::Tag(name, tag) | RegistryPath::TagCurrent(name, tag) => {
                self.tag(operation, path, &name, &tag).await.map(|_| directory(path.clone()))
            }
            // A repository is known here by its tags.
            RegistryPath::Manifests(name) | RegistryPath::Tags(name) => {
                self.tags(operation, path, &name).await.map(|_| directory(path.clone()))
            }
            RegistryPath::Upload(..) | RegistryPath::UploadData(..) | RegistryPath::UploadStartedAt(..) => {
                Err(ERRORS.not_found(path))
            }
            _ => Err(ERRORS.unsupported(operation)),
        }
    }

    async fn list(&self, _context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        let operation = Operation::List;
        let request = ERRORS.admit(operation, path)?;
        if let Some(children) = children_of_trunk(request.path()) {
            return Ok(children.iter().map(RegistryPath::to_driver_path).collect());
        }
        let RegistryPath::Tags(name) = request.path() else { return Err(ERRORS.unsupported(operation)) };
        let tags = self.tags(operation, path, name).await?;
        Ok(tags.into_iter().map(|tag| RegistryPath::Tag(name.clone(), tag).to_driver_path()).collect())
    }

    async fn resolve_tag(
        &self,
        _: &Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, DriverError> {
        let resolved = self.blobs.transferer.resolve_tag(repository, tag).await;
        let path = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        resolved.map_err(|error| ERRORS.transfer(Operation::GetContent, &path, error))
    }

    async fn put_content(&self, _: &Context, _: &DriverPath, _: Bytes) -> Result<(), DriverError> {
        Err(ERRORS.unsupported(Operation::PutContent))
    }

    async fn writer(
        &self,
        _: &Context,
        _: &DriverPath,
        _: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        Err(ERRORS.unsupported(Operation::Writer))
    }

    async fn rename(&self, _: &Context, _: &DriverPath, _: &DriverPath) -> Result<(), DriverError> {
        Err(ERRORS.unsupported(Operation::RenameFrom))
    }

    async fn delete(&self, _: &Context, _: &DriverPath) -> Result<(), DriverError> {
        Err(ERRORS.unsupported(Operation::Delete))
    }
}
