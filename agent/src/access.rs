//! Which repository may see which blob: what the origins said, kept on disk so that a restart without them is warm.
//!
//! A blob in the store is served to a repository only if the origins once said that it is linked there. The record lives
//! as long as the blob does: what was evicted is asked for anew. It is an empty file,
//! `<algorithm>/<hex>/<repository>/_link`; no part of a repository's name begins with `_`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use shoal_core::{Algorithm, Digest, RepositoryName};

/// The links that are known. Unknown does not mean forbidden: ask the origins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Access {
    directory: Arc<Path>,
    recent: Arc<Mutex<LruCache<(Digest, RepositoryName), ()>>>,
}

impl Access {
    /// How many links are answered from memory.
    const MAX_RECENT: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

    /// The record below that folder.
    pub(crate) fn new(directory: PathBuf) -> Self {
        let recent = Arc::new(Mutex::new(LruCache::new(Self::MAX_RECENT)));
        Self { directory: directory.into(), recent }
    }

    /// Whether the blob is known to be linked in the repository.
    pub(crate) async fn is_granted(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        if self.recent().get(&(*digest, repository.clone())).is_some() {
            return true;
        }
        let known = tokio::fs::try_exists(self.link(repository, digest)).await.unwrap_or(false);
        if known {
            self.recent().put((*digest, repository.clone()), ());
        }
        known
    }

    /// Records that the origins said so. A record that cannot be written costs a question after the next restart, no more.
    pub(crate) async fn grant(&self, repository: &RepositoryName, digest: &Digest) {
        if let Err(error) = self.write(repository, digest).await {
            tracing::warn!(%repository, %digest, %error, "cannot record that the repository may see the blob");
        }
        self.recent().put((*digest, repository.clone()), ());
    }

    /// Forgets who may see a blob that is here no more.
    pub(crate) async fn forget(&self, digest: &Digest) {
        {
            let mut recent = self.recent();
            let of_blob = recent.iter().filter(|((known, _), ())| known == digest);
            let of_blob: Vec<_> = of_blob.map(|(link, ())| link.clone()).collect();
            for link in of_blob {
                recent.pop(&link);
            }
        }
        if let Err(error) = remove(tokio::fs::remove_dir_all(self.links(digest)).await) {
            tracing::warn!(%digest, %error, "cannot forget who may see the blob until the next start");
        }
    }

    /// Forgets all blobs that are not here: what went just before the agent stopped, say. Blocks.
    pub(crate) fn keep_only(&self, is_here: impl Fn(&Digest) -> bool) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Ok(entries) = std::fs::read_dir(self.directory.join(algorithm.as_str())) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let name = entry.file_name();
                let digest = name.to_str().and_then(|hex| Digest::from_hex(algorithm, hex).ok());
                if digest.is_some_and(|digest| !is_here(&digest))
                    && let Err(error) = remove(std::fs::remove_dir_all(entry.path()))
                {
                    tracing::warn!(path = %entry.path().display(), %error, "cannot forget who may see the blob");
                }
            }
        }
    }

    async fn write(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let link = self.link(repository, digest);
        if let Some(folder) = link.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        tokio::fs::write(link, b"").await
    }

    fn links(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.algorithm().as_str()).join(digest.hex())
    }

    fn link(&self, repository: &RepositoryName, digest: &Digest) -> PathBuf {
        self.links(digest).join(repository.as_str()).join("_link")
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, LruCache<(Digest, RepositoryName), ()>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not there need not be removed.
fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_grant_outlives_a_restart_and_holds_for_its_repository_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (name("team/app"), name("other"));
        let digest = Digest::sha256(b"blob");
        let access = Access::new(directory.path().into());
        assert!(!access.is_granted(&ours, &digest).await);
        access.grant(&ours, &digest).await;
        drop(access);
        let access = Access::new(directory.path().into());
        assert!(access.is_granted(&ours, &digest).await);
        assert!(!access.is_granted(&theirs, &digest).await);
        // Not by being above or below one that may.
        for near in ["team", "team/app/part"] {
            assert!(!access.is_granted(&name(near), &digest).await, "{near}");
        }
    }

    #[tokio::test]
    async fn what_goes_is_forgotten_for_all_and_the_rest_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let access = Access::new(directory.path().into());
        let (gone, kept) = (Digest::sha256(b"gone"), Digest::sha256(b"kept"));
        let repositories = [name("team"), name("team/app"), name("other")];
        for repository in &repositories {
            access.grant(repository, &gone).await;
            access.grant(repository, &kept).await;
        }
        access.forget(&gone).await;
        access.forget(&Digest::sha256(b"never here")).await;
        for repository in &repositories {
            assert!(!access.is_granted(repository, &gone).await);
            assert!(access.is_granted(repository, &kept).await);
        }
        access.grant(&repositories[0], &gone).await;
        assert!(access.is_granted(&repositories[0], &gone).await);

        let access = Access::new(directory.path().into());
        access.keep_only(|digest| *digest == kept);
        assert!(!access.is_granted(&repositories[0], &gone).await);
        assert!(access.is_granted(&repositories[0], &kept).await);
    }
}
