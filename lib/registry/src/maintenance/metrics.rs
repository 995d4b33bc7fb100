//! What maintenance did, for Prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{GarbageReport, PurgeReport, ScrubReport};

/// Counts runs and what they removed. Dry runs count as runs, and remove nothing.
#[derive(Clone, Debug)]
pub struct MaintenanceMetrics {
    runs: IntCounterVec,
    deleted: IntCounterVec,
    freed: IntCounter,
    corrupt: IntGauge,
    dangling: IntGauge,
}

impl MaintenanceMetrics {
    /// Registers `shoal_registry_maintenance_*`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |what: &str| format!("shoal_registry_maintenance_{what}");
        let counters =
            |what: &str, help: &str, label: &[&str]| IntCounterVec::new(Opts::new(name(what), help), label);
        let metrics = Self {
            runs: counters("runs_total", "Runs that ended, by task and result", &["task", "result"])?,
            deleted: counters("deleted_total", "Things removed from the registry, by kind", &["kind"])?,
            freed: IntCounter::new(name("freed_bytes_total"), "Bytes of blobs removed as garbage")?,
            corrupt: IntGauge::new(name("corrupt_blobs"), "Corrupt blobs that the last scrub found")?,
            dangling: IntGauge::new(name("dangling_links"), "Links to nothing that the last scrub found")?,
        };
        registry.register(Box::new(metrics.runs.clone()))?;
        registry.register(Box::new(metrics.deleted.clone()))?;
        registry.register(Box::new(metrics.freed.clone()))?;
        registry.register(Box::new(metrics.corrupt.clone()))?;
        registry.register(Box::new(metrics.dangling.clone()))?;
        Ok(metrics)
    }

    pub(super) fn ran(&self, task: &'static str, succeeded: bool) {
        self.runs.with_label_values(&[task, if succeeded { "done" } else { "failed" }]).inc();
    }

    pub(super) fn collected(&self, report: &GarbageReport) {
        self.deleted("manifest", report.manifests_deleted);
        self.deleted("referrer_list", report.lists_deleted);
        self.deleted("tag_entry", report.tag_entries_deleted);
        self.deleted("layer_link", report.links_deleted);
        self.deleted("blob", report.blobs_deleted);
        self.freed.inc_by(report.bytes_deleted);
    }

    pub(super) fn purged(&self, report: &PurgeReport) {
        self.deleted("upload", report.purged);
    }

    pub(super) fn scrubbed(&self, report: &ScrubReport) {
        self.corrupt.set(report.corrupt.try_into().unwrap_or(i64::MAX));
        self.dangling.set(report.dangling.try_into().unwrap_or(i64::MAX));
    }

    fn deleted(&self, kind: &str, count: u64) {
        self.deleted.with_label_values(&[kind]).inc_by(count);
    }
}
