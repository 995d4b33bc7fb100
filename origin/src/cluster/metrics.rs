//! What an operator sees of a cluster of origins.

use prometheus::{IntCounter, IntGauge, Registry};

/// Progress of repair, and who is well.
#[derive(Clone, Debug)]
pub(super) struct ClusterMetrics {
    pub(super) well: IntGauge,
    pub(super) to_check: IntGauge,
    pub(super) under_replicated: IntGauge,
    pub(super) repaired: IntCounter,
    pub(super) repaired_bytes: IntCounter,
    pub(super) repairs_failed: IntCounter,
    pub(super) records_learned: IntCounter,
    pub(super) tag_ballots: IntCounter,
    pub(super) unconfirmed_tags: IntCounter,
    pub(super) tags_forgotten: IntCounter,
    pub(super) links_renewed: IntCounter,
    pub(super) links_forgotten: IntCounter,
    pub(super) surplus_dropped: IntCounter,
}

impl ClusterMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(format!("shoal_origin_cluster_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("shoal_origin_cluster_{name}_total"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            well: gauge("origins_well", "Origins that are well, as this one sees it, itself included.")?,
            to_check: gauge(
                "blobs_to_check",
                "Blobs of this origin that this round of repair has not compared yet.",
            )?,
            under_replicated: gauge(
                "blobs_under_replicated",
                "Blobs that the last comparison found at too few origins, and that this one copies to others.",
            )?,
            repaired: counter(
                "copies_repaired",
                "Copies that this origin gave to others to make up for lost ones.",
            )?,
            repaired_bytes: counter("repaired_bytes", "Bytes of the blobs of those copies.")?,
            repairs_failed: counter(
                "repairs_failed",
                "Copies that could not be given; the next round tries again.",
            )?,
            records_learned: counter(
                "records_learned",
                "Links and tags that this origin had missed, and took over.",
            )?,
            tag_ballots: counter(
                "tag_decisions",
                "Changes of tags, and uncertain answers about them, that this origin had all origins decide.",
            )?,
            unconfirmed_tags: counter(
                "unconfirmed_tags",
                "Tags that were answered by what this origin could find, since too few others answered it.",
            )?,
            tags_forgotten: counter(
                "tags_forgotten",
                "Deleted tags that all origins knew as deleted, so that this one had them forgotten.",
            )?,
            links_renewed: counter(
                "links_renewed",
                "Old links that pushes relied on, and that were put anew so that no collection removes them.",
            )?,
            links_forgotten: counter(
                "links_forgotten",
                "Deleted links that all origins knew as deleted, so that this one had them forgotten.",
            )?,
            surplus_dropped: counter(
                "surplus_dropped",
                "Copies that this origin removed since all origins to which the blob belongs have one.",
            )?,
        })
    }
}
