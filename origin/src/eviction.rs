//! Gives up blobs of this origin that a backend has, where room is short.
//!
//! Safe is what a backend says at that moment that it has, with the right length: no memory of what was written once, no list
//! of what waits. What is not there stays, whatever the room. Pins are the store's: what is read is not given up.

mod config;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use lru::LruCache;
use prometheus::IntGauge;
use shoal_core::{Digest, causes};
use shoal_store::{IdleBlob, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::EvictionConfig;
use crate::backend::Backends;

/// What gives up. Clones are one.
#[derive(Clone)]
pub(crate) struct Eviction(Arc<Inner>);

struct Inner {
    config: EvictionConfig,
    store: Store,
    backends: Backends,
    /// What the backends said of a blob, and when: for what may be wrong for a while.
    said: Mutex<LruCache<Digest, (bool, Instant)>>,
    unsafe_blobs: IntGauge,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How full the disk is. All in bytes.
#[derive(Clone, Copy, Debug)]
struct Levels {
    used: u64,
    capacity: u64,
    high: u64,
    low: u64,
    available: u64,
    min_free: u64,
}

impl Levels {
    /// How much is to go.
    fn excess(&self) -> u64 {
        let Self { used, capacity, high, low, available, min_free } = *self;
        let over = if used > high.min(capacity) { used.saturating_sub(low) } else { 0 };
        over.max(min_free.saturating_sub(available))
    }
}

impl std::fmt::Debug for Eviction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eviction").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Eviction {
    pub(crate) fn new(
        config: EvictionConfig,
        store: Store,
        backends: Backends,
        registry: &prometheus::Registry,
    ) -> prometheus::Result<Self> {
        let unsafe_blobs = IntGauge::new(
            "shoal_origin_eviction_unsafe_blobs",
            "Blobs that stayed though room is short, as no backend has them, when it was looked last",
        )?;
        registry.register(Box::new(unsafe_blobs.clone()))?;
        Ok(Self(Arc::new(Inner {
            config,
            store,
            backends,
            said: Mutex::new(LruCache::new(MAX_SAID)),
            unsafe_blobs,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })))
    }

    pub(crate) fn start(&self) {
        let (eviction, stop) = (self.clone(), self.0.stop.clone());
        self.0.tasks.spawn(async move {
            let rounds = async {
                loop {
                    eviction.round().await;
                    tokio::time::sleep(eviction.0.config.interval).await;
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = rounds => {}
            }
        });
    }

    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Whether a backend has the blob, or had it a while ago.
    pub(crate) async fn is_kept(&self, digest: Digest, length: u64) -> bool {
        if self.recall(&digest) == Some(true) {
            return true;
        }
        let kept = self.0.backends.have(&digest, length).await;
        self.said().put(digest, (kept, Instant::now()));
        kept
    }

    /// Looks how full the disk is, and gives up what has to go and may.
    async fn round(&self) {
        let levels = match self.levels().await {
            Ok(levels) => levels,
            Err(error) => {
                tracing::warn!(error = causes(&error), "cannot see how full the store's file system is");
                return;
            }
        };
        let excess = levels.excess();
        if excess == 0 {
            return;
        }
        let (mut freed, mut count, mut kept, mut looks) = (0_u64, 0, 0, 0);
        for blob in self.0.store.idle() {
            if freed >= excess || looks >= LOOKS_A_ROUND || !self.is_old(&blob) {
                break;
            }
            // That it is not there is believed for a while; that it is, never.
            if self.recall(&blob.digest) == Some(false) {
                kept += 1;
                continue;
            }
            looks += 1;
            if self.0.backends.have(&blob.digest, blob.length).await {
                let gone = self.0.store.evict(&blob.digest).await;
                (freed, count) = (freed + gone, count + u64::from(gone > 0));
            } else {
                self.said().put(blob.digest, (false, Instant::now()));
                kept += 1;
            }
        }
        self.0.unsafe_blobs.set(kept);
        if count > 0 {
            tracing::info!(count, freed, "gave up blobs that a backend has");
        }
        if freed < excess {
            let missing = excess - freed;
            tracing::warn!(
                missing,
                kept,
                "room is short, and no more may be given up: see the queue write-back"
            );
        }
    }

    async fn levels(&self) -> Result<Levels, shoal_store::DiskError> {
        let EvictionConfig { capacity, high_watermark, low_watermark, min_free, .. } = &self.0.config;
        let (size, available) = self.0.store.file_system().await?;
        let capacity = capacity.of(size);
        Ok(Levels {
            used: self.0.store.bytes(),
            capacity,
            high: high_watermark.of(capacity),
            low: low_watermark.of(capacity),
            available,
            min_free: min_free.of(size),
        })
    }

    fn is_old(&self, blob: &IdleBlob) -> bool {
        let idle = SystemTime::now().duration_since(blob.last_used).unwrap_or_default();
        idle >= self.0.config.min_idle
    }

    fn recall(&self, digest: &Digest) -> Option<bool> {
        let mut said = self.said();
        let &(is_there, at) = said.get(digest)?;
        (at.elapsed() < self.0.config.interval.saturating_mul(SAID_FOR)).then_some(is_there)
    }

    fn said(&self) -> MutexGuard<'_, LruCache<Digest, (bool, Instant)>> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About 10 MiB when full.
const MAX_SAID: std::num::NonZeroUsize = std::num::NonZeroUsize::new(65_536).expect("not zero");
/// For how many intervals that is believed. A blob that waits to be written is, most often, written by then.
const SAID_FOR: u32 = 10;
/// How many blobs the backends are asked for in one round: some ten seconds of an object store.
const LOOKS_A_ROUND: usize = 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What goes is enough for both limits, no more, and nothing while both hold.
        #[test]
        fn what_goes_is_what_is_too_much(used in 0u64..200, high in 0u64..=100, below in 0u64..=100, available in 0u64..100, min_free in 0u64..100) {
            let low = high.saturating_sub(below);
            let levels = Levels { used, capacity: 100, high, low, available, min_free };
            let excess = levels.excess();
            prop_assert!(used <= high || used - excess.min(used) <= low);
            prop_assert!(available + excess >= min_free);
            prop_assert!(excess <= used.saturating_sub(low).max(min_free.saturating_sub(available)));
            prop_assert!(excess == 0 || used > high || available < min_free);
        }
    }
}
