//! What replication shows, beside its queues.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Of all rules of this origin. Clones are one.
#[derive(Clone)]
pub(super) struct Metrics {
    jobs: IntCounterVec,
    bytes: IntCounterVec,
    lost: IntCounterVec,
    tags: IntGaugeVec,
}

/// What became of a job that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was copied.
    Copied,
    /// There was nothing to do.
    Same,
    /// It was deleted there.
    Deleted,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let jobs = counter(
            "shoal_replication_jobs_total",
            "Tags and manifests that were looked at for replication, by rule and result: copied, same, or deleted",
            &["rule", "result"],
        )?;
        let bytes = counter(
            "shoal_replication_bytes_total",
            "Bytes of blobs that replication moved, by rule",
            &["rule"],
        )?;
        let lost = counter(
            "shoal_replication_lost_total",
            "Events that a rule's queue did not take: left to its reconcile",
            &["rule"],
        )?;
        let tags = Opts::new(
            "shoal_replication_reconciled_tags",
            "Tags at the last comparison with the target, by rule and state: same, missing, or moved (something else there)",
        );
        let tags = IntGaugeVec::new(tags, &["rule", "state"])?;
        registry.register(Box::new(tags.clone()))?;
        Ok(Self { jobs, bytes, lost, tags })
    }

    pub(super) fn done(&self, rule: &str, outcome: Outcome) {
        let result = match outcome {
            Outcome::Copied => "copied",
            Outcome::Same => "same",
            Outcome::Deleted => "deleted",
        };
        self.jobs.with_label_values(&[rule, result]).inc();
    }

    pub(super) fn moved(&self, rule: &str, bytes: u64) {
        self.bytes.with_label_values(&[rule]).inc_by(bytes);
    }

    pub(super) fn lost(&self, rule: &str) {
        self.lost.with_label_values(&[rule]).inc();
    }

    pub(super) fn compared(&self, rule: &str, state: &str, tags: u64) {
        self.tags.with_label_values(&[rule, state]).set(i64::try_from(tags).unwrap_or(i64::MAX));
    }
}
