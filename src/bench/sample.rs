//! What one run of one figure gave.

use serde::Serialize;

use super::usage::Usage;

/// One run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) mib_per_second: f64,
    /// Of whoever serves; there is nobody where a process works alone.
    pub(super) sender: Option<Cost>,
    /// Of whoever asks, or works alone.
    pub(super) receiver: Cost,
}

/// What it cost one side.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cost {
    pub(super) cpu_seconds_per_gib: f64,
    pub(super) peak_memory: Option<u64>,
}

impl Sample {
    pub(super) fn new(bytes: u64, sender: Option<Usage>, receiver: Usage) -> Self {
        Self {
            mib_per_second: bytes as f64 / MIB / receiver.seconds,
            sender: sender.map(|usage| Cost::new(bytes, usage)),
            receiver: Cost::new(bytes, receiver),
        }
    }

    /// CPU seconds for each GiB of all who took part.
    pub(super) fn cpu(&self) -> f64 {
        self.receiver.cpu_seconds_per_gib + self.sender.map_or(0.0, |cost| cost.cpu_seconds_per_gib)
    }
}

impl Cost {
    fn new(bytes: u64, usage: Usage) -> Self {
        Self {
            cpu_seconds_per_gib: usage.cpu_seconds * 1024.0 * MIB / bytes as f64,
            peak_memory: usage.peak_memory,
        }
    }
}

/// The middle one, of an even number the lower; `None` of none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

pub(super) const MIB: f64 = (1 << 20) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_cost_are_of_what_was_moved() {
        let usage = |cpu_seconds| Usage { seconds: 2.0, cpu_seconds, peak_memory: None };
        let sample = Sample::new(512 << 20, Some(usage(0.25)), usage(0.5));
        assert_eq!((sample.mib_per_second, sample.cpu()), (256.0, 1.5));
    }

    #[test]
    fn the_median_is_a_value_that_was_measured() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }
}
