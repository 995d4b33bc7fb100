//! What the overlay costs and does, on `/metrics`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::overlay::transport::Meter;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) peers: IntGauge,
    pub(crate) members: IntGauge,
    pub(crate) records: IntGauge,
    pub(crate) announced: IntGauge,
    pub(crate) finds: IntCounterVec,
    pub(crate) publications: IntCounterVec,
    pub(crate) questions: IntCounterVec,
    pub(crate) notices: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) meter: Meter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("shoal_overlay_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(format!("shoal_overlay_{name}"), help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("shoal_overlay_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            peers: gauge("peers", "Nodes that are connected in the overlay.")?,
            members: gauge("members", "Nodes that told of themselves by gossip, as far as is remembered.")?,
            records: gauge("records", "Provider records that are kept for others.")?,
            announced: gauge("announced_blobs", "Blobs that this node announces in the overlay.")?,
            finds: counters(
                "finds_total",
                "Searches for a blob by the overlay, by how they ended.",
                "result",
            )?,
            publications: counters(
                "publications_total",
                "Own records sent out, by how that ended.",
                "result",
            )?,
            questions: counters("questions_total", "Questions of others, by what was answered.", "result")?,
            notices: counters("notices_total", "Gossip that came, by what became of it.", "result")?,
            refused: counters("refused_total", "What others said and was not believed.", "what")?,
            meter: Meter {
                received: counter("received_bytes_total", "Bytes that came over the overlay's connections.")?,
                sent: counter("sent_bytes_total", "Bytes that went over the overlay's connections.")?,
            },
        })
    }
}

/// A count as a gauge takes it.
pub(crate) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
