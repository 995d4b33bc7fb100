//! What came of a run.

use serde::Serialize;

/// What came of a run. Times in seconds, lengths in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When each host started, when it had everything, and what it took for that.
    pub hosts: Vec<HostReport>,
    /// The time that the links alone take: the host's own, or what the origins can give out once.
    pub bound: f64,
    /// Of the times from each sound host's own start until it had everything, of those that did.
    pub seconds: Quantiles,
    /// From the first start until the last host had everything.
    pub makespan: f64,
    /// Hosts that should have everything and do not.
    pub unfinished: usize,
    /// How often the origins sent everything.
    pub origin_copies: f64,
    /// How much came twice, as a share of what was useful.
    pub duplicate_share: f64,
    /// How much was corrupt or cut off, as a share of what was useful.
    pub wasted_share: f64,
    /// How often everything came into each zone from the others.
    pub far_copies: Vec<f64>,
    /// Requests to the tracker in its busiest second.
    pub tracker_peak: u32,
    /// Requests to the tracker.
    pub tracker_requests: u64,
    /// Events that engines handled.
    pub events: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Fetches that engines gave up.
    pub gave_up: u64,
    /// Bans for corrupt pieces.
    pub bans: u64,
    /// The late joiner's seconds from its start until pieces came at 95 % of its link's rate.
    pub late_joiner_to_cap: Option<f64>,
}

/// One host's part.
#[derive(Clone, Debug, Serialize)]
pub struct HostReport {
    /// Its zone.
    pub zone: u32,
    /// Whether no fault was meant for it (but churn, which may hit all).
    pub is_sound: bool,
    /// When it started.
    pub start: f64,
    /// When it had everything.
    pub complete: Option<f64>,
    /// What it sent.
    pub sent: u64,
    /// What it received, useful or not.
    pub received: u64,
    /// What of that came from origins.
    pub from_origins: u64,
}

/// Of a set of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are at most that.
    pub p50: f64,
    /// 90 % are.
    pub p90: f64,
    /// 99 % are.
    pub p99: f64,
    /// 99.9 % are.
    pub p999: f64,
    /// All are.
    pub max: f64,
}

impl Quantiles {
    /// By the nearest rank; all 0 of an empty set.
    #[must_use]
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let rank = |permille: usize| {
            let at = (times.len() * permille).div_ceil(1000).saturating_sub(1);
            times.get(at).copied().unwrap_or_default()
        };
        Self { p50: rank(500), p90: rank(900), p99: rank(990), p999: rank(999), max: rank(1000) }
    }
}

impl HostReport {
    /// How long it took from its own start.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        Some(self.complete? - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let quantiles = Quantiles::of((1..=1000).rev().map(f64::from).collect());
        assert_eq!(quantiles, Quantiles { p50: 500.0, p90: 900.0, p99: 990.0, p999: 999.0, max: 1000.0 });
        assert_eq!(Quantiles::of(vec![2.0]).p999, 2.0);
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
