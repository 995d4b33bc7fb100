//! Many ask the same at once; one goes and looks.
//!
//! Whoever comes first does the work, and the others wait for its outcome. If the first gives up (its client is gone), the
//! next of them starts over. Nothing is kept once the last of them has its answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// What is being looked up.
#[derive(Debug)]
pub(crate) struct Flights<K, V>(Mutex<Cells<K, V>>);

type Cells<K, V> = HashMap<K, Arc<OnceCell<V>>>;

/// One who takes part; the last to go clears up.
struct Seat<'a, K: Eq + Hash, V> {
    flights: &'a Flights<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// The outcome of `work`, or that of another's for the same key that is under way.
    pub(crate) async fn join<F: Future<Output = V>>(&self, key: &K, work: impl FnOnce() -> F) -> V {
        let cell = Arc::clone(self.cells().entry(key.clone()).or_default());
        let seat = Seat { flights: self, key: key.clone(), cell };
        seat.cell.get_or_init(work).await.clone()
    }
}

impl<K: Eq + Hash, V> Flights<K, V> {
    fn cells(&self) -> MutexGuard<'_, Cells<K, V>> {
        // Each use is one call on the map: there is no half-done state that a panic could leave.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Drop for Seat<'_, K, V> {
    fn drop(&mut self) {
        let mut cells = self.flights.cells();
        let ours = cells.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // Once there is an outcome, who comes later looks anew. Without one, the cell goes with the last that waits for it:
        // the map's and our own are all that is left then, and nobody can get another while the map is locked.
        if ours && (self.cell.initialized() || Arc::strong_count(&self.cell) == 2) {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_together_get_one_outcome() {
        let flights = Arc::new(Flights::new());
        let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut askers = JoinSet::new();
        for _ in 0..50 {
            let (flights, runs, go) = (Arc::clone(&flights), Arc::clone(&runs), Arc::clone(&go));
            askers.spawn(async move {
                let work = || async {
                    go.notified().await;
                    runs.fetch_add(1, Ordering::SeqCst)
                };
                flights.join(&"key", work).await
            });
        }
        // On one thread each asker runs until it waits before this goes on.
        tokio::task::yield_now().await;
        go.notify_one();
        assert_eq!(askers.join_all().await, vec![0; 50]);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(flights.cells().is_empty());
    }

    #[tokio::test]
    async fn another_takes_over_from_one_who_gives_up() {
        let flights = Arc::new(Flights::new());
        let first = {
            let flights = Arc::clone(&flights);
            tokio::spawn(async move { flights.join(&1, std::future::pending::<u8>).await })
        };
        tokio::task::yield_now().await;
        let second = {
            let flights = Arc::clone(&flights);
            tokio::spawn(async move { flights.join(&1, || async { 2u8 }).await })
        };
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), 2);
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(flights.cells().is_empty());
    }

    #[tokio::test]
    async fn one_who_gives_up_alone_leaves_nothing() {
        let flights = Flights::new();
        let work = flights.join(&1, std::future::pending::<u8>);
        tokio::select! {
            biased;
            _ = work => unreachable!("it never ends"),
            () = tokio::task::yield_now() => {}
        }
        assert!(flights.cells().is_empty());
    }
}
