//! Who may come in and who has to go: the limits of a store, and the carrying out of what `eviction` decides.
//!
//! Whoever brings bytes asks first, and holds a [`Reservation`] until the entry is in the index; so what is in and what is
//! promised is never more than the capacity. A task of its own gives blobs up above the high watermark, so that most
//! who ask need not wait. A crash while an entry is removed leaves it whole, or a leftover that recovery removes; a blob is
//! removed without a sync, since one that comes back is as good as it was.
//!
//! A store without limits keeps all blobs; it gives up only idle partials, when there are too many to hold open.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use shoal_core::Digest;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::config::{CacheConfig, Percent, Room, Verify};
use crate::directory::{Directory, locked};
use crate::disk::{self, DiskError, blocking};
use crate::eviction::{Candidate, Kind, Levels, NoRoom, choose};
use crate::index::{Entry, Index, IndexFull, Reservation};
use crate::metrics::Counters;
use crate::progress::Gone;
use crate::usage::Clock;

/// What all handles of one store share.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) directory: Arc<Directory>,
    pub(crate) index: Arc<Index>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) verify: Verify,
    pub(crate) counters: Counters,
    cache: Option<Cache>,
}

/// What a store has that gives blobs up.
#[derive(Debug)]
struct Cache {
    limits: Limits,
    evicted: mpsc::Sender<Digest>,
    /// Who needs room makes it alone, or two would give up twice as much as both need.
    admission: Mutex<()>,
    /// It got fuller than the high watermark.
    crowded: Arc<Notify>,
    keeper: Mutex<Option<AbortHandle>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    capacity: Room,
    high: Percent,
    low: Percent,
    min_free: Room,
}

/// What a store gave up, in that order.
///
/// While more than some hundred are not taken, whoever needs room waits.
#[derive(Debug)]
pub struct Evictions(mpsc::Receiver<Digest>);

/// Why nothing more is taken in.
#[derive(Debug)]
pub(crate) enum Refusal {
    NoRoom(NoRoom),
    Full(IndexFull),
    Disk(DiskError),
}

impl Evictions {
    /// The next; `None` once the store is gone.
    pub async fn next(&mut self) -> Option<Digest> {
        self.0.recv().await
    }
}

