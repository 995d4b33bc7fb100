//! What the data plane counts. Each node has counters of its own; a registry takes them once.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use shoal_core::Role;

/// The counters and gauges of one node.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    received_from_agents: IntCounter,
    received_from_origins: IntCounter,
    pieces: IntCounterVec,
    pub(crate) bytes_sent: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) dials_failed: IntCounter,
    pub(crate) bans: IntCounter,
    pub(crate) uploads: IntGauge,
}

/// What became of a piece that arrived in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceResult {
    /// New and right.
    Good,
    /// Right, but already there.
    Duplicate,
    /// Its hash is wrong.
    Corrupt,
    /// It could not be written.
    NotStored,
}

impl Metrics {
    /// Makes them and hands them to `registry`; fails where another node's are in it.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let received = IntCounterVec::new(
            Opts::new(
                "shoal_piece_bytes_received_total",
                "Bytes of pieces that arrived in full, whatever came of them, by the role of the sender.",
            ),
            &["source"],
        )?;
        let pieces = IntCounterVec::new(
            Opts::new(
                "shoal_pieces_received_total",
                "Pieces that arrived in full, by result: good, duplicate (was there), corrupt (wrong hash), not_stored (disk).",
            ),
            &["result"],
        )?;
        registry.register(Box::new(received.clone()))?;
        registry.register(Box::new(pieces.clone()))?;
        Ok(Self {
            received_from_agents: received.with_label_values(&["peer"]),
            received_from_origins: received.with_label_values(&["origin"]),
            pieces,
            bytes_sent: counter(
                registry,
                "shoal_piece_bytes_sent_total",
                "Bytes of pieces that were sent in full.",
            )?,
            connections: gauge(registry, "shoal_peer_connections", "Connections to peers now.")?,
            dials_failed: counter(
                registry,
                "shoal_peer_dials_failed_total",
                "Dials of which no address answered as the peer that was dialled.",
            )?,
            bans: counter(registry, "shoal_peer_bans_total", "Peers banned for a corrupt piece.")?,
            uploads: gauge(registry, "shoal_uploads_in_flight", "Pieces that are being sent now.")?,
        })
    }

    /// Counts a piece that arrived in full.
    pub(crate) fn received(&self, source: Role, length: u64) {
        self.source(source).inc_by(length);
    }

    /// Counts what became of it.
    pub(crate) fn piece(&self, result: PieceResult) {
        let label = match result {
            PieceResult::Good => "good",
            PieceResult::Duplicate => "duplicate",
            PieceResult::Corrupt => "corrupt",
            PieceResult::NotStored => "not_stored",
        };
        self.pieces.with_label_values(&[label]).inc();
    }

    /// Bytes from nodes of a role so far.
    pub(crate) fn source(&self, role: Role) -> &IntCounter {
        match role {
            Role::Origin => &self.received_from_origins,
            Role::Agent | Role::Tracker => &self.received_from_agents,
        }
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}
