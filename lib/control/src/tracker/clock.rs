//! The order of what a node says, whichever trackers it says it to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Gives numbers that only grow, across restarts too where the system's clock does not go back. Where it does, the answers of
/// trackers say what to go beyond.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    pub(super) fn next(&self) -> u64 {
        self.after(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64))
    }

    fn after(&self, now: u64) -> u64 {
        let next = |last: u64| last.saturating_add(1).max(now);
        let last = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.unwrap_or_default())
    }

    /// From now on numbers are greater than that. Who says one that no clock can show is not heeded.
    pub(super) fn pass(&self, known: u64) {
        if known <= LAST {
            self.0.fetch_max(known, Ordering::Relaxed);
        }
    }
}

/// In the year 2255; all trackers take it, and it is a whole number in every language.
const LAST: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_grow_whatever_the_clock_does() {
        let clock = Clock::default();
        assert_eq!([10, 10, 5, 20].map(|now| clock.after(now)), [10, 11, 12, 20]);
        clock.pass(100);
        clock.pass(50);
        assert_eq!(clock.after(21), 101);
        clock.pass(u64::MAX);
        assert_eq!(clock.after(21), 102, "nobody can stop it");
    }
}
