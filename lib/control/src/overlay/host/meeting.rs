//! Meeting other nodes, and telling them what this one holds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libp2p::kad::QueryId;
use libp2p::kad::store::RecordStore as _;
use libp2p::mdns;
use libp2p::swarm::dial_opts::DialOpts;

use crate::overlay::addresses::{multiaddr, socket_address};
use crate::overlay::behaviour::{digest, key};
use crate::overlay::host::Host;
use crate::overlay::join;

/// How soon a node that knows nobody tries again.
const ALONE_INTERVAL: Duration = Duration::from_secs(2);
/// How often a node that knows somebody turns to `overlay.join` all the same, so that islands find each other.
const ISLAND_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How many nodes that told of themselves are tried when nobody is connected.
const MAX_RESERVE: usize = 8;
/// Records that are on their way out at a time: the last image's are with the others within seconds, and what a node that
/// starts has to say takes minutes.
const MAX_PUBLISHING: usize = 4;
/// How many nodes that multicast names are tried at once: it is heard without any proof.
const MAX_LOCAL: usize = 16;

impl Host {
    pub(super) fn meet_if_due(&mut self, now: Instant) {
        if now < self.meets_at || !self.resolving.is_empty() {
            return;
        }
        let interval = if self.book.len() == 0 { ALONE_INTERVAL } else { ISLAND_INTERVAL };
        self.meets_at = now + interval.mul_f64(rand::random_range(0.75..=1.25));
        let meetings = self.meetings.clone();
        self.resolving.spawn(async move { join::resolve(&meetings).await });
    }

    /// Dials them, and some that are remembered if nobody is there.
    pub(super) fn meet(&mut self, resolved: Vec<SocketAddr>) {
        let reserve = if self.book.len() == 0 { self.book.reserve(MAX_RESERVE) } else { Vec::new() };
        for address in resolved.into_iter().chain(reserve) {
            let is_own = self.swarm.external_addresses().any(|own| socket_address(own) == Some(address));
            if is_own || self.book.is_at(address) {
                continue;
            }
            if !self.belief.is_plausible(address) {
                tracing::warn!(%address, "overlay.join: not connected to, for no node may be there (overlay.networks)");
                continue;
            }
            // A dial that is refused now is tried again at the next meeting.
            let _ = self.swarm.dial(DialOpts::unknown_peer_id().address(multiaddr(address)).build());
        }
    }

    pub(super) fn on_local_search(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        let found = found.iter().take(MAX_LOCAL).filter_map(|(_, address)| socket_address(address));
        self.meet(found.filter(|address| self.belief.is_plausible(*address)).collect());
    }

    /// Publishes one blob that is due, and withdraws those that are not held any more.
    pub(super) fn publish(&mut self, now: Instant) {
        if self.holdings().take_withdrawing() {
            self.withdraw();
        }
        if self.book.len() == 0 || self.publishing.len() >= MAX_PUBLISHING {
            return;
        }
        let due = self.holdings().take_due(now, rand::random_range(0.0..1.0));
        if let Some(digest) = due
            && let Ok(query) = self.swarm.behaviour_mut().kad.start_providing(key(&digest))
        {
            self.publishing.insert(query, digest);
        }
    }

    pub(super) fn published(&mut self, query: QueryId, is_published: bool) {
        let Some(digest) = self.publishing.remove(&query) else { return };
        let result = if is_published { "done" } else { "failed" };
        self.metrics.publications.with_label_values(&[result]).inc();
        if !is_published {
            self.holdings().failed(&digest, Instant::now(), rand::random_range(0.0..1.0));
        }
    }

    fn withdraw(&mut self) {
        let provided: Vec<_> = self.records().provided().map(|record| record.key.clone()).collect();
        for key in provided {
            if digest(&key).is_none_or(|digest| !self.holdings().contains(&digest)) {
                self.swarm.behaviour_mut().kad.stop_providing(&key);
            }
        }
    }
}
