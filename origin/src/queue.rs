//! Work that must be done though the process may end before: jobs on disk, tried again with back-off, and given up with a
//! reason that an operator sees.
//!
//! A job is done at least once: what was done when the process died is done again. Whoever adds one goes on when it is
//! durable. A job that comes under the key of one that waits replaces it, so that a queue of what changed is never longer
//! than what there is. All queues of an origin are in one [`Journal`].

mod backoff;
mod journal;
mod metrics;
mod schedule;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) use self::backoff::Backoff;
use self::journal::Change;
pub(crate) use self::journal::Journal;
pub use self::journal::JournalError;
pub(crate) use self::metrics::QueueMetrics;
pub(crate) use self::schedule::{Counts, Order};
use self::schedule::{Entry, Millis, Schedule};

/// Jobs of one kind. Clones are one queue.
pub(crate) struct Queue<J>(Arc<Inner<J>>);

struct Inner<J> {
    name: Arc<str>,
    limit: usize,
    journal: Journal,
    state: Mutex<State<J>>,
    metrics: QueueMetrics,
    /// There is something to be taken, perhaps.
    news: Notify,
}

struct State<J> {
    schedule: Schedule,
    jobs: HashMap<String, J>,
}

/// What is on disk of a job.
#[derive(Serialize, Deserialize)]
struct Record<J> {
    entry: Entry,
    job: J,
}

/// What a queue is made from.
#[derive(Clone, Debug)]
pub(crate) struct QueueOptions {
    /// Of its table, and in metrics.
    pub(crate) name: Arc<str>,
    pub(crate) order: Order,
    pub(crate) backoff: Backoff,
    /// How many jobs it holds, those that were given up included. They are in memory too.
    pub(crate) limit: usize,
}

/// A job was not added.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There are too many.
    #[error("the queue {name} holds {limit} jobs and takes no more")]
    Full {
        /// Which queue.
        name: Arc<str>,
        /// How many it holds.
        limit: usize,
    },
    /// The disk does not keep it. It may be done all the same.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What an operator is to know of a queue.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Jobs that are not begun, or to be tried again, or at work.
    pub waiting: usize,
    /// For how long the oldest of them has been there.
    pub lag: Duration,
    /// How many were given up.
    pub dead: usize,
    /// Some of those, the newest first.
    pub newest_dead: Vec<DeadJob>,
}

/// All queues of an origin, for its operator. Clones are one.
#[derive(Clone)]
pub struct Queues(pub(crate) Arc<[Box<dyn Shown>]>);

/// What an operator may see of a queue, and do to it.
#[async_trait]
pub(crate) trait Shown: Send + Sync {
    fn status(&self) -> QueueStatus;

    /// Has the jobs that were given up tried again; says how many there were.
    async fn revive(&self) -> Result<usize, QueueError>;
}

impl Queues {
    /// What each has to do.
    #[must_use]
    pub fn status(&self) -> Vec<QueueStatus> {
        self.0.iter().map(|queue| queue.status()).collect()
    }

