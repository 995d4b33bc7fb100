//! Two clusters that write one tag to each other at the same moment end with each other's image. Whoever sees that its own write
//! was answered so knows it, and of the two images the one with the greater digest wins: at both sides.
//!
//! Only writes of the last minutes are remembered, in memory: a swap is two writes that were under way together.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::Digest;

/// What was written over what, at the target of one rule.
pub(super) struct Swaps(Mutex<LruCache<String, Write>>);

struct Write {
    sent: Digest,
    over: Digest,
    at: Instant,
}

impl Swaps {
    /// More tags than are written in the time that counts.
    const MAX_WRITES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
    /// Longer than a manifest is on its way, with all attempts.
    const LIFETIME: Duration = Duration::from_secs(600);

    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(Self::MAX_WRITES)))
    }

    /// A tag is about to be written over another image there.
    pub(super) fn note(&self, now: Instant, key: &str, sent: Digest, over: Digest) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(key.to_owned(), Write { sent, over, at: now });
    }

    /// An image came by replication: whether that is the other half of a swap, and the image that came is to go back over the one
    /// that was sent.
    pub(super) fn is_to_go_back(&self, now: Instant, key: &str, came: &Digest) -> bool {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(write) = writes.get(key) else { return false };
        let is_swap = write.over == *came && now.duration_since(write.at) < Self::LIFETIME;
        is_swap && came.to_string() > write.sent.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One cluster of two: what its tag names, and what it has written.
    struct Side {
        tag: Digest,
        swaps: Swaps,
        owes: bool,
    }

    impl Side {
        fn new(content: u8) -> Self {
            Self { tag: Digest::sha256(&[content]), swaps: Swaps::new(), owes: true }
        }

        /// As the worker and the watcher do.
        fn takes(&mut self, now: Instant, came: Digest) {
            self.tag = came;
            self.owes |= self.swaps.is_to_go_back(now, "a:b", &came);
        }
    }

    proptest! {
        /// Whatever crosses whatever: the writes end, after one more at most, and both name the same.
        #[test]
        fn a_swap_ends_with_one_image(one: u8, other: u8, crosses: bool, first: bool) {
            let now = Instant::now();
            let mut sides = [Side::new(one), Side::new(other)];
            let mut writes = 0;
            while sides.iter().any(|side| side.owes) {
                // Both look at each other before either writes, or one does all and then the other.
                let turns: &[usize] = if crosses { &[0, 1] } else if first { &[0] } else { &[1] };
                let turns: Vec<_> = turns.iter().copied().filter(|&at| sides[at].owes).collect();
                let turns = if turns.is_empty() { vec![usize::from(sides[1].owes)] } else { turns };
                let seen: Vec<_> = turns.iter().map(|&at| (sides[at].tag, sides[1 - at].tag)).collect();
                for (&at, &(own, there)) in turns.iter().zip(&seen) {
                    sides[at].owes = false;
                    if own != there {
                        sides[at].swaps.note(now, "a:b", own, there);
                    }
                }
                for (&at, &(own, there)) in turns.iter().zip(&seen) {
                    if own != there {
                        writes += 1;
                        sides[1 - at].takes(now, own);
                    }
                }
                prop_assert!(writes <= 3);
            }
            prop_assert_eq!(sides[0].tag, sides[1].tag);
        }
    }

    #[test]
    fn an_answer_that_comes_late_is_a_write_of_its_own() {
        let (swaps, now) = (Swaps::new(), Instant::now());
        let (less, greater) = match (Digest::sha256(b"a"), Digest::sha256(b"b")) {
            (a, b) if a.to_string() < b.to_string() => (a, b),
            (a, b) => (b, a),
        };
        swaps.note(now, "a:b", less, greater);
        assert!(swaps.is_to_go_back(now, "a:b", &greater));
        assert!(!swaps.is_to_go_back(now, "a:c", &greater));
        assert!(!swaps.is_to_go_back(now, "a:b", &less));
        assert!(!swaps.is_to_go_back(now + Swaps::LIFETIME, "a:b", &greater));
        swaps.note(now, "a:b", greater, less);
        assert!(!swaps.is_to_go_back(now, "a:b", &less), "the other side sends the greater again");
    }
}
