//! What an operator sees of the backends.

use prometheus::{IntCounterVec, Opts, Registry};

/// By the name of the backend.
#[derive(Clone, Debug)]
pub(crate) struct BackendMetrics {
    /// By operation and result.
    pub(super) calls: IntCounterVec,
    pub(super) written: IntCounterVec,
}

impl BackendMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(format!("shoal_backend_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            calls: counter(
                "calls_total",
                "Calls to backends by operation and result: ok, not_found, conflict, refused, unavailable",
                &["backend", "operation", "result"],
            )?,
            written: counter("written_bytes_total", "Bytes of blobs that backends took", &["backend"])?,
        })
    }
}
