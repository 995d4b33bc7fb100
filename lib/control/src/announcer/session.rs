//! What a node and one tracker have to do with each other.

use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Digest, PeerAddress};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use super::Shared;
use super::book::{Book, Selection, What, backoff};
use crate::error::{ControlError, Failure};
use crate::message::{AnnounceRequest, Announced, Holding};
use crate::tracker::Announcement;

/// Tells one tracker what the book says, and renews the lease there.
pub(super) struct Session<S> {
    place: usize,
    shared: Arc<Shared>,
    node: Node,
    snapshot: Snapshot<S>,
    /// Which server took the last announce, if any of several can.
    server: Option<usize>,
    /// How often it wants to hear of this node.
    interval: Duration,
}

/// Where this node is, and an origin's internal API.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) address: watch::Receiver<PeerAddress>,
    pub(super) api: Option<Arc<str>>,
}

/// What the node has. One is taken at a time, whatever the number of trackers: that of a large store has some MB.
pub(super) struct Snapshot<S> {
    take: Arc<S>,
    place: Arc<Semaphore>,
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

impl<S> Session<S>
where
    S: Fn() -> Vec<Holding> + Send + Sync + 'static,
{
    pub(super) fn new(place: usize, shared: Arc<Shared>, node: Node, snapshot: Snapshot<S>) -> Self {
        Self { place, shared, node, snapshot, server: None, interval: MAX_INTERVAL }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.shared.wait_until(self.place, |book| book.is_active(self.place)).await;
            let pause = self.round().await;
            self.wait(pause).await;
        }
    }

    /// Announces what there is to tell.
    async fn round(&mut self) -> Pause {
        let errand = self.shared.take(self.place);
        let outcome = match &errand.what {
            What::Everything(selection) => self.announce_all(&[], &[], selection, true).await,
            What::More { selection, added, removed } => {
                self.announce_all(added, removed, selection, false).await
            }
            What::Changes { added, removed } => self.announce(added, removed, false).await,
        };
        match outcome {
            Ok((announced, server)) => {
                // Another tracker, even one that remembers this node, has missed what the last one was told.
                let moved = self.server.replace(server) != Some(server);
                self.shared.note_orders(server, &announced);
                self.shared.settle(self.place, &errand, &announced, moved);
                self.interval = Duration::from_millis(announced.interval_ms).clamp(MIN_GAP, MAX_INTERVAL);
                Pause::Renewal(spread(self.interval))
            }
            Err(error) => {
                let failures = self.shared.put_back(self.place, errand);
                // Back for one interval, it knows all.
                let retry = spread(backoff(failures).min(self.interval));
                let cause = &error as &dyn std::error::Error;
                if is_alone(&error) {
                    tracing::debug!("no tracker is known to announce this node to");
                } else {
                    tracing::warn!(error = cause, failures, ?retry, "announce failed");
                }
                Pause::Retry(retry)
            }
        }
    }

    /// Those of all holdings after these changes, in as many requests as it takes: the first may replace what the tracker knew,
    /// the others add to it.
    async fn announce_all(
        &self,
        added: &[Holding],
        removed: &[Digest],
        selection: &Selection,
        everything: bool,
    ) -> Result<(Announced, usize), ControlError> {
        let holdings = [added, &self.snapshot.take(selection.clone()).await].concat();
        let room = AnnounceRequest::MAX_CHANGES - removed.len();
        let (first, rest) = holdings.split_at(holdings.len().min(room));
        let mut answer = self.announce(first, removed, everything).await?;
        for more in rest.chunks(AnnounceRequest::MAX_CHANGES) {
            let (send_all, server) = (answer.0.send_all, answer.1);
            answer = self.announce(more, &[], false).await?;
            answer.0.send_all |= send_all || answer.1 != server;
        }
        Ok(answer)
    }

    async fn announce(
        &self,
        added: &[Holding],
        removed: &[Digest],
        everything: bool,
    ) -> Result<(Announced, usize), ControlError> {
        let Node { address, api } = &self.node;
        let address = address.borrow().clone();
        let announcement =
            Announcement { address: &address, api: api.as_deref(), added, removed, everything };
        self.shared.client.announce_at(self.place, announcement).await
    }

    async fn wait(&mut self, pause: Pause) {
        match pause {
            Pause::Retry(retry) => sleep(retry).await,
            Pause::Renewal(interval) => {
                sleep(MIN_GAP).await;
                // Time to renew, something to tell, or another address: an announce follows in any case.
                let something = self.shared.wait_until(self.place, |book: &Book| book.owes(self.place));
                tokio::select! {
                    () = sleep(interval.saturating_sub(MIN_GAP)) => {}
                    () = something => {}
                    Ok(()) = self.node.address.changed() => {}
                }
            }
        }
    }
}

impl<S> Snapshot<S>
where
    S: Fn() -> Vec<Holding> + Send + Sync + 'static,
{
    pub(super) fn new(take: S) -> Self {
        Self { take: Arc::new(take), place: Arc::new(Semaphore::new(1)) }
    }

    async fn take(&self, selection: Selection) -> Vec<Holding> {
        let _place = self.place.acquire().await;
        let take = Arc::clone(&self.take);
        let some = move || {
            let mut holdings = take();
            holdings.retain(|holding| selection.has(&holding.digest));
            holdings.shrink_to_fit();
            holdings
        };
        let taken = tokio::task::spawn_blocking(some).await;
        taken.unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "no snapshot of what is held");
            Vec::new()
        })
    }
}

impl<S> Clone for Snapshot<S> {
    fn clone(&self) -> Self {
        Self { take: Arc::clone(&self.take), place: Arc::clone(&self.place) }
    }
}

/// Whether no tracker is known, which is how it was configured, and may change.
fn is_alone(error: &ControlError) -> bool {
    matches!(error, ControlError::Unavailable { source: Failure::NoServer, .. })
}

/// Somewhat less, by chance: nodes that started (or lost their tracker) together do not come back together.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.75..=1.0))
}
