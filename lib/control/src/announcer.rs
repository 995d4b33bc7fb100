//! The task that keeps a node known to its tracker: it renews the lease, tells changes soon and in batches, sends
//! everything when the tracker asks for it, and says goodbye.
//!
//! Invariant: once a tracker answers and nothing changes any more, it knows exactly what the caller's snapshot says.
//! Nothing here waits for the tracker but the task itself: noting a change never blocks and never fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::{Digest, PeerAddress};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::changes::{Batch, Change, Changes};
use crate::error::{ControlError, Failure};
use crate::message::{AnnounceRequest, Announced, Holding};
use crate::tracker::{Announcement, TrackerClient};

/// Announces a node for as long as it lives. Dropped, it stops at once, and the lease runs out.
#[derive(Debug)]
pub struct Announcer {
    handle: AnnouncerHandle,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Tells the announcer what changed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnnouncerHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    changes: Mutex<Changes>,
    /// There is something to tell.
    changed: Notify,
    /// Whether the tracker knows all that was noted.
    settled: watch::Sender<bool>,
    /// Whether a tracker has taken an announce at all.
    taken: AtomicBool,
    /// The number of the latest revocation list that a tracker was heard of.
    revocations: watch::Sender<u64>,
}

/// What the task owns.
struct Task<S> {
    client: TrackerClient,
    address: PeerAddress,
    api: Option<String>,
    snapshot: Arc<S>,
    shared: Arc<Shared>,
    /// Which tracker took the last announce.
    tracker: Option<usize>,
    /// Announces that failed since the last that did not.
    failures: u32,
}

/// What to wait for before the next announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// A change, or the time to renew the lease.
    Renewal(Duration),
    /// Only the time: the last announce failed.
    Retry(Duration),
}

/// Between two announces at least: a burst of changes goes in one.
const MIN_GAP: Duration = Duration::from_millis(200);
/// No tracker makes a node wait longer: an hour is a mistake, not a lease.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// The first wait after a failure; doubled for each more.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest wait after failures: below the usual lease of 60 s, so that a tracker that is back knows all within it.
const MAX_RETRY: Duration = Duration::from_secs(15);
/// How long a node that shuts down waits for the tracker to hear its goodbye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

impl Announcer {
    /// Starts to announce the node at `address` (`api`: an origin's internal API), with everything first.
    ///
    /// `snapshot` says what the node has. It is called on a blocking thread whenever a tracker must be told everything; a
    /// change must be in it before it is noted here.
    pub fn start<S>(client: TrackerClient, address: PeerAddress, api: Option<String>, snapshot: S) -> Self
    where
        S: Fn() -> Vec<Holding> + Send + Sync + 'static,
    {
        let shared = Arc::new(Shared {
            changes: Mutex::new(Changes::Everything),
            changed: Notify::new(),
            settled: watch::Sender::new(false),
            taken: AtomicBool::new(false),
            revocations: watch::Sender::new(0),
        });
        let stop = CancellationToken::new();
        let task = Task {
            client,
            address,
            api,
            snapshot: Arc::new(snapshot),
            shared: Arc::clone(&shared),
            tracker: None,
            failures: 0,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(stop.clone())));
        Self { handle: AnnouncerHandle(shared), stop, task }
    }

    /// What others note changes with.
    #[must_use]
    pub fn handle(&self) -> AnnouncerHandle {
        self.handle.clone()
    }

    /// Stops, and says goodbye to the tracker if it answers within a second.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn std::error::Error, "announcer ended badly");
        }
    }
}

impl AnnouncerHandle {
    /// The node has this blob now, or more of it than before.
    pub fn added(&self, holding: Holding) {
        self.0.note(holding.digest, Change::Added { complete: holding.complete });
    }

    /// The node has this blob no more.
    pub fn removed(&self, digest: Digest) {
        self.0.note(digest, Change::Removed);
    }

    /// Whether a tracker has taken an announce of this node since it started; if not, why it is not ready.
    pub fn ready(&self) -> Result<(), String> {
        if self.0.taken.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("no tracker has taken an announce of this node yet".into())
    }

    /// The number of the latest revocation list that trackers were heard of; 0: none.
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.0.revocations.subscribe()
    }

    /// Waits until a tracker knows all that was noted before this call. It never ends while no tracker answers, so limit it.
    pub async fn settled(&self) {
        let mut settled = self.0.settled.subscribe();
        // The sender is in `self`.
        let _ = settled.wait_for(|&settled| settled).await;
    }
}

impl Shared {
    fn note(&self, digest: Digest, change: Change) {
        let mut changes = self.changes();
        changes.note(digest, change);
        self.settled.send_replace(false);
        drop(changes);
        self.changed.notify_one();
    }

