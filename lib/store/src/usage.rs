//! When an entry was last used, and whether somebody uses it now: what eviction goes by.
//!
//! An entry is pinned by whoever reads it, and claimed by whoever evicts it. Both change one number, so that an entry
//! is never given up under a reader, and a reader never begins on one that is being given up.
//!
//! The time outlives a restart as the modification time of the entry's metainfo file, written at most once in
//! [`SAVE_INTERVAL`]: it costs an inode now and then, works on a file system without access times, and no backup or scan
//! of the blobs touches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A point in time, in microseconds since 1970; of two uses in one process the later has the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

/// Tells moments that never repeat and never go back, whatever the system's clock does.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Usage {
    clock: Arc<Clock>,
    /// How many use it, or [`CLAIMED`].
    pins: AtomicU32,
    last_used: AtomicU64,
    /// The last use that the disk knows of.
    saved: AtomicU64,
}

/// Somebody uses an entry, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pin(Arc<Usage>);

impl Moment {
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.0)
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Clock {
    pub(crate) fn tick(&self) -> Moment {
        self.tick_at(Moment::of(SystemTime::now()))
    }

    fn tick_at(&self, wall: Moment) -> Moment {
        let later = |last: u64| wall.0.max(last.saturating_add(1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        Moment(later(last.unwrap_or_else(|unchanged| unchanged)))
    }

    /// Nothing that is used from now on counts as older than that.
    pub(crate) fn reach(&self, moment: Moment) {
        self.last.fetch_max(moment.0, Ordering::Relaxed);
    }
}

impl Usage {
    /// Of an entry that is made now.
    pub(crate) fn begin(clock: &Arc<Clock>) -> Arc<Self> {
        Self::resume(clock, clock.tick())
    }

    /// Of an entry that was found on disk, last used then.
    pub(crate) fn resume(clock: &Arc<Clock>, last_used: Moment) -> Arc<Self> {
        clock.reach(last_used);
        Arc::new(Self {
            clock: clock.clone(),
            pins: AtomicU32::new(0),
            last_used: last_used.0.into(),
            saved: last_used.0.into(),
        })
    }

    /// Holds the entry; `None` once it is claimed.
    pub(crate) fn pin(self: &Arc<Self>) -> Option<Pin> {
        let one_more = |pins| if pins == CLAIMED { None } else { Some(pins + 1) };
        self.pins.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        self.touch();
        Some(Pin(self.clone()))
    }

    /// Takes the entry away from all to come; fails while somebody uses it.
    pub(crate) fn claim(&self) -> bool {
        self.pins.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn is_pinned(&self) -> bool {
        !matches!(self.pins.load(Ordering::Acquire), 0 | CLAIMED)
    }

    pub(crate) fn last_used(&self) -> Moment {
        Moment(self.last_used.load(Ordering::Relaxed))
    }

    /// The last use, if it is time to save it; then the caller does.
    pub(crate) fn save_due(&self) -> Option<Moment> {
        let (used, saved) = (self.last_used(), self.saved.load(Ordering::Relaxed));
        if used.since(Moment(saved)) < SAVE_INTERVAL {
            return None;
        }
        let mine = self.saved.compare_exchange(saved, used.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        mine.then_some(used)
    }

    fn touch(&self) {
        self.last_used.fetch_max(self.clock.tick().0, Ordering::Relaxed);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // A long read counts at its end, too.
        self.0.touch();
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// More pins than there can be: each is a reader, of which the servers admit thousands at most.
const CLAIMED: u32 = u32::MAX;
/// How far the order that a restart finds may be from the truth, for one inode written in that time.
pub(crate) const SAVE_INTERVAL: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back() {
        let clock = Clock::default();
        assert_eq!(clock.tick_at(Moment(10)), Moment(10));
        assert_eq!(clock.tick_at(Moment(10)), Moment(11));
        assert_eq!(clock.tick_at(Moment(5)), Moment(12));
        clock.reach(Moment(100));
        assert_eq!(clock.tick_at(Moment(50)), Moment(101));
        assert_eq!(clock.tick_at(Moment(200)), Moment(200));
    }

    #[test]
    fn what_is_pinned_is_not_claimed_and_what_is_claimed_is_not_pinned() {
        let usage = Usage::begin(&Arc::default());
        let (one, two) = (usage.pin().unwrap(), usage.pin().unwrap());
        drop(one);
        assert!(usage.is_pinned() && !usage.claim());
        drop(two);
        assert!(!usage.is_pinned() && usage.claim());
        assert!(usage.pin().is_none() && !usage.claim() && !usage.is_pinned());
    }

    #[test]
    fn a_use_is_saved_once_and_rarely() {
        let clock = Arc::new(Clock::default());
        let usage = Usage::resume(&clock, Moment(1));
        assert_eq!(usage.save_due(), None);
        drop(usage.pin());
        let used = usage.last_used();
        assert!(used > Moment(1));
        assert_eq!(usage.save_due(), Some(used));
        drop(usage.pin());
        assert_eq!(usage.save_due(), None);
    }
}