    /// Has all jobs that were given up tried again; says how many there were.
    pub async fn retry(&self) -> Result<usize, QueueError> {
        let mut count = 0;
        for queue in &*self.0 {
            count += queue.revive().await?;
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

/// A job that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadJob {
    /// What it is about.
    pub key: String,
    /// How often it failed.
    pub tries: u32,
    /// Why, the last time.
    pub error: String,
}

/// A job that its holder is to do. Dropped without a word it goes back to those that wait.
pub(crate) struct Taken<J> {
    queue: Queue<J>,
    key: String,
    /// What is to be done.
    pub(crate) job: J,
    /// How often it failed before.
    pub(crate) tries: u32,
    is_answered: bool,
}

impl<J> Clone for Queue<J> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J: Clone + Serialize + DeserializeOwned> Queue<J> {
    /// The queue as it was when the process last ended.
    pub(crate) fn open(
        journal: &Journal,
        options: QueueOptions,
        metrics: QueueMetrics,
    ) -> Result<Self, JournalError> {
        let QueueOptions { name, order, backoff, limit } = options;
        let (mut schedule, mut jobs) = (Schedule::new(order, backoff, limit), HashMap::new());
        for (key, record) in journal.load(&name)? {
            match serde_json::from_slice::<Record<J>>(&record) {
                Ok(Record { entry, job }) => {
                    schedule.restore(now(), &key, entry);
                    jobs.insert(key, job);
                }
                // Of another version perhaps, which shall find it again.
                Err(error) => {
                    tracing::error!(queue = %name, key, %error, "left out a job that is not readable");
                }
            }
        }
        metrics.show(&name, schedule.counts());
        let (state, news, journal) = (Mutex::new(State { schedule, jobs }), Notify::new(), journal.clone());
        Ok(Self(Arc::new(Inner { name, limit, journal, state, metrics, news })))
    }

    /// Adds a job; durable when it returns. It replaces one of the same key that waits or was given up.
    pub(crate) async fn add(&self, key: &str, job: J) -> Result<(), QueueError> {
        self.add_after(key, job, Duration::ZERO).await
    }

    /// The same for a job that is not to be begun before that time has passed.
    pub(crate) async fn add_after(&self, key: &str, job: J, wait: Duration) -> Result<(), QueueError> {
        let Inner { name, limit, journal, metrics, .. } = &*self.0;
        let place = journal.place().await?;
        let pending = {
            let mut state = self.0.state();
            let full = |_| QueueError::Full { name: name.clone(), limit: *limit };
            let mut entry = state.schedule.add(now(), key).map_err(full)?;
            if !wait.is_zero()
                && let Some(later) = state.schedule.not_before(key, after(wait))
            {
                entry = later;
            }
            metrics.show(name, state.schedule.counts());
            let change = self.0.keep(key, &entry, &job);
            state.jobs.insert(key.to_owned(), job);
            place.fill(change)
        };
        self.0.news.notify_one();
        Ok(pending.written().await?)
    }

    /// The next job, as soon as one is due.
    pub(crate) async fn take(&self) -> Taken<J> {
        loop {
            let (taken, due) = self.take_due();
            if let Some(taken) = taken {
                // There may be another for another.
                self.0.news.notify_one();
                return taken;
            }
            let wait = due.map_or(IDLE, |due| Duration::from_millis(due.saturating_sub(now())).min(IDLE));
            // Either way it looks again.
            let _ = tokio::time::timeout(wait, self.0.news.notified()).await;
        }
    }

    fn take_due(&self) -> (Option<Taken<J>>, Option<Millis>) {
        let mut state = self.0.state();
        let Some((key, tries)) = state.schedule.take(now()) else {
            return (None, state.schedule.next_due());
        };
        self.0.metrics.show(&self.0.name, state.schedule.counts());
        let job = state.jobs.get(&key).expect("what is scheduled has content").clone();
        (Some(Taken { queue: self.clone(), key, job, tries, is_answered: false }), None)
    }

    /// Takes what becomes of a job into the schedule and onto the disk.
    async fn answer(
        &self,
        key: &str,
        answer: impl FnOnce(&mut Schedule) -> Option<Entry>,
    ) -> Result<(), JournalError> {
        let place = self.0.journal.place().await?;
        let pending = {
            let mut state = self.0.state();
            let change = match answer(&mut state.schedule) {
                Some(entry) => {
                    let job = state.jobs.get(key).expect("what is scheduled has content");
                    self.0.keep(key, &entry, job)
                }
                None => {
                    state.jobs.remove(key);
                    Change { table: self.0.name.clone(), key: key.to_owned(), record: None }
                }
            };
            self.0.metrics.show(&self.0.name, state.schedule.counts());
            place.fill(change)
        };
        self.0.news.notify_one();
        pending.written().await
    }
}

impl<J> Queue<J> {
    /// How many more jobs it would take.
    pub(crate) fn room(&self) -> usize {
        let Counts { waiting, taken, dead } = self.0.state().schedule.counts();
        self.0.limit.saturating_sub(waiting + taken + dead)
    }

    /// Whether a job of this key is not done; one that was given up is not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.state().schedule.has(key)
    }
}

#[async_trait]
impl<J: Clone + Serialize + DeserializeOwned + Send + 'static> Shown for Queue<J> {
    fn status(&self) -> QueueStatus {
        let state = self.0.state();
        let Counts { waiting, taken, dead } = state.schedule.counts();
        let oldest = state.schedule.oldest();
        let mut given_up: Vec<_> = state.schedule.dead().collect();
        given_up.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.number));
        let newest_dead = given_up.into_iter().take(MAX_SHOWN).map(|(key, entry)| DeadJob {
            key: key.to_owned(),
            tries: entry.tries,
            error: entry.error.clone().unwrap_or_default(),
        });
        QueueStatus {
            name: self.0.name.clone(),
            waiting: waiting + taken,
            lag: Duration::from_millis(oldest.map_or(0, |added| now().saturating_sub(added))),
            dead,
            newest_dead: newest_dead.collect(),
        }
    }

    async fn revive(&self) -> Result<usize, QueueError> {
        let dead: Vec<(String, J)> = {
            let state = self.0.state();
            let dead = state.schedule.dead().map(|(key, _)| key);
            dead.filter_map(|key| Some((key.to_owned(), state.jobs.get(key)?.clone()))).collect()
        };
        let count = dead.len();
        for (key, job) in dead {
            self.add(&key, job).await?;
        }
        Ok(count)
    }
}

