//! What the store tells Prometheus.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::eviction::{Kind, total};
use crate::store::Store;

/// What happened since the start.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    evictions: IntCounterVec,
    evicted_bytes: IntCounterVec,
    pub(crate) refusals: IntCounter,
}

impl Counters {
    pub(crate) fn evicted(&self, kind: Kind, bytes: u64) {
        let kind = match kind {
            Kind::Blob => "blob",
            Kind::Partial => "partial",
        };
        self.evictions.with_label_values(&[kind]).inc();
        self.evicted_bytes.with_label_values(&[kind]).inc_by(bytes);
    }
}

impl Default for Counters {
    fn default() -> Self {
        let by_kind = |name: &str, help: &str| {
            let made = IntCounterVec::new(Opts::new(name, help), &["kind"]);
            let vector = made.expect("name and label are well-formed");
            for kind in ["blob", "partial"] {
                vector.with_label_values(&[kind]);
            }
            vector
        };
        let refusals =
            IntCounter::new("shoal_store_refusals_total", "Blobs for which the store could make no room");
        Self {
            evictions: by_kind("shoal_store_evictions_total", "Blobs and partials given up for others"),
            evicted_bytes: by_kind("shoal_store_evicted_bytes_total", "Bytes of what was given up"),
            refusals: refusals.expect("the name is well-formed"),
        }
    }
}

/// Reads the store when it is asked.
struct StoreCollector {
    store: Store,
    gauges: Gauges,
}

struct Gauges {
    bytes: IntGauge,
    idle_bytes: IntGauge,
    blobs: IntGauge,
    partials: IntGauge,
    /// Of a store that has one.
    capacity: Option<IntGauge>,
}

impl Store {
    /// Registers `shoal_store_bytes`, `_idle_bytes`, `_capacity_bytes`, `_blobs`, `_partials`, `_evictions_total`,
    /// `_evicted_bytes_total` and `_refusals_total`.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let counters = &self.space.counters;
        registry.register(Box::new(counters.evictions.clone()))?;
        registry.register(Box::new(counters.evicted_bytes.clone()))?;
        registry.register(Box::new(counters.refusals.clone()))?;
        let capacity = || IntGauge::new("shoal_store_capacity_bytes", "Bytes that the store may have");
        let gauges = Gauges {
            bytes: IntGauge::new(
                "shoal_store_bytes",
                "Bytes of all blobs in the store, those on their way included",
            )?,
            idle_bytes: IntGauge::new(
                "shoal_store_idle_bytes",
                "Those of them that nobody reads or fetches now: what could be given up",
            )?,
            blobs: IntGauge::new("shoal_store_blobs", "Whole blobs in the store")?,
            partials: IntGauge::new("shoal_store_partials", "Blobs on their way in the store")?,
            capacity: self.capacity().map(|_| capacity()).transpose()?,
        };
        registry.register(Box::new(StoreCollector { store: self.clone(), gauges }))
    }
}

impl Gauges {
    fn all(&self) -> impl Iterator<Item = &IntGauge> {
        [&self.bytes, &self.idle_bytes, &self.blobs, &self.partials].into_iter().chain(&self.capacity)
    }
}

impl Collector for StoreCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.all().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Self { store, gauges } = self;
        let digests = store.digests();
        let whole = digests.iter().filter(|(_, whole)| *whole).count();
        gauges.bytes.set(number(store.bytes()));
        gauges.idle_bytes.set(number(total(&store.space.index.candidates())));
        gauges.blobs.set(number(whole as u64));
        gauges.partials.set(number((digests.len() - whole) as u64));
        if let (Some(gauge), Some(capacity)) = (&gauges.capacity, store.capacity()) {
            gauge.set(number(capacity));
        }
        gauges.all().flat_map(Collector::collect).collect()
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
