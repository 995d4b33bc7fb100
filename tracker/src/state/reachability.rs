//! What nodes say of others that they cannot reach, and what it does.

use std::net::IpAddr;
use std::time::Instant;

use shoal_core::{PeerAddress, PeerId, Zone};

use super::State;
use super::holders::Key;
use super::reports::{Absence, Reported, Reporter, Scope};

impl State {
    /// Remembers whom a node was told to meet: it may report them.
    pub fn handed(&mut self, id: &PeerId, peers: &[PeerAddress]) {
        let key = self.keys.get(id);
        if let Some(node) = key.and_then(|&key| self.nodes.get_mut(key as usize)) {
            peers.iter().for_each(|peer| node.handed.add(&peer.id));
        }
    }

    /// A node that calls from `source` could not reach `peer`. Enough such reports, and it is handed out no more until it
    /// announces itself again, or for longer if that happens to it again and again.
    pub fn unreachable(&mut self, now: Instant, by: &PeerId, source: IpAddr, peer: &PeerId) -> Reported {
        let (Some(by), Some(about)) = (self.key(now, by), self.key(now, peer)) else {
            return Reported::Ignored;
        };
        let (reporter, node) = (&self.nodes[by as usize], &self.nodes[about as usize]);
        let is_near = reporter.address.zone.is_near(&node.address.zone);
        let is_out = node.absence.is_some_and(|absence| absence.holds(now, is_near));
        if by == about || is_out || !reporter.handed.contains(peer) {
            return Reported::Ignored;
        }
        let reporter = Reporter { id: reporter.address.id, source: source.to_canonical(), is_near };
        let reported = self.reports.report(now, *peer, reporter);
        if let Reported::Removed(scope) = reported {
            self.remove(now, about, scope);
        }
        reported
    }

    /// Whether the node is named to nobody, or to none of some askers, at that time.
    #[must_use]
    pub fn is_removed(&self, now: Instant, id: &PeerId) -> bool {
        let node = self.keys.get(id).and_then(|&key| self.nodes.get(key as usize));
        node.is_some_and(|node| node.absence.is_some_and(|absence| absence.holds(now, false)))
    }

    /// Whether that node may be named to an asker of that zone.
    pub(super) fn may_be_named(&self, now: Instant, key: Key, zone: &Zone) -> bool {
        let node = self.nodes.get(key as usize);
        node.is_some_and(|node| {
            let is_near = node.address.zone.is_near(zone);
            node.absence.is_none_or(|absence| !absence.holds(now, is_near))
        })
    }

    fn remove(&mut self, now: Instant, key: Key, scope: Scope) {
        let Some(node) = self.nodes.get_mut(key as usize) else { return };
        let not_before = match node.absence {
            // Those of its own data centre confirm what the others said.
            Some(absence) if absence.holds(now, false) => absence.not_before,
            _ => self.reports.strike(now, node.address.id),
        };
        node.absence = Some(Absence { scope, not_before, announced: false });
    }
}
