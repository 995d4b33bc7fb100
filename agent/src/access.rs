//! Which repository may see which blob: what the origins said, kept on disk so that a restart without them is warm.
//!
//! A blob in the store is served to a repository only if the origins once said that it is linked there. The record lives
//! as long as the blob does: what was evicted is asked for anew. It is an empty file,
//! `<algorithm>/<hex>/<repository>/_link`; no part of a repository's name begins with `_`.
//!
//! While nobody can ask the origins, another agent's word stands for theirs: for a time that it names, an hour at most, in
//! memory alone, and passed on with what is left of it. So no word outlives an hour from the agent to which the origins said it.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_control::overlay::MAX_LENT;
use shoal_core::{Algorithm, Digest, RepositoryName};

/// The links that are known. Unknown does not mean forbidden: ask the origins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Access {
    directory: Arc<Path>,
    recent: Arc<Mutex<LruCache<(Digest, RepositoryName), Grant>>>,
}

/// On whose word a repository sees a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The origins'.
    Given,
    /// Another agent's, until then.
    Lent(Instant),
}

impl Access {
    /// How many links are answered from memory.
    const MAX_RECENT: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

    /// The record below that folder.
    pub(crate) fn new(directory: PathBuf) -> Self {
        let recent = Arc::new(Mutex::new(LruCache::new(Self::MAX_RECENT)));
        Self { directory: directory.into(), recent }
    }

    /// On whose word the blob may be seen in the repository, if it may at `now`.
    pub(crate) async fn grant_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        now: Instant,
    ) -> Option<Grant> {
        let recent = self.recent().get(&(*digest, repository.clone())).copied();
        if let Some(grant) = recent.filter(|grant| grant.left(now).is_some()) {
            return Some(grant);
        }
        let known = tokio::fs::try_exists(self.link(repository, digest)).await.unwrap_or(false);
        known.then(|| {
            self.recent().put((*digest, repository.clone()), Grant::Given);
            Grant::Given
        })
    }

    /// Records on whose word the repository may see the blob.
    pub(crate) async fn grant(&self, repository: &RepositoryName, digest: &Digest, grant: Grant) {
        match grant {
            Grant::Given => self.give(repository, digest).await,
            Grant::Lent(_) => self.lend(repository, digest, grant),
        }
    }

    /// A record that cannot be written costs a question after the next restart, no more.
    async fn give(&self, repository: &RepositoryName, digest: &Digest) {
        if let Err(error) = self.write(repository, digest).await {
            tracing::warn!(%repository, %digest, %error, "cannot record that the repository may see the blob");
        }
        self.recent().put((*digest, repository.clone()), Grant::Given);
    }

    /// What the origins said is worth more than any loan.
    fn lend(&self, repository: &RepositoryName, digest: &Digest, loan: Grant) {
        let mut recent = self.recent();
        let grant = recent.get_or_insert_mut((*digest, repository.clone()), || loan);
        if *grant != Grant::Given {
            *grant = loan;
        }
    }

    /// Forgets who may see a blob that is here no more.
    pub(crate) async fn forget(&self, digest: &Digest) {
        {
            let mut recent = self.recent();
            let of_blob = recent.iter().filter(|((known, _), _)| known == digest);
            let of_blob: Vec<_> = of_blob.map(|(link, _)| link.clone()).collect();
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

    fn recent(&self) -> std::sync::MutexGuard<'_, LruCache<(Digest, RepositoryName), Grant>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// For how long it may be passed on: the origins' word an hour, a loan for what is left of it, if anything is.
    pub(crate) fn left(self, now: Instant) -> Option<Duration> {
        match self {
            Self::Given => Some(MAX_LENT),
            Self::Lent(until) => Some(until.saturating_duration_since(now)).filter(|left| !left.is_zero()),
        }
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

    async fn granted(access: &Access, repository: &RepositoryName, digest: &Digest) -> bool {
        access.grant_of(repository, digest, Instant::now()).await.is_some()
    }

    #[tokio::test]
    async fn a_loan_ends_is_passed_on_with_what_is_left_and_yields_to_the_origins_word() {
        let directory = tempfile::tempdir().unwrap();
        let (repository, digest) = (name("team/app"), Digest::sha256(b"blob"));
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        let access = Access::new(directory.path().into());
        access.grant(&repository, &digest, Grant::Lent(now + minute)).await;
        let loan = access.grant_of(&repository, &digest, now + minute / 2).await.unwrap();
        assert_eq!(loan.left(now + minute / 2), Some(minute / 2));
        assert_eq!(access.grant_of(&repository, &digest, now + minute).await, None);
        // It is nowhere on disk.
        assert_eq!(Access::new(directory.path().into()).grant_of(&repository, &digest, now).await, None);

        access.grant(&repository, &digest, Grant::Given).await;
        access.grant(&repository, &digest, Grant::Lent(now + minute)).await;
        assert_eq!(access.grant_of(&repository, &digest, now + 2 * minute).await, Some(Grant::Given));
    }

    #[tokio::test]
    async fn a_grant_outlives_a_restart_and_holds_for_its_repository_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (name("team/app"), name("other"));
        let digest = Digest::sha256(b"blob");
        let access = Access::new(directory.path().into());
        assert!(!granted(&access, &ours, &digest).await);
        access.grant(&ours, &digest, Grant::Given).await;
        drop(access);
        let access = Access::new(directory.path().into());
        assert!(granted(&access, &ours, &digest).await);
        assert!(!granted(&access, &theirs, &digest).await);
        // Not by being above or below one that may.
        for near in ["team", "team/app/part"] {
            assert!(!granted(&access, &name(near), &digest).await, "{near}");
        }
    }

    #[tokio::test]
    async fn what_goes_is_forgotten_for_all_and_the_rest_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let access = Access::new(directory.path().into());
        let (gone, kept) = (Digest::sha256(b"gone"), Digest::sha256(b"kept"));
        let repositories = [name("team"), name("team/app"), name("other")];
        for repository in &repositories {
            access.grant(repository, &gone, Grant::Given).await;
            access.grant(repository, &kept, Grant::Given).await;
        }
        access.forget(&gone).await;
        access.forget(&Digest::sha256(b"never here")).await;
        for repository in &repositories {
            assert!(!granted(&access, repository, &gone).await);
            assert!(granted(&access, repository, &kept).await);
        }
        access.grant(&repositories[0], &gone, Grant::Given).await;
        assert!(granted(&access, &repositories[0], &gone).await);

        let access = Access::new(directory.path().into());
        access.keep_only(|digest| *digest == kept);
        assert!(!granted(&access, &repositories[0], &gone).await);
        assert!(granted(&access, &repositories[0], &kept).await);
    }
}
