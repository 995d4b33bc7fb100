//! What is pushed is written to the backends, after it was acknowledged and without fail; and what an origin lost is had
//! again from there.
//!
//! Every origin that keeps a link or a tag has a job for it in its queue before that is acknowledged. So a job is lost only
//! with as many origins as the link itself. The first in the order of what is linked does its job at once, the others look
//! later whether it is done. A job names what changed and not how: whoever does it looks how it is by then.
//! Blobs are written before their links, the links of a manifest's parts before its own, that before its tags.

mod backfill;
mod config;
mod job;
mod restore;
mod restored;
mod tag_object;
mod work;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lru::LruCache;
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{TransferError, Transferer};
use shoal_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::WriteBackConfig;
use self::job::Job;
pub(crate) use self::restored::RestoredTransferer;
use crate::backend::{Backends, Key};
use crate::queue::{Backoff, Journal, JournalError, Order, Queue, QueueMetrics, QueueOptions, Shown};
use crate::records::{Changed, Follower, Records, name_of};

/// What is to be written to the backends, and had again from there. Clones are one.
#[derive(Clone)]
pub(crate) struct WriteBack(Arc<Inner>);

struct Inner {
    config: WriteBackConfig,
    backends: Backends,
    records: Arc<Records>,
    store: Store,
    queue: Queue<Job>,
    /// Objects of links that were seen at their backend, by its name and their path: so that not every manifest asks for the
    /// same base layers again.
    seen: std::sync::Mutex<LruCache<(String, String), ()>>,
    /// Whether this origin has all links and tags that the backends have.
    is_restored: watch::Sender<bool>,
    cluster: std::sync::OnceLock<Peers>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The rest of the origins, as far as it is needed here.
pub(crate) struct Peers {
    /// Where bytes come from that are not in this store.
    pub(crate) transferer: Arc<dyn Transferer>,
    /// How many others that are well come before this origin in a blob's order.
    pub(crate) rank: Box<dyn Fn(&Digest) -> usize + Send + Sync>,
    /// Whether it has no others: its tags are then written without ballots.
    pub(crate) alone: bool,
}

impl WriteBack {
    /// Takes up what the queue still holds, and follows what changes from now on.
    pub(crate) fn open(
        config: WriteBackConfig,
        backends: Backends,
        (records, store): (Arc<Records>, Store),
        (journal, metrics): (&Journal, &QueueMetrics),
    ) -> Result<Self, JournalError> {
        let options = QueueOptions {
            name: "write-back".into(),
            order: Order::Any,
            backoff: Backoff { first: config.retry, longest: config.longest_retry, tries: config.tries },
            limit: config.queue.max(1),
        };
        let queue = Queue::open(journal, options, metrics.clone())?;
        let write_back = Self(Arc::new(Inner {
            config,
            backends,
            records: records.clone(),
            store,
            queue,
            seen: std::sync::Mutex::new(LruCache::new(MAX_SEEN)),
            is_restored: watch::Sender::new(false),
            cluster: std::sync::OnceLock::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        records.followed_by(Arc::new(write_back.clone()));
        Ok(write_back)
    }

    /// Begins to work.
    pub(crate) fn start(&self, peers: Peers) {
        // The first to say it counts.
        let _ = self.0.cluster.set(peers);
        for _ in 0..self.0.config.uploads_at_once.clamp(1, MAX_AT_ONCE) {
            self.0.tasks.spawn(self.clone().work());
        }
        let (write_back, stop) = (self.clone(), self.0.stop.clone());
        self.0.tasks.spawn(async move {
            let both = async {
                write_back.restore_all().await;
                write_back.fill().await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = both => {}
            }
        });
    }

    /// Ends the work; what is not written stays in the queue.
    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn queue(&self) -> Box<dyn Shown> {
        Box::new(self.0.queue.clone())
    }

    async fn add(&self, job: Job) -> Result<(), TransferError> {
        let wait = match self.0.cluster.get() {
            Some(peers) => {
                let rank = u32::try_from((peers.rank)(&job.place())).unwrap_or(u32::MAX);
                self.0.config.takeover.saturating_mul(rank)
            }
            None => Duration::ZERO,
        };
        let added = self.0.queue.add_after(&job.key(), job, wait).await;
        added.map_err(|error| TransferError::Unavailable(format!("not to be written back: {error}")))
    }

    fn peers(&self) -> Result<&Peers, TransferError> {
        self.0.cluster.get().ok_or_else(|| TransferError::Unavailable("the origin starts".to_owned()))
    }

    fn is_written(&self, repository: &RepositoryName) -> bool {
        self.0.backends.of(repository).is_some()
    }

    fn has_seen(&self, backend: &str, key: &Key) -> bool {
        self.seen().get(&(backend.to_owned(), key.path())).is_some()
    }

    fn saw(&self, backend: &str, key: &Key) {
        self.seen().put((backend.to_owned(), key.path()), ());
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, LruCache<(String, String), ()>> {
        self.0.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Follower for WriteBack {
    async fn changed(&self, what: Changed<'_>) -> Result<(), TransferError> {
        let job = match what {
            Changed::Link(link) => Job::Link(name_of(link)),
            Changed::Tag(name) => Job::Tag(name.clone()),
        };
        if self.is_written(job.repository()) { self.add(job).await } else { Ok(()) }
    }
}

impl std::fmt::Debug for WriteBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBack").field("queue", &self.0.queue.status()).finish_non_exhaustive()
    }
}

/// About 4 MiB when full; the parts of some hundred images that are pushed at the same time.
const MAX_SEEN: std::num::NonZeroUsize = std::num::NonZeroUsize::new(16_384).expect("not zero");
/// Each has three parts of a blob in memory, at 8 MiB or more.
const MAX_AT_ONCE: usize = 64;
