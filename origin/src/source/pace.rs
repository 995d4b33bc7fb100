//! How fast a source is read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate that all who read together keep: each part is paid for, in time, before the next is taken.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When all parts so far are paid for.
    paid: Mutex<Instant>,
}

impl Pace {
    /// At least one byte a second.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until so many more bytes may have come.
    pub(crate) async fn pay(&self, bytes: usize) {
        let due = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *paid = (*paid).max(Instant::now()) + time;
            *paid
        };
        sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_who_read_share_the_rate_and_what_was_not_used_is_lost() {
        let pace = Pace::new(1000);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        tokio::join!(pace.pay(1000), pace.pay(500));
        assert_eq!(began.elapsed().as_millis(), 1500);
    }
}