impl Space {
    pub(crate) fn unlimited(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            index: Arc::default(),
            clock: Arc::default(),
            verify: Verify::Full,
            counters: Counters::default(),
            cache: None,
        }
    }

    pub(crate) fn limited(directory: Arc<Directory>, config: &CacheConfig) -> (Self, Evictions) {
        let (evicted, evictions) = mpsc::channel(UNHEARD_EVICTIONS);
        let CacheConfig { capacity, high_watermark: high, low_watermark: low, min_free, verify, .. } =
            *config;
        let cache = Cache {
            limits: Limits { capacity, high, low, min_free },
            evicted,
            admission: Mutex::default(),
            crowded: Arc::default(),
            keeper: Mutex::default(),
        };
        (Self { verify, cache: Some(cache), ..Self::unlimited(directory) }, Evictions(evictions))
    }

    /// Begins to give up in the background what is too much.
    pub(crate) fn keep(self: &Arc<Self>) {
        if let Some(cache) = &self.cache {
            let keeper = tokio::spawn(keep(Arc::downgrade(self), cache.crowded.clone()));
            *locked(&cache.keeper) = Some(keeper.abort_handle());
        }
    }

    /// Whether what is lost here can be had again.
    pub(crate) fn is_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// The capacity in bytes, of a store that has one.
    pub(crate) fn capacity(&self) -> Option<u64> {
        let cache = self.cache.as_ref()?;
        self.levels(&cache.limits).ok().map(|levels| levels.capacity)
    }

    /// Promises room for an entry. Others may be given up for it: call it without a change under way. Blocks.
    pub(crate) fn admit(&self, length: u64, kind: Kind) -> Result<Reservation, Refusal> {
        let admitted = self.make_place(kind).and_then(|()| self.make_room(length));
        if admitted.is_err() {
            self.counters.refusals.inc();
        }
        admitted
    }

    /// Whether an entry of that length would come in now, others given up for it if need be. Blocks.
    pub(crate) fn has_room(&self, length: u64) -> bool {
        let Some(cache) = &self.cache else { return true };
        // Whoever brings it hears of what is wrong with the disk.
        let Ok(levels) = self.levels(&cache.limits) else { return true };
        levels.admits(length) || levels.admit(length, self.index.candidates(), self.clock.tick()).is_ok()
    }

    /// The disk is full, whatever it said of itself: gives up as much as is needed. Says whether that was anything.
    pub(crate) fn relieve(&self, length: u64) -> bool {
        let Some(cache) = &self.cache else { return false };
        let _one_at_a_time = locked(&cache.admission);
        let victims = choose(self.index.candidates(), length.max(MIN_RELIEF), self.clock.tick());
        self.evict_all(&victims) > 0
    }

    /// The number of entries is limited too, apart from their bytes.
    fn make_place(&self, kind: Kind) -> Result<(), Refusal> {
        for _ in 0..ROUNDS {
            let Err(full) = self.index.check_room(kind) else { return Ok(()) };
            let may_go = |candidate: &Candidate| match candidate.kind {
                // Nobody fetches it, nobody reads it: what it has can be fetched again.
                Kind::Partial => true,
                Kind::Blob => self.cache.is_some() && !full.is_of_partials,
            };
            let idle = self.index.candidates().into_iter().filter(may_go);
            let Some(victim) = idle.min_by_key(|candidate| candidate.last_used) else {
                return Err(Refusal::Full(full));
            };
            self.evict(&victim.digest);
        }
        self.index.check_room(kind).map_err(Refusal::Full)
    }

    fn make_room(&self, length: u64) -> Result<Reservation, Refusal> {
        let Some(cache) = &self.cache else { return Ok(self.index.reserve(length)) };
        let levels = self.levels(&cache.limits).map_err(Refusal::Disk)?;
        if let Some(room) = self.try_admit(levels, length) {
            self.wake_keeper(cache, &levels, length);
            return Ok(room);
        }
        let _one_at_a_time = locked(&cache.admission);
        for _ in 0..ROUNDS {
            let levels = self.levels(&cache.limits).map_err(Refusal::Disk)?;
            if let Some(room) = self.try_admit(levels, length) {
                self.wake_keeper(cache, &levels, length);
                return Ok(room);
            }
            let victims = levels.admit(length, self.index.candidates(), self.clock.tick());
            self.evict_all(&victims.map_err(Refusal::NoRoom)?);
        }
        let capacity = self.levels(&cache.limits).map_err(Refusal::Disk)?.capacity;
        Err(Refusal::NoRoom(NoRoom::InUse { length, capacity, evictable: 0 }))
    }

    fn try_admit(&self, levels: Levels, length: u64) -> Option<Reservation> {
        if levels.admits(length) { self.index.try_reserve(length, levels.capacity) } else { None }
    }

    fn wake_keeper(&self, cache: &Cache, before: &Levels, length: u64) {
        if before.used.saturating_add(length) > before.high {
            cache.crowded.notify_one();
        }
    }

    fn levels(&self, limits: &Limits) -> Result<Levels, DiskError> {
        let disk = disk::file_system(self.directory.layout().root())?;
        let (used, reserved) = self.index.used();
        let capacity = limits.capacity.of(disk.size);
        Ok(Levels {
            used,
            capacity,
            high: limits.high.of(capacity),
            low: limits.low.of(capacity),
            available: disk.available.saturating_sub(reserved),
            min_free: limits.min_free.of(disk.size),
        })
    }

    fn trim(&self, cache: &Cache) {
        match self.levels(&cache.limits) {
            Ok(levels) => {
                let victims = levels.rest(self.index.candidates(), self.clock.tick());
                self.evict_all(&victims);
            }
            Err(error) => {
                tracing::warn!(error = error.describe(), "cannot see how full the store's file system is");
            }
        }
    }

    /// How many bytes went.
    fn evict_all(&self, victims: &[Candidate]) -> u64 {
        victims.iter().map(|victim| self.evict(&victim.digest)).sum()
    }

    /// Gives an entry up, unless somebody began to use it. How many bytes went.
    pub(crate) fn evict(&self, digest: &Digest) -> u64 {
        let Some(length) = self.take_out(digest) else { return 0 };
        if let Some(cache) = &self.cache {
            // An error means that nobody wants to know.
            let _ = cache.evicted.blocking_send(*digest);
        }
        length
    }

    fn take_out(&self, digest: &Digest) -> Option<u64> {
        let _change = self.directory.change(digest).ok()?;
        let entry = self.index.find(digest)?;
        if !entry.claim() {
            return None;
        }
        self.index.remove(digest);
        let removed = match &entry {
            Entry::Whole(_) => self.directory.remove_blob(digest),
            Entry::Partial(partial) => {
                partial.0.progress.send_if_modified(|progress| progress.end(Gone::Deleted));
                self.directory.remove_partial(digest)
            }
        };
        if let Err(error) = removed {
            // It is not served any more, and the next start finds it again.
            tracing::error!(%digest, error = error.describe(), "an evicted blob stays on disk until the next start");
            return Some(0);
        }
        let (kind, length) = (entry.kind(), entry.length());
        self.counters.evicted(kind, length);
        tracing::debug!(%digest, ?kind, length, "evicted");
        Some(length)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(keeper) = locked(&self.keeper).take() {
            keeper.abort();
        }
    }
}

/// Holds the store only while it works, so that a waiting task keeps no store open.
async fn keep(space: Weak<Space>, crowded: Arc<Notify>) {
    while let Some(space) = space.upgrade() {
        let trimmed = blocking(move || {
            if let Some(cache) = &space.cache {
                space.trim(cache);
            }
        });
        trimmed.await;
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            () = crowded.notified() => {}
        }
    }
}

/// Evictions that wait to be heard of: as many as a tracker is told in a moment.
const UNHEARD_EVICTIONS: usize = 256;
/// How often others may begin to use what was just chosen to go, before who needs room is refused.
const ROUNDS: usize = 8;
/// How often it is looked whether others fill the file system: a 10 Gbit/s link brings 35 GiB in that time.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// A full disk is relieved of that much at least, so that not every piece that comes has to do it again.
const MIN_RELIEF: u64 = 64 << 20;
