//! The storage layer: what a repository holds, as links and blobs behind a storage driver.
//!
//! Every byte and every name goes through a typed [`RegistryPath`] to the [`StorageDriver`]; nothing here knows HTTP.
//! The global blobs are reached only through a repository's link to them, which is the access check.

mod blobs;
mod descriptors;
mod hashing;
mod manifests;
mod sessions;
mod tags;
mod uploads;

use std::sync::Arc;

use bytes::Bytes;
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{ByteRange, ByteStream, Context, DriverError, RegistryPath, StorageDriver};

pub(crate) use blobs::{BlobError, Blobs, Descriptor};
use descriptors::Descriptors;
pub(crate) use manifests::{ManifestError, Manifests};
use sessions::Sessions;
pub(crate) use tags::{Tags, TagsError};
pub(crate) use uploads::{Upload, UploadError, Uploads};

/// All repositories behind one driver. Clones share it.
#[derive(Clone)]
pub(crate) struct Storage(Arc<Shared>);

/// What all repositories share.
struct Shared {
    driver: Arc<dyn StorageDriver>,
    descriptors: Descriptors,
    sessions: Sessions,
    max_blob_size: u64,
}

/// One repository; it may not exist yet.
#[derive(Clone)]
pub(crate) struct Repository {
    shared: Arc<Shared>,
    context: Context,
    name: RepositoryName,
}

impl Storage {
    pub(crate) fn new(
        driver: Arc<dyn StorageDriver>,
        max_blob_size: u64,
        max_concurrent_uploads: usize,
    ) -> Self {
        Self(Arc::new(Shared {
            driver,
            descriptors: Descriptors::default(),
            sessions: Sessions::new(max_concurrent_uploads),
            max_blob_size,
        }))
    }

    pub(crate) fn repository(&self, name: RepositoryName) -> Repository {
        let context = Context { repository: Some(name.clone()) };
        Repository { shared: Arc::clone(&self.0), context, name }
    }
}

impl Repository {
    pub(crate) fn blobs(&self) -> Blobs {
        Blobs::new(self.clone())
    }

    pub(crate) fn uploads(&self) -> Uploads {
        Uploads::new(self.clone())
    }

    pub(crate) fn manifests(&self) -> Manifests {
        Manifests::new(self.clone())
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
        let Some(content) = found(self.driver().get_content(&self.context, &path).await)? else {
            return Ok(None);
        };
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
        self.driver().delete(&self.context, &path.to_driver_path()).await
    }
}

/// Turns "path not found" into `None`.
fn found<T>(result: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(DriverError::PathNotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
