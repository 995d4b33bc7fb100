//! The log of those who were not let in: who called, at which port, and why not.
//!
//! Anybody can be refused as often as they like, so only so many lines a second are written; how many were left out stands
//! in the next.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The refusals of one port.
#[derive(Debug)]
pub struct Refusals {
    port: &'static str,
    pace: Mutex<Pace>,
}

#[derive(Debug)]
struct Pace {
    second: Instant,
    written: u32,
    left_out: u64,
}

impl Refusals {
    /// Those of a port, which the log calls by that name.
    #[must_use]
    pub fn of(port: &'static str) -> Self {
        Self { port, pace: Mutex::new(Pace { second: Instant::now(), written: 0, left_out: 0 }) }
    }

    /// Somebody was refused.
    pub fn note(&self, remote: SocketAddr, reason: &dyn std::error::Error) {
        let left_out = self.pace.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
        if let Some(left_out) = left_out {
            let reason = shoal_core::causes(reason);
            tracing::warn!(port = self.port, %remote, reason, left_out, "refused");
        }
    }
}

impl Pace {
    /// How many were left out since the last line; `None` if this one is, too.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.written) = (now, 0);
        }
        if self.written == MAX_LINES {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// A second: enough to see what is going on, and half a GB a day from whoever tries all the time.
const MAX_LINES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_without_end_does_not_fill_the_disk() {
        let now = Instant::now();
        let mut pace = Pace { second: now, written: 0, left_out: 0 };
        let written = (0..1000).filter(|_| pace.next(now).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(pace.next(now + Duration::from_secs(1)), Some(980));
        assert_eq!(pace.next(now + Duration::from_secs(1)), Some(0));
    }
}
