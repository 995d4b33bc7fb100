//! Links of the origin's driver: in its files, and, through the transferer, in those of the rest of the cluster.

use std::time::SystemTime;

use bytes::Bytes;
use shoal_core::{Digest, RepositoryName};

use super::{ERRORS, ReadWriteDriver};
use crate::blobs::file;
use crate::driver::{Context, FileInfo, StorageDriver as _};
use crate::error::DriverError;
use crate::link::Link;
use crate::path::DriverPath;
use crate::registry_path::RegistryPath;
use crate::request::Operation;

impl ReadWriteDriver {
    /// The digest that a link names. It may have another algorithm than the link's own (an alias), but not another value of
    /// the same: that link would lie about its blob.
    pub(super) fn read_link(
        &self,
        path: &DriverPath,
        content: &[u8],
        own: Option<&Digest>,
    ) -> Result<Digest, DriverError> {
        let named = std::str::from_utf8(content).ok().and_then(|text| Digest::parse(text.trim()).ok());
        let named = named
            .ok_or_else(|| ERRORS.invalid_request("put_content (a link's content must be a digest)", path))?;
        match own {
            Some(own) if own != &named && own.algorithm() == named.algorithm() => {
                Err(ERRORS.invalid_request("put_content (the link names another digest than its path)", path))
            }
            _ => Ok(named),
        }
    }

    /// Puts a link into the files, once its blob is durable.
    ///
    /// The blob may have come with an upload whose acknowledgement was lost, or from another repository by a mount: then
    /// this is the only place where the cluster hears that this repository has it.
    pub(super) async fn put_link(
        &self,
        context: &Context,
        path: &DriverPath,
        link: &RegistryPath,
        (repository, own): (&RepositoryName, &Digest),
        content: &[u8],
    ) -> Result<(), DriverError> {
        let named = self.read_link(path, content, Some(own))?;
        if self.blobs.store.blob(&named).is_some() {
            self.upload(Operation::PutContent, path, Some(repository), &named).await?;
        } else {
            self.require_blob(&named).await?;
        }
        if let Some(link) = Link::of(link) {
            let put = self.blobs.transferer.put_link(&link, &named).await;
            put.map_err(|error| ERRORS.transfer(Operation::PutContent, path, error))?;
            if self.blobs.transferer.files_links() {
                return Ok(());
            }
        }
        self.metadata.put_content(context, path, named.to_string().into()).await
    }

    /// What a link names: by the files, or else by the rest of the cluster.
    pub(super) async fn resolve_link(
        &self,
        context: &Context,
        operation: Operation,
        path: &DriverPath,
        link: &Link,
    ) -> Result<Bytes, DriverError> {
        match self.metadata.get_content(context, path).await {
            Err(DriverError::PathNotFound { .. }) => {
                let found = self.blobs.transferer.find_link(link).await;
                let found = found.map_err(|error| ERRORS.transfer(operation, path, error))?;
                Ok(found.to_string().into())
            }
            here => here.map(|content| first_line(&content)),
        }
    }

    pub(super) async fn stat_link(
        &self,
        context: &Context,
        path: &DriverPath,
        link: &Link,
    ) -> Result<FileInfo, DriverError> {
        let content = self.resolve_link(context, Operation::Stat, path, link).await?;
        let size = content.len() as u64;
        match self.metadata.stat(context, path).await {
            Err(DriverError::PathNotFound { .. }) => Ok(file(path.clone(), size)),
            here => Ok(FileInfo { size, ..here? }),
        }
    }

    /// Removes a link everywhere; what only some have is removed all the same.
    pub(super) async fn delete_link(
        &self,
        context: &Context,
        path: &DriverPath,
        link: &Link,
    ) -> Result<(), DriverError> {
        let elsewhere = self.blobs.transferer.delete_link(link).await;
        let elsewhere = elsewhere.map_err(|error| ERRORS.transfer(Operation::Delete, path, error))?;
        match elsewhere {
            true if self.blobs.transferer.files_links() => return Ok(()),
            false if self.blobs.transferer.files_links() => return Err(ERRORS.not_found(path)),
            _ => {}
        }
        match self.metadata.delete(context, path).await {
            Err(DriverError::PathNotFound { .. }) if elsewhere => Ok(()),
            other => other,
        }
    }

    /// Removes a link everywhere that nobody has put or secured since.
    pub(super) async fn expire_link(
        &self,
        context: &Context,
        path: &DriverPath,
        link: &Link,
        since: SystemTime,
    ) -> Result<bool, DriverError> {
        let expired = self.blobs.transferer.expire_link(link, since).await;
        match expired.map_err(|error| ERRORS.transfer(Operation::Delete, path, error))? {
            Some(expired) => Ok(expired),
            None => self.delete_link(context, path, link).await.map(|()| true),
        }
    }
}

/// The digest. Behind it the cluster may have noted when the link was put.
fn first_line(content: &Bytes) -> Bytes {
    let end = content.iter().position(|&byte| byte == b'\n').unwrap_or(content.len());
    content.slice(..end)
}
