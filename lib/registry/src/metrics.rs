//! What clients do, for Prometheus.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use crate::observer::Observer;

/// An [`Observer`] that counts.
#[derive(Debug)]
pub struct PullMetrics {
    pulls: IntCounter,
    aborted: IntCounter,
    bytes: IntCounterVec,
    first_byte: Histogram,
    whole: Histogram,
    pushes: IntCounter,
}

impl PullMetrics {
    /// From a manifest that is in memory to a layer of many gigabytes, in seconds.
    const BUCKETS: [f64; 14] =
        [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0];

    /// Registers `shoal_registry_*`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(Self::BUCKETS.to_vec()))
        };
        let metrics = Self {
            pulls: IntCounter::new(
                "shoal_registry_pulls_total",
                "Blobs and manifests sent whole to clients",
            )?,
            aborted: IntCounter::new(
                "shoal_registry_pulls_aborted_total",
                "Bodies cut short: the client went away, or the bytes could not be had",
            )?,
            bytes: IntCounterVec::new(
                Opts::new(
                    "shoal_registry_bytes_total",
                    "Bytes sent to clients (pull) and taken from them (push)",
                ),
                &["direction"],
            )?,
            first_byte: histogram(
                "shoal_registry_first_byte_seconds",
                "From a request's arrival to the first byte of its body",
            )?,
            whole: histogram(
                "shoal_registry_pull_seconds",
                "From a request's arrival to the last byte of its body",
            )?,
            pushes: IntCounter::new(
                "shoal_registry_pushes_total",
                "Blobs and manifests that clients pushed",
            )?,
        };
        registry.register(Box::new(metrics.pulls.clone()))?;
        registry.register(Box::new(metrics.aborted.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.first_byte.clone()))?;
        registry.register(Box::new(metrics.whole.clone()))?;
        registry.register(Box::new(metrics.pushes.clone()))?;
        Ok(metrics)
    }
}

impl Observer for PullMetrics {
    fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    fn pull_finished(&self, bytes: u64, after: Duration) {
        self.pulls.inc();
        self.bytes.with_label_values(&["pull"]).inc_by(bytes);
        self.whole.observe(after.as_secs_f64());
    }

    fn pull_aborted(&self, bytes: u64) {
        self.aborted.inc();
        self.bytes.with_label_values(&["pull"]).inc_by(bytes);
    }

    fn pushed(&self, bytes: u64) {
        self.pushes.inc();
        self.bytes.with_label_values(&["push"]).inc_by(bytes);
    }
}
