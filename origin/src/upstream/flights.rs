//! One of a kind at a time: who asks while somebody does has the same answer. The work is the node's: whoever asked may go.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// What is being found out, by what it is about.
pub(super) struct Flights<K, V> {
    active: Arc<Mutex<HashMap<K, Answer<V>>>>,
    /// The node's: requests run on others, which they may leave at any time.
    runtime: Handle,
    tasks: TaskTracker,
}

/// `None`: the work ended without an answer, since the node stops.
type Answer<V> = Shared<BoxFuture<'static, Option<V>>>;

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// How many there may be; who is refused comes back.
    const MAX_ACTIVE: usize = 1024;

    pub(super) fn new(runtime: Handle, tasks: TaskTracker) -> Self {
        Self { active: Arc::default(), runtime, tasks }
    }

    /// The answer of the work that is under way for that key, or else of this. `None`: there is too much of it, or the node stops.
    pub(super) async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.enter(key, work)?.await
    }

    fn enter<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<Answer<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = active.get(&key) {
            return Some(answer.clone());
        }
        if active.len() >= Self::MAX_ACTIVE {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let answer = receiver.map(Result::ok).boxed().shared();
        active.insert(key.clone(), answer.clone());
        let (work, landing) = (work(), Landing { active: self.active.clone(), key });
        self.tasks.spawn_on(
            async move {
                let value = work.await;
                drop(landing);
                // Nobody may be left who wants to know.
                let _ = sender.send(value);
            },
            &self.runtime,
        );
        Some(answer)
    }
}

/// Makes room for the next, also where the work was given up.
struct Landing<K: Eq + Hash, V> {
    active: Arc<Mutex<HashMap<K, Answer<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_at_the_same_time_has_one_answer_and_who_leaves_does_not_end_it() {
        let flights = Arc::new(Flights::new(Handle::current(), TaskTracker::new()));
        let (count, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let ask = || {
            let (flights, count, gate) = (flights.clone(), count.clone(), gate.clone());
            async move {
                let work = || async move {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    number
                };
                flights.join("key", work).await
            }
        };
        let first = tokio::spawn(ask());
        while count.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn(ask());
        tokio::task::yield_now().await;
        first.abort();
        gate.add_permits(1);
        assert_eq!(second.await.unwrap(), Some(0));
        gate.add_permits(1);
        assert_eq!(ask().await, Some(1), "an answer is not kept");
    }
}
