//! Folders of the origin's driver, put together from the store (blobs), the cluster (tags) and the files (the rest).

use std::collections::BTreeSet;

use shoal_core::{Algorithm, Digest, RepositoryName, Tag};

use super::{ERRORS, ReadWriteDriver};
use crate::blobs::{children_of_trunk, directory};
use crate::driver::{Context, FileInfo, StorageDriver as _};
use crate::error::DriverError;
use crate::path::DriverPath;
use crate::registry_path::{RegistryPath, Shard};
use crate::request::Operation;
use crate::transferer::TransferError;

impl ReadWriteDriver {
    /// A folder is there if it can be listed; those of the files have a time.
    pub(super) async fn stat_folder(
        &self,
        context: &Context,
        path: &DriverPath,
        folder: &RegistryPath,
    ) -> Result<FileInfo, DriverError> {
        match folder {
            RegistryPath::Tags(_)
            | RegistryPath::Manifests(_)
            | RegistryPath::Repositories
            | RegistryPath::Blobs
            | RegistryPath::BlobsByAlgorithm(_)
            | RegistryPath::BlobShard(..)
            | RegistryPath::Blob(_) => {
                self.list_folder(context, path, folder).await.map(|_| directory(path.clone()))
            }
            trunk if children_of_trunk(trunk).is_some() => Ok(directory(path.clone())),
            _ => self.metadata.stat(context, path).await,
        }
    }

    pub(super) async fn list_folder(
        &self,
        context: &Context,
        path: &DriverPath,
        folder: &RegistryPath,
    ) -> Result<Vec<DriverPath>, DriverError> {
        match folder {
            RegistryPath::Repositories => {
                let listable = self.blobs.transferer.listable().await;
                listable.map_err(|error| ERRORS.transfer(Operation::List, path, error))?;
                match self.metadata.list(context, path).await {
                    Err(DriverError::PathNotFound { .. }) => Ok(Vec::new()),
                    other => other,
                }
            }
            RegistryPath::Manifests(name) => self.list_manifests(context, path, name).await,
            RegistryPath::Tags(name) => self.list_tags(path, name).await,
            RegistryPath::Tag(name, tag) => self.list_tag(context, path, name, tag).await,
            RegistryPath::TagCurrent(name, tag) => {
                self.resolve_tag(Operation::List, path, name, tag).await?;
                Ok(vec![RegistryPath::TagCurrentLink(name.clone(), tag.clone()).to_driver_path()])
            }
            RegistryPath::Blobs => {
                Ok(self.children_of_blobs(|digest| Some(RegistryPath::BlobsByAlgorithm(digest.algorithm()))))
            }
            RegistryPath::BlobsByAlgorithm(algorithm) => self.list_shards(path, *algorithm),
            RegistryPath::BlobShard(algorithm, shard) => self.list_shard(path, *algorithm, *shard),
            RegistryPath::Blob(digest) if self.blobs.store.blob(digest).is_some() => {
                Ok(vec![RegistryPath::BlobData(*digest).to_driver_path()])
            }
            RegistryPath::Blob(_) => Err(ERRORS.not_found(path)),
            other => match children_of_trunk(other) {
                Some(children) => Ok(children.iter().map(RegistryPath::to_driver_path).collect()),
                None => self.metadata.list(context, path).await,
            },
        }
    }

    async fn list_tags(
        &self,
        path: &DriverPath,
        name: &RepositoryName,
    ) -> Result<Vec<DriverPath>, DriverError> {
        let tags = self.blobs.transferer.list_tags(name).await;
        let tags = tags.map_err(|error| ERRORS.transfer(Operation::List, path, error))?;
        Ok(tags.into_iter().map(|tag| RegistryPath::Tag(name.clone(), tag).to_driver_path()).collect())
    }

    /// A tag's folder: what it names now, and, if this origin took its pushes, what it named before.
    async fn list_tag(
        &self,
        context: &Context,
        path: &DriverPath,
        name: &RepositoryName,
        tag: &Tag,
    ) -> Result<Vec<DriverPath>, DriverError> {
        self.resolve_tag(Operation::List, path, name, tag).await?;
        let current = RegistryPath::TagCurrent(name.clone(), tag.clone());
        self.with_files(context, path, [current]).await
    }

    /// `revisions` from the files, `tags` if the cluster knows of any.
    async fn list_manifests(
        &self,
        context: &Context,
        path: &DriverPath,
        name: &RepositoryName,
    ) -> Result<Vec<DriverPath>, DriverError> {
        let tags = match self.blobs.transferer.list_tags(name).await {
            Ok(_) => Some(RegistryPath::Tags(name.clone())),
            Err(TransferError::NotFound) => None,
            Err(error) => return Err(ERRORS.transfer(Operation::List, path, error)),
        };
        let children = self.with_files(context, path, tags).await?;
        if children.is_empty() { self.metadata.list(context, path).await } else { Ok(children) }
    }

    /// Children that are known, and those that the files have, each once.
    async fn with_files(
        &self,
        context: &Context,
        path: &DriverPath,
        known: impl IntoIterator<Item = RegistryPath>,
    ) -> Result<Vec<DriverPath>, DriverError> {
        let files = match self.metadata.list(context, path).await {
            Err(DriverError::PathNotFound { .. }) => Vec::new(),
            other => other?,
        };
        let known = known.into_iter().map(|path| path.to_driver_path());
        let children: BTreeSet<_> = known.chain(files).collect();
        Ok(children.into_iter().collect())
    }

    fn list_shards(&self, path: &DriverPath, algorithm: Algorithm) -> Result<Vec<DriverPath>, DriverError> {
        let shards = self.children_of_blobs(|digest| {
            let here = digest.algorithm() == algorithm;
            here.then(|| RegistryPath::BlobShard(algorithm, Shard::of(digest)))
        });
        if shards.is_empty() { Err(ERRORS.not_found(path)) } else { Ok(shards) }
    }

    fn list_shard(
        &self,
        path: &DriverPath,
        algorithm: Algorithm,
        shard: Shard,
    ) -> Result<Vec<DriverPath>, DriverError> {
        let blobs = self.children_of_blobs(|digest| {
            let here = digest.algorithm() == algorithm && Shard::of(digest) == shard;
            here.then_some(RegistryPath::Blob(*digest))
        });
        if blobs.is_empty() { Err(ERRORS.not_found(path)) } else { Ok(blobs) }
    }

    /// What the whole blobs of the store are to a folder, each once.
    fn children_of_blobs(&self, child: impl Fn(&Digest) -> Option<RegistryPath>) -> Vec<DriverPath> {
        let whole = self.blobs.store.digests().into_iter().filter(|(_, whole)| *whole);
        let children: BTreeSet<_> =
            whole.filter_map(|(digest, _)| child(&digest)).map(|path| path.to_driver_path()).collect();
        children.into_iter().collect()
    }
}
