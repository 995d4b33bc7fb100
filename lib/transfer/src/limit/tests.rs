//! No 100 ms have a byte too many, wherever they begin; and what may go does go, in the right order.

use std::time::Duration;

use prometheus::Counter;
use shoal_swarm::{Moment, Priority};

use super::{Limits, Rate};

mod limiter;
mod shaper;

/// Bytes that went, and when.
#[derive(Debug, Default)]
struct Went(Vec<(Moment, Priority, u64)>);

impl Went {
    fn note(&mut self, at: Moment, priority: Priority, bytes: u32) {
        self.0.push((at, priority, u64::from(bytes)));
    }

    fn bytes(&self, counts: impl Fn(Priority) -> bool) -> u64 {
        self.0.iter().filter(|(_, priority, _)| counts(*priority)).map(|(_, _, bytes)| bytes).sum()
    }

    /// The most in any 100 ms: each that matters ends with something that went.
    fn busiest_window(&self, counts: impl Fn(Priority) -> bool) -> u64 {
        let went: Vec<_> = self.0.iter().filter(|(_, priority, _)| counts(*priority)).collect();
        let (mut first, mut sum, mut most) = (0, 0, 0);
        for (at, _, bytes) in &went {
            sum += bytes;
            while went[first].0.0 + Rate::WINDOW <= at.0 {
                sum -= went[first].2;
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// Panics if a limit is exceeded.
    fn check(&self, limits: &Limits) {
        let within = |rate: Option<Rate>, counts: &dyn Fn(Priority) -> bool| {
            let most = rate.map_or(u64::MAX, Rate::window_bytes);
            let busiest = self.busiest_window(counts);
            assert!(busiest <= most, "{busiest} bytes in 100 ms, {most} are allowed");
        };
        within(limits.total, &|_| true);
        for priority in super::PRIORITIES {
            within(limits.own(priority), &|other| other == priority);
        }
    }
}

fn rate(bytes_per_second: u64) -> Option<Rate> {
    Some(Rate::new(bytes_per_second).unwrap())
}

fn total(bytes_per_second: u64) -> Limits {
    Limits { total: rate(bytes_per_second), ..Limits::default() }
}

fn counters() -> [Counter; 3] {
    super::PRIORITIES.map(|priority| Counter::new(format!("{priority:?}"), "Seconds.").unwrap())
}

fn millis(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}
