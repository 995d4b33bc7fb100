//! Hosts and the tracker.

use shoal_core::Role;
use shoal_swarm::{Candidate, Event, Priority, Scope};
use shoal_tracker::state::Holding;

use super::{Tick, World, nanos, number_of};
use crate::agenda::Time;
use crate::node::{BlobId, NodeId};
use crate::tracker::Tracker;

/// How long a node waits for a tracker that does not answer, in nanoseconds: as the tracker's client does.
const TIMEOUT: Time = 3_000_000_000;
/// Checking a signature and making room on disk, in nanoseconds.
const OPEN: Time = 500_000;

impl World<'_> {
    /// A container runtime asks a host for everything.
    pub(super) fn start(&mut self, node: NodeId) {
        for at in 0..self.blobs.len() {
            if !self.nodes[node as usize].disk[at].is_full() {
                self.ask_tracker(node, BlobId::try_from(at).expect("there are at most MAX_BLOBS"), true);
            }
        }
    }

    pub(super) fn ask_tracker(&mut self, node: NodeId, blob: BlobId, is_first: bool) {
        let life = self.nodes[node as usize].life;
        self.agenda.after(nanos(self.scenario.round_trip) / 2, Tick::Asked { node, blob, is_first, life });
    }

    /// A request is at the tracker.
    pub(super) fn asked(&mut self, node: NodeId, blob: BlobId, is_first: bool, life: u32) {
        if !self.is_alive(node, life) {
            return;
        }
        let now = self.agenda.now();
        if self.is_tracker_away() {
            let tick = match is_first {
                true => Tick::Asked { node, blob, is_first, life },
                false => Tick::Found { node, blob, is_first, life, candidates: Vec::new() },
            };
            return self.agenda.after(TIMEOUT, tick);
        }
        let answered = self.tracker.serve(now) + nanos(self.scenario.round_trip) / 2;
        let digest = self.blobs[usize::from(blob)].digest;
        let candidates = self.tracker.find(now, node, digest, &mut self.rng);
        let opened = if is_first { answered + OPEN } else { answered };
        self.agenda.at(opened, Tick::Found { node, blob, is_first, life, candidates });
    }

    pub(super) fn found(
        &mut self,
        node: NodeId,
        blob: BlobId,
        is_first: bool,
        life: u32,
        candidates: Vec<Candidate>,
    ) {
        if !self.is_alive(node, life) {
            return;
        }
        let digest = self.blobs[usize::from(blob)].digest;
        if !is_first {
            // Refused if the swarm was closed meanwhile.
            self.tell(node, Event::Found { digest, candidates });
            return;
        }
        let geometry = self.blobs[usize::from(blob)].geometry;
        let have = self.nodes[node as usize].disk[usize::from(blob)].clone();
        self.tell(
            node,
            Event::Fetch {
                digest,
                geometry,
                have,
                candidates,
                priority: Priority::Reader,
                scope: Scope::All,
            },
        );
        if self.scenario.readers {
            self.demand(node, blob);
        }
    }

    /// A blob is whole, and the tracker hears of it.
    pub(super) fn announced(&mut self, node: NodeId, blob: BlobId) {
        if self.nodes[node as usize].is_on {
            let digest = self.blobs[usize::from(blob)].digest;
            self.announce(node, vec![Holding { digest, complete: true }]);
        }
    }

    pub(super) fn heartbeat(&mut self, node: NodeId, life: u32) {
        if self.is_alive(node, life) {
            self.announce(node, Vec::new());
            self.agenda.after(nanos(Tracker::HEARTBEAT), Tick::Heartbeat { node, life });
        }
    }

    pub(super) fn announce(&mut self, node: NodeId, added: Vec<Holding>) {
        if self.is_tracker_away() {
            return;
        }
        let now = self.agenda.now();
        let (role, zone) = (self.nodes[node as usize].role, self.nodes[node as usize].zone);
        self.tracker.serve(now);
        self.tracker.announce(now, node, role, zone, added);
    }

    /// What a node that is back says that it has.
    pub(super) fn holdings(&self, node: NodeId) -> Vec<Holding> {
        let disk = self.nodes[node as usize].disk.iter().zip(&self.blobs);
        disk.filter(|(have, _)| have.count() > 0)
            .map(|(have, blob)| Holding { digest: blob.digest, complete: have.is_full() })
            .collect()
    }

    /// The agents, in an order that the seed decides.
    pub(super) fn shuffled_hosts(&mut self) -> Vec<NodeId> {
        use rand::seq::SliceRandom as _;
        let agents = self.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Agent);
        let mut agents: Vec<_> =
            agents.map(|(at, _)| number_of(at)).take(self.scenario.hosts as usize).collect();
        agents.shuffle(&mut self.rng);
        agents
    }
}
