//! What the store tells Prometheus.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};

use crate::store::Store;

/// Reads the store when it is asked.
struct StoreCollector {
    store: Store,
    bytes: IntGauge,
    blobs: IntGauge,
    partials: IntGauge,
}

impl Store {
    /// Registers `shoal_store_bytes`, `shoal_store_blobs` and `shoal_store_partials`.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(StoreCollector {
            store: self.clone(),
            bytes: IntGauge::new(
                "shoal_store_bytes",
                "Bytes of all blobs in the store, those on their way included",
            )?,
            blobs: IntGauge::new("shoal_store_blobs", "Whole blobs in the store")?,
            partials: IntGauge::new("shoal_store_partials", "Blobs on their way in the store")?,
        }))
    }
}

impl Collector for StoreCollector {
    fn desc(&self) -> Vec<&Desc> {
        [&self.bytes, &self.blobs, &self.partials].into_iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let digests = self.store.digests();
        let whole = digests.iter().filter(|(_, whole)| *whole).count();
        self.bytes.set(i64::try_from(self.store.bytes()).unwrap_or(i64::MAX));
        self.blobs.set(count(whole));
        self.partials.set(count(digests.len() - whole));
        [&self.bytes, &self.blobs, &self.partials].into_iter().flat_map(Collector::collect).collect()
    }
}
