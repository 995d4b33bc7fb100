//! Who may change a repository's manifests at one moment: many pushes side by side, or one change that has to look first.
//!
//! A delete looks for the tags of what it deletes, and a referrer's push reads the list that it adds to: neither may have
//! a push between its look and its write. Repositories share a bounded number of locks. Across origins nothing is locked.

use std::hash::{BuildHasher, RandomState};

use shoal_core::RepositoryName;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The locks of all repositories.
pub(super) struct Locks {
    stripes: [RwLock<()>; STRIPES],
    hasher: RandomState,
}

/// The right to change a repository's manifests, until dropped.
pub(super) enum Turn<'a> {
    /// Together with others.
    Shared { _guard: RwLockReadGuard<'a, ()> },
    /// Alone.
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

impl Default for Locks {
    fn default() -> Self {
        Self { stripes: std::array::from_fn(|_| RwLock::new(())), hasher: RandomState::new() }
    }
}

impl Locks {
    /// For a write that depends on nothing that it would have to read first.
    pub(super) async fn shared(&self, repository: &RepositoryName) -> Turn<'_> {
        Turn::Shared { _guard: self.stripe(repository).read().await }
    }

    /// For a write that depends on what is there.
    pub(super) async fn alone(&self, repository: &RepositoryName) -> Turn<'_> {
        Turn::Alone { _guard: self.stripe(repository).write().await }
    }

    fn stripe(&self, repository: &RepositoryName) -> &RwLock<()> {
        // The remainder of a division by `STRIPES` is an index, and fits every integer.
        &self.stripes[(self.hasher.hash_one(repository) % STRIPES as u64) as usize]
    }
}

/// Two repositories that share a lock wait for each other without need: rare with 256, in 20 KiB.
const STRIPES: usize = 256;
