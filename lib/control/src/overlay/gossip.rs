//! How much gossip is listened to, and how often a node says something. Pure: time and chance are arguments.
//!
//! Each neighbour may bring so many notices, each signer is heard so often, and the more nodes there are, the rarer each of
//! them speaks: together about one notice a second, however many they are.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::PeerId;

/// What was heard.
#[derive(Debug)]
pub(crate) struct Gossip {
    /// The time of each signer's last notice.
    heard: LruCache<PeerId, u64>,
    sources: LruCache<libp2p::PeerId, Allowance>,
}

/// What a neighbour may still bring.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    notices: f64,
    at: Instant,
}

/// What to do with what a neighbour brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look at it.
    Take,
    /// It brings more than it should: pass it over.
    Drop,
    /// It brings far more than any honest node could have: let it go.
    Cut,
}

/// The most signers that are remembered: the cluster that is planned for, and 2 MB.
const MAX_SIGNERS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// The most neighbours whose allowance is remembered: more than can be connected.
const MAX_SOURCES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Notices a second that one neighbour may bring in the long run: several times what all nodes say together.
const RATE: f64 = 10.0;
/// And at once: where islands meet, many nodes speak at the same time.
const BURST: f64 = 200.0;
/// How far below nothing an allowance may fall before the neighbour is let go.
const PATIENCE: f64 = -1000.0;
/// The shortest time between two notices of one signer.
const MIN_GAP: Duration = Duration::from_secs(30);
/// How often a node speaks where there are few: a node that nobody heard for long is looked for in vain, and not for long.
const MIN_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// What each node that is known adds to the interval.
const SHARE: Duration = Duration::from_secs(1);

impl Default for Gossip {
    fn default() -> Self {
        Self { heard: LruCache::new(MAX_SIGNERS), sources: LruCache::new(MAX_SOURCES) }
    }
}

impl Gossip {
    /// Whether what this neighbour brings is looked at.
    pub(crate) fn weigh(&mut self, source: libp2p::PeerId, now: Instant) -> Verdict {
        let allowance = self.sources.get_or_insert_mut(source, || Allowance { notices: BURST, at: now });
        let earned = now.saturating_duration_since(allowance.at).as_secs_f64() * RATE;
        *allowance = Allowance { notices: (allowance.notices + earned).min(BURST) - 1.0, at: now };
        match allowance.notices {
            left if left >= 0.0 => Verdict::Take,
            left if left > PATIENCE => Verdict::Drop,
            _ => Verdict::Cut,
        }
    }

    /// Notes a proved notice of that time; whether it is news.
    pub(crate) fn hear(&mut self, signer: PeerId, at_ms: u64) -> bool {
        let gap = MIN_GAP.as_millis() as u64;
        if self.heard.get(&signer).is_some_and(|last| at_ms < last.saturating_add(gap)) {
            return false;
        }
        self.heard.put(signer, at_ms);
        true
    }

    /// How many nodes were heard of.
    pub(crate) fn signers(&self) -> usize {
        self.heard.len()
    }

    /// How long to be silent after a notice of one's own; `chance` from 0 to 1.
    pub(crate) fn interval(&self, chance: f64) -> Duration {
        let all = SHARE * u32::try_from(self.heard.len()).unwrap_or(u32::MAX);
        all.max(MIN_INTERVAL).mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer(number: u32) -> PeerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        PeerId::from_public_key(key)
    }

    #[test]
    fn a_neighbour_that_floods_is_passed_over_and_then_let_go() {
        let (mut gossip, source, now) = (Gossip::default(), libp2p::PeerId::random(), Instant::now());
        let verdicts: Vec<Verdict> = (0..2000).map(|_| gossip.weigh(source, now)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Take).count(), BURST as usize);
        assert_eq!(verdicts[BURST as usize + 10], Verdict::Drop);
        assert_eq!(verdicts.last(), Some(&Verdict::Cut));
        assert_eq!(gossip.weigh(libp2p::PeerId::random(), now), Verdict::Take);
    }

    #[test]
    fn who_keeps_to_the_rate_is_always_heard() {
        let (mut gossip, source, start) = (Gossip::default(), libp2p::PeerId::random(), Instant::now());
        for number in 0..5000u32 {
            let now = start + Duration::from_millis(100) * number;
            assert_eq!(gossip.weigh(source, now), Verdict::Take);
        }
    }

    #[test]
    fn a_signer_is_heard_now_and_then_and_never_backwards() {
        let mut gossip = Gossip::default();
        let gap = MIN_GAP.as_millis() as u64;
        assert!(gossip.hear(signer(1), 1_000_000));
        for late in [1_000_000, 999_999, 0, 1_000_000 + gap - 1] {
            assert!(!gossip.hear(signer(1), late), "{late}");
        }
        assert!(gossip.hear(signer(1), 1_000_000 + gap));
        assert!(gossip.hear(signer(2), 5));
    }

    #[test]
    fn many_nodes_speak_rarely_and_not_all_are_remembered() {
        let mut gossip = Gossip::default();
        assert!(gossip.interval(0.5) >= MIN_INTERVAL);
        for number in 0..20_000 {
            gossip.hear(signer(number), 1);
        }
        assert_eq!(gossip.signers(), MAX_SIGNERS.get());
        assert!(gossip.interval(0.5) >= SHARE * MAX_SIGNERS.get() as u32);
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_burst_and_rate(gaps in prop::collection::vec(0u64..200, 1..800)) {
            let (mut gossip, source, start) = (Gossip::default(), libp2p::PeerId::random(), Instant::now());
            let (mut at, mut taken) = (0, 0);
            for gap in gaps {
                at += gap;
                if gossip.weigh(source, start + Duration::from_millis(at)) == Verdict::Take {
                    taken += 1;
                }
            }
            prop_assert!(f64::from(taken) <= BURST + RATE * at as f64 / 1000.0 + 1.0);
        }
    }
}
