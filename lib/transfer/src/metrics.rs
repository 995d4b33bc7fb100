//! What the data plane counts. Each node has counters of its own; a registry takes them once.

use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use shoal_core::Role;
use shoal_swarm::Priority;

use crate::limit::{Limiter, Limits, PRIORITIES};

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
    rate_limits: IntGaugeVec,
    waited: CounterVec,
}

/// Which way bytes of pieces go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To peers.
    Egress,
    /// From peers.
    Ingress,
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
        let rate_limits = IntGaugeVec::new(
            Opts::new(
                "shoal_rate_limit_bytes_per_second",
                "Configured limits of piece bytes, by direction and priority (all: together); none where unlimited.",
            ),
            &["direction", "priority"],
        )?;
        let waited = CounterVec::new(
            Opts::new(
                "shoal_rate_limit_wait_seconds_total",
                "Seconds that pieces waited for a rate limit, those of all pieces added up, by direction and priority.",
            ),
            &["direction", "priority"],
        )?;
        registry.register(Box::new(rate_limits.clone()))?;
        registry.register(Box::new(waited.clone()))?;
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
            rate_limits,
            waited,
        })
    }

    /// The limiter of one direction, which shows its limits and counts what is waited for it.
    pub(crate) fn limiter(&self, direction: Direction, limits: &Limits) -> Limiter {
        let direction = direction.label();
        let rates = PRIORITIES.map(|priority| (label(priority), limits.own(priority)));
        for (priority, rate) in rates.into_iter().chain([("all", limits.total)]) {
            if let Some(rate) = rate {
                let rate = i64::try_from(rate.bytes_per_second()).unwrap_or(i64::MAX);
                self.rate_limits.with_label_values(&[direction, priority]).set(rate);
            }
        }
        let waited = PRIORITIES.map(|priority| self.waited.with_label_values(&[direction, label(priority)]));
        Limiter::new(limits, waited)
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

impl Direction {
    fn label(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

fn label(priority: Priority) -> &'static str {
    match priority {
        Priority::Reader => "reader",
        Priority::Prefetch => "prefetch",
        Priority::Repair => "repair",
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

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;
    use crate::limit::Rate;

    #[tokio::test(start_paused = true)]
    async fn limits_are_shown_and_what_is_waited_for_them() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let limits = Limits { total: Rate::new(1_000_000), ..Limits::default() };
        let limiter = metrics.limiter(Direction::Egress, &limits);
        // What may go at once, and what has to wait for 5 ms.
        assert_eq!(limiter.take(Priority::Prefetch, 65_536).await, 10_000);
        assert_eq!(limiter.take(Priority::Prefetch, 65_536).await, 5_000);
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let shows =
            |line: &str| assert!(text.lines().any(|shown| shown.starts_with(line)), "{line} in {text}");
        shows(r#"shoal_rate_limit_bytes_per_second{direction="egress",priority="all"} 1000000"#);
        shows(r#"shoal_rate_limit_wait_seconds_total{direction="egress",priority="prefetch"} 0.00"#);
        shows(r#"shoal_rate_limit_wait_seconds_total{direction="egress",priority="reader"} 0"#);
        assert!(!text.contains(r#"per_second{direction="ingress""#), "{text}");
    }
}
