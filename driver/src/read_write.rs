//! The origin's driver: blobs in the store, tags and durability by the cluster, everything else in files.
//!
//! A link is put only for a blob that is there and durable, so what a repository shows can be pulled. A tag has one commit
//! point, the cluster's `put_tag`; its index is history and lives in the files. Content enters the store only under the
//! digest that it has.

mod links;
mod listing;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use shoal_core::{Digest, Metainfo, Proof, RepositoryName, Tag};
use shoal_store::{ImportError, Store};

use crate::blobs::{Blobs, directory, file};
use crate::driver::{ByteRange, ByteStream, Context, FileInfo, FileWriter, StorageDriver, WriteMode};
use crate::error::{DriverError, Errors};
use crate::filesystem::FilesystemDriver;
use crate::link::Link;
use crate::path::DriverPath;
use crate::registry_path::RegistryPath;
use crate::request::Operation;
use crate::tag::{ResolvedTag, TagExpectation};
use crate::transferer::{TransferError, Transferer};

/// Signs the metainfo of a blob that enters the store.
pub type Signer = Arc<dyn Fn(&Metainfo) -> Proof + Send + Sync>;

/// The origin's: blobs in the store, everything else in `metadata`, tags and distribution by the transferer.
pub struct ReadWriteDriver {
    blobs: Blobs,
    metadata: FilesystemDriver,
    sign: Signer,
}

const ERRORS: Errors = Errors("p2p-read-write");

impl ReadWriteDriver {
    /// A driver over `store` and `metadata`, for the cluster that `transferer` reaches.
    #[must_use]
    pub fn new(
        store: Store,
        metadata: FilesystemDriver,
        transferer: Arc<dyn Transferer>,
        sign: Signer,
    ) -> Self {
        let blobs = Blobs { errors: ERRORS, store, transferer };
        Self { blobs, metadata: metadata.named(ERRORS), sign }
    }