    fn take(&self) -> Batch {
        self.changes().take(AnnounceRequest::MAX_CHANGES)
    }

    fn put_back(&self, batch: Batch) {
        self.changes().put_back(batch);
    }

    fn is_empty(&self) -> bool {
        self.changes().is_empty()
    }

    /// Notes that a tracker took what was taken last.
    fn settle(&self) {
        self.taken.store(true, Ordering::Relaxed);
        let changes = self.changes();
        self.settled.send_replace(changes.is_empty());
    }

    async fn wait_for_changes(&self) {
        while self.is_empty() {
            self.changed.notified().await;
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        // Each change is one call on the map: there is no half-done state that a panic could leave.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Task<S>
where
    S: Fn() -> Vec<Holding> + Send + Sync + 'static,
{
    async fn run(mut self, stop: CancellationToken) {
        let announces = async {
            loop {
                let pause = self.round().await;
                self.wait(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = announces => {}
        }
        match timeout(LEAVE_TIMEOUT, self.client.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(error = &error as &dyn std::error::Error, "left without a goodbye");
            }
            Err(_) => tracing::info!("left without a goodbye: no tracker answered in time"),
        }
    }

    /// Announces what there is to tell.
    async fn round(&mut self) -> Pause {
        let batch = self.shared.take();
        let outcome = match &batch {
            Batch::Everything => self.announce_everything().await,
            Batch::Changes { added, removed } => self.announce(added, removed, false).await,
        };
        match outcome {
            Ok(interval) => {
                self.failures = 0;
                self.shared.settle();
                Pause::Renewal(spread(interval))
            }
            Err(error) => {
                self.shared.put_back(batch);
                self.failures = self.failures.saturating_add(1);
                let retry = spread(backoff(self.failures));
                let cause = &error as &dyn std::error::Error;
                if is_alone(&error) {
                    tracing::debug!("no tracker is known to announce this node to");
                } else {
                    tracing::warn!(error = cause, failures = self.failures, ?retry, "announce failed");
                }
                Pause::Retry(retry)
            }
        }
    }

    /// Everything, in as many requests as it takes: the first replaces what the tracker knew, the others add to it.
    async fn announce_everything(&mut self) -> Result<Duration, ControlError> {
        let holdings = self.holdings().await;
        let (first, rest) = holdings.split_at(holdings.len().min(AnnounceRequest::MAX_CHANGES));
        let mut interval = self.announce(first, &[], true).await?;
        for more in rest.chunks(AnnounceRequest::MAX_CHANGES) {
            interval = self.announce(more, &[], false).await?;
        }
        Ok(interval)
    }

    async fn holdings(&self) -> Vec<Holding> {
        let snapshot = Arc::clone(&self.snapshot);
        let taken = tokio::task::spawn_blocking(move || snapshot()).await;
        taken.unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "no snapshot of what is held");
            Vec::new()
        })
    }

    async fn announce(
        &mut self,
        added: &[Holding],
        removed: &[Digest],
        everything: bool,
    ) -> Result<Duration, ControlError> {
        let api = self.api.as_deref();
        let announcement = Announcement { address: &self.address, api, added, removed, everything };
        let (Announced { interval_ms, send_all, revocations }, tracker) =
            self.client.announce_somewhere(announcement).await?;
        self.shared.revocations.send_if_modified(|known| {
            let is_news = *known != revocations;
            *known = revocations;
            is_news
        });
        // Another tracker, even one that remembers this node, has missed what the last one was told.
        let moved = self.tracker.replace(tracker) != Some(tracker);
        if (send_all || moved) && !everything {
            self.shared.put_back(Batch::Everything);
        }
        Ok(Duration::from_millis(interval_ms).clamp(MIN_GAP, MAX_INTERVAL))
    }

    async fn wait(&self, pause: Pause) {
        match pause {
            Pause::Retry(retry) => sleep(retry).await,
            Pause::Renewal(interval) => {
                sleep(MIN_GAP).await;
                // Time to renew, or something to tell: an announce follows either way.
                let _ = timeout(interval.saturating_sub(MIN_GAP), self.shared.wait_for_changes()).await;
            }
        }
    }
}

/// Whether no tracker is known, which is how it was configured, and may change.
fn is_alone(error: &ControlError) -> bool {
    matches!(error, ControlError::Unavailable { source: Failure::NoServer, .. })
}

/// Twice as long for each failure, up to [`MAX_RETRY`].
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    (FIRST_RETRY * (1 << doublings)).min(MAX_RETRY)
}

/// Somewhat less, by chance: nodes that started (or lost their tracker) together do not come back together.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_and_stay_below_the_lease() {
        let waits: Vec<u64> = (1..8).map(|failures| backoff(failures).as_millis() as u64).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!(backoff(u32::MAX), MAX_RETRY);
    }
}
