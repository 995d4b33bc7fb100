//! What an operator sees of the sources.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// By the name of the source, but for what is under way.
#[derive(Clone, Debug)]
pub(super) struct RefillMetrics {
    pub(super) active: IntGauge,
    pub(super) opened: IntCounterVec,
    pub(super) bytes: IntCounterVec,
    pub(super) broken: IntCounterVec,
    pub(super) wrong: IntCounterVec,
    /// By result.
    pub(super) fetches: IntCounterVec,
}

impl RefillMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let active = IntGauge::new(
            "shoal_origin_refill_fetches_active",
            "Blobs that are on their way from sources now, or wait for their turn.",
        )?;
        registry.register(Box::new(active.clone()))?;
        let counter = |name: &str, label: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter =
                IntCounterVec::new(Opts::new(format!("shoal_origin_refill_{name}_total"), help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            active,
            opened: counter("opened", "source", "Times that a source began to send a blob.")?,
            bytes: counter("bytes", "source", "Bytes that sources sent.")?,
            broken: counter("broken", "source", "Times that a source could not answer, or broke off.")?,
            wrong: counter("wrong", "source", "Blobs that were not what their digest says: thrown away.")?,
            fetches: counter("fetches", "result", "Blobs that were looked for at the sources, by outcome.")?,
        })
    }
}
