//! What queues show.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Counts;

/// Of all queues of this origin. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct QueueMetrics {
    jobs: IntGaugeVec,
    tries: IntCounterVec,
}

impl QueueMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let jobs =
            Opts::new("shoal_queue_jobs", "Jobs by queue and state: waiting, taken, or dead (given up)");
        let jobs = IntGaugeVec::new(jobs, &["queue", "state"])?;
        let tries = Opts::new("shoal_queue_tries_total", "Tries of jobs by queue and result");
        let tries = IntCounterVec::new(tries, &["queue", "result"])?;
        registry.register(Box::new(jobs.clone()))?;
        registry.register(Box::new(tries.clone()))?;
        Ok(Self { jobs, tries })
    }

    pub(super) fn show(&self, queue: &str, counts: Counts) {
        let Counts { waiting, taken, dead } = counts;
        for (state, count) in [("waiting", waiting), ("taken", taken), ("dead", dead)] {
            self.jobs.with_label_values(&[queue, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn tried(&self, queue: &str, is_done: bool) {
        self.tries.with_label_values(&[queue, if is_done { "done" } else { "failed" }]).inc();
    }
}
