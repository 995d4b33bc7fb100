//! The storage layer: what a repository holds, as links and blobs behind a storage driver.
//!
//! Every byte and every name goes through a typed [`RegistryPath`] to the [`StorageDriver`]; nothing here knows HTTP.
//! The global blobs are reached only through a repository's link to them, which is the access check.

mod blobs;
mod catalog;
mod descriptors;
pub(crate) mod hashing;
mod locks;
mod manifests;
pub(crate) mod owner;
mod recent_manifests;
mod referrers;
pub(crate) mod sessions;
mod tags;
mod uploads;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, DriverPath, RegistryPath, StorageDriver, UploadId,
};

use crate::Config;
pub(crate) use blobs::{BlobError, Blobs, Descriptor};
use descriptors::Descriptors;
use locks::Locks;
pub(crate) use manifests::{ManifestError, Manifests};
use owner::Owner;
use recent_manifests::RecentManifests;
pub(crate) use referrers::{Referrers, fallback_tag, is_fallback_tag};
use sessions::{Claim, Refused, Sessions};
pub(crate) use tags::{Tags, TagsError};
pub(crate) use uploads::{Upload, UploadError, Uploads};

use crate::maintenance::Barrier;
use crate::tag_rules::TagRule;

/// All repositories behind one driver. Clones share it.
#[derive(Clone)]
pub(crate) struct Storage(Arc<Shared>);

/// What all repositories share.
struct Shared {
    driver: Arc<dyn StorageDriver>,
    descriptors: Descriptors,
    recent_manifests: RecentManifests,
    sessions: Sessions,
    barrier: Barrier,
    manifest_locks: Locks,
    max_blob_size: u64,
    sparse_indexes: bool,
    tag_rules: Vec<TagRule>,
    /// What the ids of new uploads end with.
    upload_mark: Option<u32>,
    read_only: AtomicBool,
}

/// One repository; it may not exist yet.
#[derive(Clone)]
pub(crate) struct Repository {
    shared: Arc<Shared>,
    context: Context,
    name: RepositoryName,
}

impl Storage {
    pub(crate) fn new(driver: Arc<dyn StorageDriver>, config: &Config) -> Self {
        Self(Arc::new(Shared {
            driver,
            descriptors: Descriptors::default(),
            recent_manifests: RecentManifests::default(),
            sessions: Sessions::new(config.max_concurrent_uploads),
            barrier: Barrier::default(),
            manifest_locks: Locks::default(),
            max_blob_size: config.max_blob_size.as_u64(),
            sparse_indexes: config.sparse_indexes,
            tag_rules: config.tags.clone(),
            upload_mark: None,
            read_only: AtomicBool::new(config.read_only),
        }))
    }

    /// New uploads have ids that end so. Before anybody else has it.
    pub(crate) fn mark_uploads(&mut self, mark: u32) {
        Arc::get_mut(&mut self.0).expect("nobody else has it yet").upload_mark = Some(mark);
    }

    pub(crate) fn repository(&self, name: RepositoryName) -> Repository {
        let context = Context { repository: Some(name.clone()) };
        Repository { shared: Arc::clone(&self.0), context, name }
    }

    /// All of it, past every repository's links: for maintenance.
    pub(crate) fn driver(&self) -> &dyn StorageDriver {
        &*self.0.driver
    }

    /// What stands between pushes and garbage collection.
    pub(crate) fn barrier(&self) -> &Barrier {
        &self.0.barrier
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.0.read_only.load(Ordering::Relaxed)
    }

    /// What clients do from now on; a write that is under way ends.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.0.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Keeps everybody else from writing to an upload session, if nobody does.
    pub(crate) fn claim(&self, repository: &RepositoryName, id: UploadId) -> Result<Claim, Refused> {
        self.0.sessions.claim(repository, id)
    }

    /// The repository's link to the blob, or to the manifest, is gone.
    pub(crate) fn forget(&self, repository: &RepositoryName, digest: &Digest) {
        self.0.descriptors.forget(repository, digest);
        self.0.recent_manifests.forget(repository, digest);
    }
}

impl Repository {
    pub(crate) fn blobs(&self) -> Blobs {
        Blobs::new(self.clone())
    }

    /// The upload sessions of that client; `None`: of those without a name.
    pub(crate) fn uploads(&self, owner: Option<Owner>) -> Uploads {
        Uploads::new(self.clone(), owner)
    }

    pub(crate) fn manifests(&self) -> Manifests {
        Manifests::new(self.clone())
    }

    pub(crate) fn referrers(&self, subject: Digest) -> Referrers {
        Referrers::new(self.clone(), subject)
    }

    pub(crate) fn tags(&self) -> Tags {
        Tags::new(self.clone())
    }

    fn driver(&self) -> &dyn StorageDriver {
        &*self.shared.driver
    }

    /// The digest that a link holds; `None` where there is no such link.
    async fn read_link(&self, path: RegistryPath) -> Result<Option<Digest>, DriverError> {
        let path = path.to_driver_path();
        let content = self.driver().get_content(&self.context, &path).await;
        self.parse_link(&path, content)
    }

    /// The same for a push that relies on the link, and has told the barrier so: from here on no other writer of the storage
    /// takes it for garbage either.
    async fn secure_link(&self, path: RegistryPath) -> Result<Option<Digest>, DriverError> {
        let path = path.to_driver_path();
        let content = self.driver().secure_link(&self.context, &path).await;
        self.parse_link(&path, content)
    }

    fn parse_link(
        &self,
        path: &DriverPath,
        content: Result<Bytes, DriverError>,
    ) -> Result<Option<Digest>, DriverError> {
        let Some(content) = found(content)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&content);
        match Digest::parse(text.trim()) {
            Ok(digest) => Ok(Some(digest)),
            Err(error) => Err(DriverError::Failed {
                driver: self.driver().name(),
                detail: format!("link {path} holds no digest"),
                source: Some(error.into()),
            }),
        }
    }

    async fn write_link(&self, path: RegistryPath, digest: &Digest) -> Result<(), DriverError> {
        self.put(path, Bytes::from(digest.to_string())).await
    }

    async fn put(&self, path: RegistryPath, content: Bytes) -> Result<(), DriverError> {
        self.driver().put_content(&self.context, &path.to_driver_path(), content).await
    }

    async fn read(&self, path: RegistryPath, range: ByteRange) -> Result<ByteStream, DriverError> {
        self.driver().reader(&self.context, &path.to_driver_path(), range).await
    }

    async fn delete(&self, path: RegistryPath) -> Result<(), DriverError> {
        let deleted = self.driver().delete(&self.context, &path.to_driver_path()).await;
        // Also where it failed: nobody knows what is left.
        self.forget(&path);
        deleted
    }

    /// What was remembered of a path may not be so any more.
    fn forget(&self, path: &RegistryPath) {
        match path {
            RegistryPath::Revision(name, digest) | RegistryPath::RevisionLink(name, digest) => {
                self.shared.recent_manifests.forget(name, digest);
            }
            RegistryPath::Layer(name, digest) | RegistryPath::LayerLink(name, digest) => {
                self.shared.descriptors.forget(name, digest);
            }
            _ => {}
        }
    }
}

/// Turns "path not found" into `None`.
pub(crate) fn found<T>(result: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(DriverError::PathNotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
