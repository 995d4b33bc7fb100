//! How long a job that failed waits until it is tried again.

use std::time::Duration;

/// Waits that double, up to a limit of time and of tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// After the first failure.
    pub(crate) first: Duration,
    /// The longest.
    pub(crate) longest: Duration,
    /// So many tries, and the job is given up. 0: it never is.
    pub(crate) tries: u32,
}

impl Backoff {
    /// What follows the failure of the `tries`th try (the first is 1); nothing where it was the last.
    ///
    /// `random`, from 0 to 1, spreads jobs that failed together: a wait is between a half of the nominal one and all of it.
    pub(super) fn after(&self, tries: u32, random: f64) -> Option<Duration> {
        if self.tries > 0 && tries >= self.tries {
            return None;
        }
        let doublings = tries.saturating_sub(1).min(MAX_DOUBLINGS);
        let nominal = self.first.saturating_mul(1 << doublings).min(self.longest);
        Some(nominal.mul_f64((1.0 + random.clamp(0.0, 1.0)) / 2.0))
    }
}

/// More than any limit of time allows.
const MAX_DOUBLINGS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60), tries: 5 };

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { tries: 0, ..BACKOFF };
        let seconds = |tries| backoff.after(tries, 1.0).unwrap().as_secs();
        assert_eq!([1, 2, 3, 7, 8, 100, u32::MAX].map(seconds), [1, 2, 4, 60, 60, 60, 60]);
        assert_eq!(backoff.after(3, 0.0), Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_last_try_is_the_last() {
        assert!(BACKOFF.after(4, 0.5).is_some());
        assert_eq!(BACKOFF.after(5, 0.5), None);
        assert_eq!(BACKOFF.after(6, 0.5), None);
    }
}
