//! Which repository may see which blob: what the origins said, kept on disk so that a restart without them is warm.
//!
//! A blob in the store is served to a repository only if the origins once said that it is linked there. The record
//! is the registry's own layer link, written by the filesystem driver.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Context, DriverError, FilesystemDriver, RegistryPath, StorageDriver};

/// The links that are known. Unknown does not mean forbidden: ask the origins.
pub(crate) struct Access {
    links: FilesystemDriver,
    recent: Mutex<LruCache<(RepositoryName, Digest), ()>>,
}

impl Access {
    /// How many links are answered from memory.
    const MAX_RECENT: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

    /// The record below that folder.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { links: FilesystemDriver::new(directory), recent: Mutex::new(LruCache::new(Self::MAX_RECENT)) }
    }

    /// Whether the blob is known to be linked in the repository.
    pub(crate) async fn is_granted(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        if self.recent().get(&(repository.clone(), *digest)).is_some() {
            return true;
        }
        let path = RegistryPath::LayerLink(repository.clone(), *digest).to_driver_path();
        let known = self.links.stat(&Context::default(), &path).await.is_ok();
        if known {
            self.recent().put((repository.clone(), *digest), ());
        }
        known
    }

    /// Records that the origins said so. A record that cannot be written costs a question after the next restart, no more.
    pub(crate) async fn grant(&self, repository: &RepositoryName, digest: &Digest) {
        if let Err(error) = self.write(repository, digest).await {
            tracing::warn!(%repository, %digest, %error, "cannot record that the repository may see the blob");
        }
        self.recent().put((repository.clone(), *digest), ());
    }

    async fn write(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), DriverError> {
        let path = RegistryPath::LayerLink(repository.clone(), *digest).to_driver_path();
        self.links.put_content(&Context::default(), &path, Bytes::from(digest.to_string())).await
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, LruCache<(RepositoryName, Digest), ()>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grant_outlives_a_restart_and_holds_for_its_repository_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) =
            (RepositoryName::parse("team/app").unwrap(), RepositoryName::parse("other").unwrap());
        let digest = Digest::sha256(b"blob");
        let access = Access::new(directory.path().into());
        assert!(!access.is_granted(&ours, &digest).await);
        access.grant(&ours, &digest).await;
        drop(access);
        let access = Access::new(directory.path().into());
        assert!(access.is_granted(&ours, &digest).await);
        assert!(!access.is_granted(&theirs, &digest).await);
    }
}