impl<J> Inner<J> {
    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Serialize> Inner<J> {
    fn keep(&self, key: &str, entry: &Entry, job: &J) -> Change {
        let record = serde_json::to_vec(&Record { entry: entry.clone(), job });
        let record = record.expect("a job is plain data with text for keys");
        Change { table: self.name.clone(), key: key.to_owned(), record: Some(record) }
    }
}

impl<J: Clone + Serialize + DeserializeOwned> Taken<J> {
    /// It is done. Where the disk does not keep that, it is done once more after a restart.
    pub(crate) async fn done(mut self) {
        self.is_answered = true;
        let Inner { name, metrics, .. } = &*self.queue.0;
        metrics.tried(name, true);
        let kept = self.queue.answer(&self.key, |schedule| schedule.done(now(), &self.key)).await;
        self.log(kept);
    }

    /// It cannot be done yet, which is no failure: it is taken again after that time.
    pub(crate) fn put_off(mut self, wait: Duration) {
        self.is_answered = true;
        let Inner { name, metrics, news, .. } = &*self.queue.0;
        let mut state = self.queue.0.state();
        state.schedule.put_off(&self.key, after(wait));
        metrics.show(name, state.schedule.counts());
        drop(state);
        news.notify_one();
    }

    /// It failed, and is tried again later, or is given up.
    pub(crate) async fn failed(mut self, error: &str) {
        self.is_answered = true;
        let Inner { name, metrics, .. } = &*self.queue.0;
        metrics.tried(name, false);
        let error: String = error.chars().take(MAX_REASON).collect();
        let random = rand::random_range(0.0..1.0);
        let mut is_dead = false;
        let kept = self
            .queue
            .answer(&self.key, |schedule| {
                let entry = schedule.failed(now(), &self.key, &error, random);
                is_dead = entry.as_ref().is_some_and(|entry| entry.dead);
                entry
            })
            .await;
        let (key, tries) = (&self.key, self.tries + 1);
        if is_dead {
            tracing::error!(queue = %name, key, tries, error, "a job is given up");
        } else {
            tracing::warn!(queue = %name, key, tries, error, "a job failed and is tried again");
        }
        self.log(kept);
    }

    fn log(&self, kept: Result<(), JournalError>) {
        if let Err(error) = kept {
            tracing::error!(queue = %self.queue.0.name, key = self.key, %error, "not kept what became of a job");
        }
    }
}

impl<J> Drop for Taken<J> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.queue.0.state().schedule.let_go(&self.key);
            self.queue.0.news.notify_one();
        }
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn after(wait: Duration) -> Millis {
    now().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// After how long an idle worker looks again: a clock that is set does not hold jobs up.
const IDLE: Duration = Duration::from_secs(10);
/// How many of the jobs that were given up are shown.
const MAX_SHOWN: usize = 20;
/// How much of the reason of a failure is kept, in characters.
const MAX_REASON: usize = 500;

#[cfg(test)]
mod tests;
