//! When a source that failed is asked again, and when no more. Pure.

use std::time::Duration;

/// Failures in a row.
#[derive(Debug)]
pub(super) struct Retry {
    failures: u32,
    attempts: u32,
}

impl Retry {
    /// The pause after the first failure; it doubles.
    const FIRST: Duration = Duration::from_millis(500);
    /// The longest of its own.
    const LONGEST: Duration = Duration::from_secs(10);
    /// The longest that a source may ask for: whoever waits for the blob is better told that it does not come.
    const LONGEST_ASKED: Duration = Duration::from_secs(30);

    pub(super) fn new(attempts: u32) -> Self {
        Self { failures: 0, attempts: attempts.max(1) }
    }

    /// Something came since the last failure.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// How long to pause before the next attempt; `None`: there is none.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.attempts {
            return None;
        }
        let doubled = Self::FIRST.saturating_mul(1 << (self.failures - 1).min(16));
        let asked = retry_after.unwrap_or_default().min(Self::LONGEST_ASKED);
        Some(doubled.min(Self::LONGEST).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_begin_anew_after_progress() {
        let mut retry = Retry::new(8);
        let pauses: Vec<_> =
            std::iter::from_fn(|| retry.failed(None)).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        retry.progressed();
        assert_eq!(retry.failed(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(retry.failed(Some(Duration::MAX)), Some(Retry::LONGEST_ASKED));
    }

    proptest! {
        #[test]
        fn without_progress_there_is_an_end(attempts in 0u32..100, retry_after in prop::option::of(any::<u64>())) {
            let mut retry = Retry::new(attempts);
            let asked = retry_after.map(Duration::from_secs);
            let pauses = std::iter::from_fn(|| retry.failed(asked)).count();
            prop_assert_eq!(pauses, attempts.max(1) as usize - 1);
        }
    }
}
