//! Finds that wait until there is somebody new to name: who waits for which blob, and who rings.
//!
//! A find that waits holds a place and nothing else; when it ends, however it ends, the place is free. Rung, it looks again
//! for itself. Beyond the limits nobody waits: the answer comes at once, and the asker asks again as it would without.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::{Digest, PeerId, Role};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::state::{Announce, State};

/// Who waits.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    table: Mutex<Table>,
    /// The same as the table has, for whoever only wants to know whether there are any.
    count: AtomicUsize,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    blobs: HashMap<Digest, Bell>,
    nodes: HashMap<PeerId, usize>,
}

/// Rings those who wait for one blob.
#[derive(Debug, Default)]
struct Bell {
    notify: Arc<Notify>,
    waiting: usize,
}

/// Who may be new to those who wait, by what it says.
pub(crate) struct Newcomer {
    id: PeerId,
    is_origin: bool,
    added: Vec<Digest>,
}

/// A place of one find. Dropped, it is free.
struct Place<'a> {
    waits: &'a Waits,
    node: PeerId,
    digest: Digest,
    bell: Arc<Notify>,
}

impl Waits {
    /// Finds that may wait at a time: each agent of a large cluster one, at some KiB of its connection.
    pub(crate) const MAX: usize = 16_384;
    /// Finds of one node that may wait at a time: half of the requests that its connection carries, so that others get through.
    pub(crate) const MAX_OF_NODE: usize = 64;

    /// Waits until `look` says yes, or `wait` is over. It looks before the first wait, and whenever somebody rings.
    pub(crate) async fn until(&self, node: PeerId, digest: Digest, wait: Duration, look: impl Fn() -> bool) {
        let deadline = Instant::now() + wait;
        let Some(place) = self.take_place(node, digest) else { return };
        loop {
            // From here on no ring is lost.
            let rung = place.bell.notified();
            if self.closed.load(Ordering::Acquire) || look() || timeout_at(deadline, rung).await.is_err() {
                return;
            }
        }
    }

    /// Lets a node's word change the state, and rings those to whom it is news.
    pub(crate) fn tell<T>(
        &self,
        state: &Mutex<State>,
        newcomer: Newcomer,
        change: impl FnOnce(&mut State) -> T,
    ) -> T {
        let (outcome, is_news, may_have_any) = {
            let mut state = crate::api::lock(state);
            let now = Instant::now().into_std();
            let may_have_any = newcomer.is_origin || state.is_removed(now, &newcomer.id);
            let before = state.arrivals();
            let outcome = change(&mut state);
            (outcome, state.arrivals() > before, may_have_any)
        };
        match (is_news, may_have_any) {
            (true, true) => self.ring_all(),
            (true, false) => self.ring(newcomer.added),
            (false, _) => {}
        }
        outcome
    }

    /// Somebody came to these blobs.
    pub(crate) fn ring(&self, digests: impl IntoIterator<Item = Digest>) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let table = self.table();
        for digest in digests {
            if let Some(bell) = table.blobs.get(&digest) {
                bell.notify.notify_waiters();
            }
        }
    }

    /// Somebody came who may have any blob.
    fn ring_all(&self) {
        self.table().blobs.values().for_each(|bell| bell.notify.notify_waiters());
    }

    /// Nobody waits any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ring_all();
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn take_place(&self, node: PeerId, digest: Digest) -> Option<Place<'_>> {
        let mut table = self.table();
        let of_node = table.nodes.get(&node).copied().unwrap_or(0);
        if of_node >= Self::MAX_OF_NODE || self.count() >= Self::MAX {
            return None;
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        table.nodes.insert(node, of_node + 1);
        let bell = table.blobs.entry(digest).or_default();
        bell.waiting += 1;
        Some(Place { waits: self, node, digest, bell: Arc::clone(&bell.notify) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each use leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    pub(crate) fn of(announce: &Announce) -> Self {
        let added = announce.added.iter().map(|holding| holding.digest).collect();
        Self { id: announce.address.id, is_origin: announce.address.role == Role::Origin, added }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.waits.table();
        if let Some(bell) = table.blobs.get_mut(&self.digest) {
            bell.waiting -= 1;
            if bell.waiting == 0 {
                table.blobs.remove(&self.digest);
            }
        }
        if let Some(count) = table.nodes.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                table.nodes.remove(&self.node);
            }
        }
        self.waits.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn node(number: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        PeerId::from_public_key(key)
    }

    fn blob(number: u8) -> Digest {
        Digest::Sha256([number; 32])
    }

    #[tokio::test]
    async fn a_ring_makes_those_look_again_who_wait_for_that_blob() {
        let (waits, is_news) = (Waits::default(), AtomicBool::new(false));
        let look = || is_news.load(Ordering::Relaxed);
        let mut wait = pin!(waits.until(node(1), blob(1), LONG, look));
        assert!(wait.as_mut().now_or_never().is_none());
        waits.ring([blob(1)]);
        assert!(wait.as_mut().now_or_never().is_none(), "rung, and nothing is new for it");
        is_news.store(true, Ordering::Relaxed);
        waits.ring([blob(2)]);
        assert!(wait.as_mut().now_or_never().is_none(), "another blob");
        waits.ring([blob(2), blob(1)]);
        wait.await;
        assert_eq!(waits.count(), 0);
        assert!(waits.table().blobs.is_empty() && waits.table().nodes.is_empty());
    }

    #[tokio::test]
    async fn who_goes_away_leaves_nothing_behind() {
        let waits = Waits::default();
        {
            let mut wait = pin!(waits.until(node(1), blob(1), LONG, || false));
            assert!(wait.as_mut().now_or_never().is_none());
            assert_eq!(waits.count(), 1);
        }
        assert_eq!(waits.count(), 0);
        assert!(waits.table().blobs.is_empty() && waits.table().nodes.is_empty());
    }

    #[tokio::test]
    async fn beyond_the_limits_nobody_waits() {
        let waits = Waits::default();
        let mut places = Vec::new();
        for _ in 0..Waits::MAX_OF_NODE {
            places.push(waits.take_place(node(0), blob(1)).unwrap());
        }
        waits.until(node(0), blob(2), LONG, || false).await;
        for number in Waits::MAX_OF_NODE..Waits::MAX {
            places.push(waits.take_place(node(number as u16), blob(1)).unwrap());
        }
        waits.until(node(u16::MAX), blob(1), LONG, || false).await;
        drop(places);
        assert_eq!(waits.count(), 0);
    }

    #[tokio::test]
    async fn a_tracker_that_stops_answers_those_who_wait() {
        let waits = Waits::default();
        let mut wait = pin!(waits.until(node(1), blob(1), LONG, || false));
        assert!(wait.as_mut().now_or_never().is_none());
        waits.close();
        wait.await;
        waits.until(node(1), blob(1), LONG, || false).await;
    }
}
