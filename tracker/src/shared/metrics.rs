//! What an operator can watch of the state that trackers share.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) connected: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) refused: IntCounterVec,
    pub(super) messages: IntCounter,
    pub(super) written: IntCounter,
    pub(super) comparisons: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            connected: IntGauge::new(
                "shoal_tracker_redis_connected",
                "Whether this tracker shares what it knows: 1, or 0 while the server is away.",
            )?,
            waiting: IntGauge::new(
                "shoal_tracker_redis_waiting",
                "Announces that wait to be written to the server.",
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "shoal_tracker_redis_refused_total",
                    "What was read from the server and not believed or not kept, by what it was.",
                ),
                &["what"],
            )?,
            messages: IntCounter::new(
                "shoal_tracker_redis_messages_total",
                "Messages of trackers that were read, those of this one included.",
            )?,
            written: IntCounter::new(
                "shoal_tracker_redis_written_total",
                "Announces and goodbyes that were written to the server.",
            )?,
            comparisons: IntCounter::new(
                "shoal_tracker_redis_comparisons_total",
                "How often all that is known was compared with the server: at each connection, and after too much waited.",
            )?,
        };
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.messages.clone()))?;
        registry.register(Box::new(metrics.written.clone()))?;
        registry.register(Box::new(metrics.comparisons.clone()))?;
        Ok(metrics)
    }
}
