//! What a stretch of work costs this process.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What some work took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) seconds: f64,
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
    /// The most that was resident; `None` where the system does not tell.
    pub(super) peak_memory: Option<u64>,
}

/// Runs while the work does.
#[derive(Debug)]
pub(super) struct Meter {
    began: Instant,
    cpu: Duration,
}

impl Meter {
    pub(super) fn start() -> Self {
        // The peak of what is resident begins anew (proc(5), `clear_refs`). Where that is not allowed it is that of the
        // process's whole life.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { began: Instant::now(), cpu: cpu_time() }
    }

    pub(super) fn stop(&self) -> Usage {
        Usage {
            seconds: self.began.elapsed().as_secs_f64(),
            cpu_seconds: cpu_time().saturating_sub(self.cpu).as_secs_f64(),
            peak_memory: peak_memory(),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time() {
        let meter = Meter::start();
        let sum = (0..5_000_000_u64).map(std::hint::black_box).sum::<u64>();
        let usage = meter.stop();
        assert!(sum > 0 && usage.seconds > 0.0 && usage.cpu_seconds > 0.0, "{usage:?}");
        assert!(usage.peak_memory.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
    }
}
