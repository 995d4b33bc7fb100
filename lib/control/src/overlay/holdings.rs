//! What a node announces in the overlay, and when: the blobs that were used last, each again after a while.
//!
//! Pure: time and chance are arguments. A record costs a walk through the overlay and lies on eight nodes, so a node with a
//! million blobs must not announce them all.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::Digest;

/// The most blobs that a node announces. 256: the images of some twenty deployments, which is what other hosts are about to
/// pull, too; and 256 records twice an hour are one walk through the overlay in seven seconds.
pub(crate) const MAX_ANNOUNCED: usize = 256;
/// How long others believe a record.
pub(crate) const RECORD_LIFETIME: Duration = Duration::from_secs(90 * 60);
/// How long after a publication the next is due, at most: a record outlives two that get lost.
pub(crate) const REPUBLISH_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// How soon after a publication that failed the next is due, at most: the network may be gone for longer than that.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// What is announced. The last used is the last to go.
#[derive(Debug)]
pub(crate) struct Holdings {
    blobs: LruCache<Digest, Due>,
    /// Some that were announced are to be announced no more.
    is_withdrawing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
}

impl Default for Holdings {
    fn default() -> Self {
        let blobs = LruCache::new(NonZeroUsize::new(MAX_ANNOUNCED).expect("not zero"));
        Self { blobs, is_withdrawing: false }
    }
}

impl Holdings {
    /// The node has this blob, and somebody used it just now.
    pub(crate) fn used(&mut self, digest: Digest) {
        if self.blobs.get(&digest).is_none() {
            self.is_withdrawing |= self.blobs.push(digest, Due::Now).is_some();
        }
    }

    /// The node has this blob no more.
    pub(crate) fn removed(&mut self, digest: &Digest) {
        self.is_withdrawing |= self.blobs.pop(digest).is_some();
    }

    /// Whether it is to be announced.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest)
    }

    /// How many are announced.
    pub(crate) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether some are to be announced no more since the last call: those that it does not contain.
    pub(crate) fn take_withdrawing(&mut self) -> bool {
        std::mem::take(&mut self.is_withdrawing)
    }

    /// A blob that is to be published by then, the last used first; `chance` from 0 to 1 spreads its next time, so that what
    /// came together does not come again together.
    pub(crate) fn take_due(&mut self, now: Instant, chance: f64) -> Option<Digest> {
        let due = self.blobs.iter().find(|(_, due)| due.is_by(now)).map(|(digest, _)| *digest)?;
        let next = REPUBLISH_INTERVAL.mul_f64(0.75 + 0.25 * chance.clamp(0.0, 1.0));
        if let Some(due) = self.blobs.peek_mut(&due) {
            *due = Due::At(now + next);
        }
        Some(due)
    }

    /// The publication came to nothing: it is tried again before long.
    pub(crate) fn failed(&mut self, digest: &Digest, now: Instant, chance: f64) {
        if let Some(due) = self.blobs.peek_mut(digest) {
            *due = Due::At(now + RETRY_INTERVAL.mul_f64(0.25 + 0.75 * chance.clamp(0.0, 1.0)));
        }
    }

    /// Everything is to be published again: nobody was there to hear of it.
    pub(crate) fn publish_all(&mut self) {
        for (_, due) in &mut self.blobs {
            *due = Due::Now;
        }
    }
}

impl Due {
    fn is_by(self, now: Instant) -> bool {
        match self {
            Self::Now => true,
            Self::At(at) => at <= now,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: usize) -> Digest {
        Digest::sha256(&number.to_le_bytes())
    }

    #[test]
    fn of_many_blobs_the_last_used_are_announced() {
        let mut holdings = Holdings::default();
        for number in 0..MAX_ANNOUNCED {
            holdings.used(digest(number));
        }
        holdings.used(digest(0));
        holdings.used(digest(MAX_ANNOUNCED));
        assert!(holdings.contains(&digest(0)) && !holdings.contains(&digest(1)));
        assert!(holdings.take_withdrawing() && !holdings.take_withdrawing());
        holdings.removed(&digest(0));
        assert!(holdings.take_withdrawing());
        assert!(!holdings.contains(&digest(0)));
    }

    #[test]
    fn each_is_published_at_once_and_then_again_before_its_record_runs_out() {
        let (mut holdings, start) = (Holdings::default(), Instant::now());
        holdings.used(digest(1));
        assert_eq!(holdings.take_due(start, 1.0), Some(digest(1)));
        assert_eq!(holdings.take_due(start, 1.0), None);
        holdings.used(digest(1));
        assert_eq!(holdings.take_due(start + REPUBLISH_INTERVAL / 2, 1.0), None);
        assert_eq!(holdings.take_due(start + REPUBLISH_INTERVAL, 0.0), Some(digest(1)));
        holdings.failed(&digest(1), start, 1.0);
        assert_eq!(holdings.take_due(start + RETRY_INTERVAL, 1.0), Some(digest(1)));
        assert!(REPUBLISH_INTERVAL * 3 <= RECORD_LIFETIME);
        holdings.publish_all();
        assert_eq!(holdings.take_due(start + REPUBLISH_INTERVAL, 0.0), Some(digest(1)));
        holdings.failed(&digest(2), start, 1.0);
        assert!(!holdings.contains(&digest(2)));
    }

    proptest! {
        #[test]
        fn what_is_held_is_due_within_an_interval_and_never_twice_at_once(
            blobs in prop::collection::vec(0usize..40, 1..80), chance in 0.0f64..1.0
        ) {
            let (mut holdings, start) = (Holdings::default(), Instant::now());
            for blob in &blobs {
                holdings.used(digest(*blob));
            }
            let mut published = Vec::new();
            while let Some(due) = holdings.take_due(start, chance) {
                prop_assert!(!published.contains(&due));
                published.push(due);
            }
            prop_assert!(blobs.iter().all(|blob| published.contains(&digest(*blob))));
            let mut again = 0;
            while holdings.take_due(start + REPUBLISH_INTERVAL, chance).is_some() {
                again += 1;
            }
            prop_assert_eq!(again, published.len());
        }
    }
}
