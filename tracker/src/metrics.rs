//! What an operator can watch.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::state::{Counts, Reported};

/// The tracker's metrics. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Announces, by what came of them.
    pub(crate) announces: IntCounterVec,
    /// Finds, by what came of them.
    pub(crate) finds: IntCounterVec,
    /// Questions to origins, by what came of them.
    pub(crate) origin_lookups: IntCounterVec,
    /// Bytes of metainfo that are kept.
    pub(crate) metainfo_bytes: IntGauge,
    /// Metainfo that origins sent and that did not verify.
    pub(crate) metainfo_refused: IntCounter,
    reports: IntCounterVec,
    nodes: IntGaugeVec,
    blobs: IntGauge,
    holdings: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["result"]);
        let metrics = Self {
            announces: counter("shoal_tracker_announces_total", "Announces, by result.")?,
            finds: counter("shoal_tracker_finds_total", "Finds, by result.")?,
            origin_lookups: counter(
                "shoal_tracker_origin_lookups_total",
                "Questions to origins for metainfo, by result.",
            )?,
            metainfo_bytes: IntGauge::new(
                "shoal_tracker_metainfo_cache_bytes",
                "Bytes of metainfo that are kept in memory.",
            )?,
            metainfo_refused: IntCounter::new(
                "shoal_metainfo_refused_total",
                "Metainfo that was refused: forged, altered, or signed by no origin; the log names its bearer.",
            )?,
            reports: counter(
                "shoal_tracker_reports_total",
                "Reports that a node cannot be reached, by result: noted, removed (the last that it took), ignored, too_many.",
            )?,
            nodes: IntGaugeVec::new(
                Opts::new("shoal_tracker_nodes", "Nodes with a lease, by role."),
                &["role"],
            )?,
            blobs: IntGauge::new("shoal_tracker_blobs", "Blobs that some node has.")?,
            holdings: IntGauge::new(
                "shoal_tracker_swarm_entries",
                "Pairs of a node and a blob that it has, whole or in part.",
            )?,
        };
        metrics.register_all(registry)?;
        Ok(metrics)
    }

    /// Shows how much the tracker knows.
    pub(crate) fn observe(&self, counts: Counts) {
        self.nodes.with_label_values(&["agent"]).set(gauge(counts.agents));
        self.nodes.with_label_values(&["origin"]).set(gauge(counts.origins));
        self.blobs.set(gauge(counts.blobs));
        self.holdings.set(gauge(counts.holdings));
    }

    /// Counts a report.
    pub(crate) fn reported(&self, reported: Reported) {
        let result = match reported {
            Reported::Noted => "noted",
            Reported::Removed(_) => "removed",
            Reported::Ignored => "ignored",
            Reported::TooMany => "too_many",
        };
        self.reports.with_label_values(&[result]).inc();
    }

    fn register_all(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.announces.clone()))?;
        registry.register(Box::new(self.finds.clone()))?;
        registry.register(Box::new(self.origin_lookups.clone()))?;
        registry.register(Box::new(self.metainfo_bytes.clone()))?;
        registry.register(Box::new(self.metainfo_refused.clone()))?;
        registry.register(Box::new(self.reports.clone()))?;
        registry.register(Box::new(self.nodes.clone()))?;
        registry.register(Box::new(self.blobs.clone()))?;
        registry.register(Box::new(self.holdings.clone()))
    }
}

/// A count as gauges have it.
pub(crate) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
