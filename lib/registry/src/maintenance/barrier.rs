//! The barrier between pushes and garbage collection: what a push relies on is not deleted under its feet.
//!
//! A push says first what it relies on, then looks whether that is there, then writes its links. A collection deletes
//! only while the gate is closed, after it has marked again from everything that pushes rely on or relied on since it
//! began. So a push either finds a thing missing, or keeps it. The gate is closed for one small batch at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::{Digest, RepositoryName};
use tokio::sync::{RwLock, RwLockWriteGuard};

/// Stands between the pushes and the collections of one registry. Clones are one barrier.
#[derive(Clone, Default)]
pub(crate) struct Barrier(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Read for an instant by a push that begins, written while a batch is deleted.
    gate: RwLock<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_flight: HashMap<u64, Arc<Reliance>>,
    next: u64,
    collection: Option<Ended>,
}

/// What the pushes that ended during a collection relied on.
#[derive(Default)]
struct Ended {
    reliances: Vec<Arc<Reliance>>,
    digests: usize,
}

/// Blobs and manifests of one repository that a push needs.
pub(super) struct Reliance {
    pub(super) repository: RepositoryName,
    pub(super) digests: Vec<Digest>,
}

/// A push under way. What it relies on stays at least until it is dropped, and until the end of a collection that is
/// under way then.
#[must_use = "what the push relies on is safe only as long as this lives"]
pub(crate) struct Push {
    barrier: Barrier,
    number: u64,
}

/// A collection under way; there is one at a time.
pub(super) struct Collection(Barrier);

/// More was pushed during one collection than it can remember: it has to give up.
#[derive(Debug)]
pub(super) struct TooManyPushes;

impl Barrier {
    /// Begins a push. What it relies on must be looked for after this, not before.
    pub(crate) async fn push(
        &self,
        repository: &RepositoryName,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Push {
        let reliance = Reliance { repository: repository.clone(), digests: digests.into_iter().collect() };
        let _open = self.0.gate.read().await;
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.in_flight.insert(number, Arc::new(reliance));
        Push { barrier: self.clone(), number }
    }

    /// Begins a collection; `None`: another one is under way.
    pub(super) fn collect(&self) -> Option<Collection> {
        let mut state = self.state();
        if state.collection.is_some() {
            return None;
        }
        state.collection = Some(Ended::default());
        Some(Collection(self.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collection {
    /// Closes the gate: as long as the guard lives no push begins, and things may be deleted.
    pub(super) async fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.0.gate.write().await
    }

    /// What pushes under way rely on, and what those that ended since the `seen`-th relied on.
    pub(super) fn reliances(&self, seen: &mut usize) -> Result<Vec<Arc<Reliance>>, TooManyPushes> {
        let state = self.0.state();
        let ended = state.collection.as_ref().ok_or(TooManyPushes)?;
        if ended.digests > MAX_REMEMBERED {
            return Err(TooManyPushes);
        }
        let new = ended.reliances.iter().skip(*seen);
        let all = state.in_flight.values().chain(new).cloned().collect();
        *seen = ended.reliances.len();
        Ok(all)
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.0.state().collection = None;
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        let mut state = self.barrier.state();
        let reliance = state.in_flight.remove(&self.number);
        if let (Some(reliance), Some(ended)) = (reliance, &mut state.collection) {
            ended.digests += reliance.digests.len();
            if ended.digests <= MAX_REMEMBERED {
                ended.reliances.push(reliance);
            }
        }
    }
}

/// How many digests of ended pushes one collection remembers: a million, about 70 MiB, that is some fifty thousand
/// images pushed during one run.
const MAX_REMEMBERED: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> RepositoryName {
        RepositoryName::parse("a").unwrap()
    }

    fn digests(reliances: &[Arc<Reliance>]) -> Vec<Digest> {
        reliances.iter().flat_map(|reliance| reliance.digests.clone()).collect()
    }

    #[tokio::test]
    async fn a_push_is_seen_while_it_runs_and_after_it_ended() {
        let (barrier, digest, mut seen) = (Barrier::default(), Digest::sha256(b"x"), 0);
        drop(barrier.push(&name(), [Digest::sha256(b"ended before")]).await);
        let collection = barrier.collect().unwrap();
        let push = barrier.push(&name(), [digest]).await;
        assert_eq!(digests(&collection.reliances(&mut seen).unwrap()), [digest]);
        drop(push);
        assert_eq!(digests(&collection.reliances(&mut seen).unwrap()), [digest]);
        assert!(collection.reliances(&mut seen).unwrap().is_empty());
    }

    #[tokio::test]
    async fn no_push_begins_while_a_batch_is_deleted() {
        let barrier = Barrier::default();
        let collection = barrier.collect().unwrap();
        let closed = collection.close().await;
        let (name, digest) = (name(), Digest::sha256(b"x"));
        let mut push = Box::pin(barrier.push(&name, [digest]));
        assert!(futures_util::poll!(&mut push).is_pending());
        drop(closed);
        assert!(futures_util::poll!(&mut push).is_ready());
    }

    #[tokio::test]
    async fn one_collection_runs_at_a_time() {
        let barrier = Barrier::default();
        let collection = barrier.collect();
        assert!(barrier.collect().is_none());
        drop(collection);
        assert!(barrier.collect().is_some());
    }

    #[tokio::test]
    async fn more_pushes_than_can_be_remembered_end_the_collection() {
        let barrier = Barrier::default();
        let collection = barrier.collect().unwrap();
        drop(barrier.push(&name(), vec![Digest::sha256(b"x"); MAX_REMEMBERED + 1]).await);
        assert!(collection.reliances(&mut 0).is_err());
    }
}
