//! What upstreams are asked, and what they answer.

use prometheus::{IntCounterVec, IntGaugeVec, Opts};

/// The counters of all upstreams, by name.
#[derive(Clone, Debug)]
pub(super) struct UpstreamMetrics {
    /// By kind (tag, manifest, blob, blob_head) and result (ok, not_found, refused, limited, unavailable, wrong, paused).
    pub(super) requests: IntCounterVec,
    pub(super) pulls_left: IntGaugeVec,
    pub(super) stale_tags: IntCounterVec,
    pub(super) expired: IntCounterVec,
}

impl UpstreamMetrics {
    pub(super) fn register(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let pulls_left = IntGaugeVec::new(
            Opts::new(
                "shoal_origin_upstream_ratelimit_remaining",
                "Pulls that an upstream said last are left before it refuses more",
            ),
            &["upstream"],
        )?;
        registry.register(Box::new(pulls_left.clone()))?;
        Ok(Self {
            requests: counter(
                "shoal_origin_upstream_requests_total",
                "Questions to upstream registries by what they are for and how they ended; paused ones were not put, since the upstream had said too many",
                &["upstream", "kind", "result"],
            )?,
            pulls_left,
            stale_tags: counter(
                "shoal_origin_upstream_stale_tags_total",
                "Tags that were answered by what is held while their upstream did not answer",
                &["upstream"],
            )?,
            expired: counter(
                "shoal_origin_upstream_expired_total",
                "Manifests that were unlinked because nobody had pulled them for the upstream's ttl",
                &["upstream"],
            )?,
        })
    }
}