    fn signer(&self) -> impl FnOnce(&Metainfo) -> Proof + Send + 'static {
        let sign = Arc::clone(&self.sign);
        move |metainfo| sign(metainfo)
    }

    async fn resolve_tag(
        &self,
        operation: Operation,
        path: &DriverPath,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Digest, DriverError> {
        let resolved = self.blobs.transferer.resolve_tag(repository, tag).await;
        resolved.map(|resolved| resolved.digest).map_err(|error| ERRORS.transfer(operation, path, error))
    }

    /// Makes a blob of the store the cluster's.
    async fn upload(
        &self,
        operation: Operation,
        path: &DriverPath,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<(), DriverError> {
        let uploaded = self.blobs.transferer.upload(repository, digest).await;
        uploaded.map_err(|error| ERRORS.transfer(operation, path, error))
    }

    /// Refuses a write that the cluster could not acknowledge.
    async fn require_writable(&self, operation: Operation, path: &DriverPath) -> Result<(), DriverError> {
        let writable = self.blobs.transferer.writable().await;
        writable.map_err(|error| ERRORS.transfer(operation, path, error))
    }

    /// What is linked must be somewhere. Whether the repository may have it was for the registry to say.
    async fn require_blob(&self, digest: &Digest) -> Result<(), DriverError> {
        self.blobs.length(Operation::PutContent, &Context::default(), digest).await.map(drop)
    }

    async fn swap_tag(
        &self,
        path: &DriverPath,
        (repository, tag): (&RepositoryName, &Tag),
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        self.require_blob(digest).await?;
        let put = self.blobs.transferer.put_tag(repository, tag, digest, expected).await;
        put.map_err(|error| ERRORS.transfer(Operation::PutContent, path, error))
    }

    async fn put_blob(
        &self,
        context: &Context,
        path: &DriverPath,
        digest: &Digest,
        content: Bytes,
    ) -> Result<(), DriverError> {
        self.require_writable(Operation::PutContent, path).await?;
        let put = self.blobs.store.put(content, digest, self.signer()).await;
        put.map_err(|error| import_failed(Operation::PutContent, path, error))?;
        self.upload(Operation::PutContent, path, context.repository.as_ref(), digest).await
    }

    /// Ends an upload: its file becomes the blob that it is.
    async fn import(
        &self,
        context: &Context,
        (from, repository): (&DriverPath, &RepositoryName),
        (to, digest): (&DriverPath, &Digest),
    ) -> Result<(), DriverError> {
        self.metadata.stat(context, from).await?;
        // Before the session's file is gone: it can be ended again once the cluster can take it.
        self.require_writable(Operation::RenameTo, to).await?;
        let imported = self.blobs.store.import(&self.metadata.file_of(from), digest, self.signer()).await;
        imported.map_err(|error| import_failed(Operation::RenameTo, to, error))?;
        let repository = context.repository.as_ref().unwrap_or(repository);
        self.upload(Operation::RenameTo, to, Some(repository), digest).await
    }

    /// Makes the tag name nothing, then forgets its history, also that of a tag that was deleted elsewhere. Whether there was a
    /// tag is the cluster's to say.
    async fn drop_tag(
        &self,
        context: &Context,
        path: &DriverPath,
        (repository, tag): (&RepositoryName, &Tag),
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        let deleted = self.blobs.transferer.delete_tag(repository, tag, expected).await;
        let was_there = match deleted {
            Err(TransferError::NotFound) => false,
            other => {
                other.map_err(|error| ERRORS.transfer(Operation::Delete, path, error))?;
                true
            }
        };
        // What stands beside it is the cluster's: it may have to remember that there was a tag.
        let history = RegistryPath::TagIndex(repository.clone(), tag.clone()).to_driver_path();
        match self.metadata.delete(context, &history).await {
            Ok(()) | Err(DriverError::PathNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        if was_there { Ok(()) } else { Err(ERRORS.not_found(path)) }
    }

    async fn delete_blob(&self, path: &DriverPath, digest: &Digest) -> Result<(), DriverError> {
        match self.blobs.store.delete(digest).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ERRORS.not_found(path)),
            Err(error) => Err(ERRORS.caused(format!("delete {path}"), error)),
        }
    }
}

#[async_trait]
impl StorageDriver for ReadWriteDriver {
    fn name(&self) -> &'static str {
        ERRORS.0
    }

    async fn get_content(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        let operation = Operation::GetContent;
        match ERRORS.admit(operation, path)?.path() {
            RegistryPath::TagCurrentLink(name, tag) => {
                Ok(self.resolve_tag(operation, path, name, tag).await?.to_string().into())
            }
            RegistryPath::BlobData(digest) => self.blobs.content(context, digest).await,
            other => match Link::of(other) {
                Some(link) => self.resolve_link(context, operation, path, &link).await,
                None => self.metadata.get_content(context, path).await,
            },
        }
    }

    async fn put_content(
        &self,
        context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError> {
        match ERRORS.admit(Operation::PutContent, path)?.path() {
            link @ (RegistryPath::LayerLink(name, digest)
            | RegistryPath::RevisionLink(name, digest)
            | RegistryPath::TagIndexEntryLink(name, _, digest)) => {
                self.put_link(context, path, link, (name, digest), &content).await
            }
            RegistryPath::TagCurrentLink(name, tag) => {
                let named = self.read_link(path, &content, None)?;
                self.swap_tag(path, (name, tag), &named, &TagExpectation::anything()).await
            }
            RegistryPath::BlobData(digest) => self.put_blob(context, path, digest, content).await,
            _ => self.metadata.put_content(context, path, content).await,
        }
    }

    async fn reader(
        &self,
        context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        match ERRORS.admit(Operation::Reader, path)?.path() {
            RegistryPath::BlobData(digest) => self.blobs.reader(context, digest, range).await,
            _ => self.metadata.reader(context, path, range).await,
        }
    }

    async fn writer(
        &self,
        context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        ERRORS.admit(Operation::Writer, path)?;
        self.require_writable(Operation::Writer, path).await?;
        self.metadata.writer(context, path, mode).await
    }

    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        let operation = Operation::Stat;
        let request = ERRORS.admit(operation, path)?;
        match request.path() {
            RegistryPath::BlobData(digest) => self.blobs.stat(context, digest).await,
            RegistryPath::TagCurrentLink(name, tag) => {
                let digest = self.resolve_tag(operation, path, name, tag).await?;
                Ok(file(path.clone(), digest.to_string().len() as u64))
            }
            RegistryPath::Tag(name, tag) | RegistryPath::TagCurrent(name, tag) => {
                self.resolve_tag(operation, path, name, tag).await.map(|_| directory(path.clone()))
            }
            RegistryPath::LayerLink(..) | RegistryPath::RevisionLink(..) => match Link::of(request.path()) {
                Some(link) => self.stat_link(context, path, &link).await,
                None => self.metadata.stat(context, path).await,
            },
            folder => self.stat_folder(context, path, folder).await,
        }
    }

    async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        let request = ERRORS.admit(Operation::List, path)?;
        self.list_folder(context, path, request.path()).await
    }

    async fn rename(&self, context: &Context, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        let source = ERRORS.admit(Operation::RenameFrom, from)?;
        let destination = ERRORS.admit(Operation::RenameTo, to)?;
        match (source.path(), destination.path()) {
            (RegistryPath::UploadData(name, _), RegistryPath::BlobData(digest)) => {
                self.import(context, (from, name), (to, digest)).await
            }
            _ => Err(ERRORS.invalid_request("rename", from)),
        }
    }

    async fn delete(&self, context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        match ERRORS.admit(Operation::Delete, path)?.path() {
            RegistryPath::Tag(name, tag) | RegistryPath::TagCurrentLink(name, tag) => {
                self.drop_tag(context, path, (name, tag), &TagExpectation::anything()).await
            }
            RegistryPath::Blob(digest) => self.delete_blob(path, digest).await,
            other => match Link::of(other) {
                Some(link) => self.delete_link(context, path, &link).await,
                None => self.metadata.delete(context, path).await,
            },
        }
    }

    async fn delete_unchanged(
        &self,
        context: &Context,
        path: &DriverPath,
        since: SystemTime,
    ) -> Result<bool, DriverError> {
        match ERRORS.admit(Operation::Delete, path)?.path() {
            RegistryPath::Blob(digest) => {
                let deleted = self.blobs.store.delete_unchanged(digest, since).await;
                deleted.map_err(|error| ERRORS.caused(format!("delete {path}"), error))
            }
            other => match Link::of(other) {
                Some(link) => self.expire_link(context, path, &link, since).await,
                None => self.delete(context, path).await.map(|()| true),
            },
        }
    }

    async fn secure_link(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        let operation = Operation::GetContent;
        if let Some(link) = Link::of(ERRORS.admit(operation, path)?.path()) {
            let secured = self.blobs.transferer.secure_link(&link).await;
            secured.map_err(|error| ERRORS.transfer(operation, path, error))?;
        }
        self.get_content(context, path).await
    }

    async fn resolve_tag(
        &self,
        _: &Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, DriverError> {
        let resolved = self.blobs.transferer.resolve_tag(repository, tag).await;
        resolved
            .map_err(|error| ERRORS.transfer(Operation::GetContent, &current_link(repository, tag), error))
    }

    async fn put_tag(
        &self,
        _: &Context,
        (repository, tag): (&RepositoryName, &Tag),
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        self.swap_tag(&current_link(repository, tag), (repository, tag), digest, expected).await
    }

    async fn delete_tag(
        &self,
        context: &Context,
        (repository, tag): (&RepositoryName, &Tag),
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        self.drop_tag(context, &current_link(repository, tag), (repository, tag), expected).await
    }

    async fn room(&self) -> Result<Option<u64>, DriverError> {
        self.metadata.room().await
    }
}

fn current_link(repository: &RepositoryName, tag: &Tag) -> DriverPath {
    RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path()
}

/// A blob that is not what its path says is the client's mistake; anything else is the origin's.
fn import_failed(operation: Operation, path: &DriverPath, error: ImportError) -> DriverError {
    match error {
        ImportError::DigestMismatch { expected, found } => {
            DriverError::DigestMismatch { driver: ERRORS.0, expected: expected.into(), found: found.into() }
        }
        full @ ImportError::NoSpace { .. } => ERRORS.no_space(full.to_string()),
        // No place in the index, or shutting down: another origin, or a later time, may take it.
        busy @ (ImportError::Full { .. } | ImportError::Closed { .. }) => {
            ERRORS.unavailable(busy.to_string())
        }
        other => ERRORS.caused(format!("{operation} {path}"), other),
    }
}
