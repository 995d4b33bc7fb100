//! The tracker of the simulation: the real state and the real hand-out, with a queue in front.

use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use shoal_core::{Digest, PeerAddress, Role, Zone};
use shoal_swarm::Candidate;
use shoal_tracker::handout::Policy;
use shoal_tracker::state::{Announce, Holding, Limits, State};

use crate::agenda::Time;
use crate::node::{NodeId, name};

#[derive(Debug)]
pub(crate) struct Tracker {
    state: State,
    policy: Policy,
    /// Virtual time counts from here. Only differences matter, so every run is alike.
    epoch: Instant,
    service: Time,
    /// When each of its processors is free.
    free_at: Vec<Time>,
    /// Requests in each second.
    seconds: Vec<u32>,
}

impl Tracker {
    /// As tracker and agents have it by default.
    const LEASE: Duration = Duration::from_secs(60);
    pub(crate) const HEARTBEAT: Duration = Duration::from_secs(20);

    pub(crate) fn new(policy: Policy, service: Duration, processors: u32) -> Self {
        let limits = Limits { max_nodes: usize::MAX, max_holdings: usize::MAX, ..Limits::default() };
        Self {
            state: State::new(Self::LEASE, limits),
            policy,
            epoch: Instant::now(),
            service: u64::try_from(service.as_nanos()).unwrap_or(u64::MAX / 4),
            free_at: vec![0; processors.max(1) as usize],
            seconds: Vec::new(),
        }
    }

    /// Takes a request that came at `now` into its queue. Says when it is answered.
    pub(crate) fn serve(&mut self, now: Time) -> Time {
        let second = usize::try_from(now / 1_000_000_000).unwrap_or(usize::MAX / 2);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
        // There is one at least.
        let Some(free_at) = self.free_at.iter_mut().min() else { return now };
        *free_at = (*free_at).max(now) + self.service;
        *free_at
    }

    /// A node says that it is there, and what it has.
    pub(crate) fn announce(&mut self, now: Time, node: NodeId, role: Role, zone: u32, added: Vec<Holding>) {
        let address = PeerAddress {
            id: name(node),
            role,
            addresses: vec![([127, 0, 0, 1], 1).into()],
            zone: zone_name(zone),
        };
        let announce = Announce { address, api: None, added, removed: Vec::new(), everything: false };
        // There is no limit that it could meet.
        let _ = self.state.announce(self.instant(now), announce);
    }

    pub(crate) fn find(
        &mut self,
        now: Time,
        node: NodeId,
        digest: Digest,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Vec<Candidate> {
        let (now, id) = (self.instant(now), name(node));
        self.state.join(now, &id, digest);
        let chosen = self.state.meet(now, &self.policy, id, &digest, rng);
        let candidate = |peer: PeerAddress| Candidate { peer: peer.id, role: peer.role, zone: peer.zone };
        chosen.into_iter().map(candidate).collect()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.seconds.iter().map(|&count| u64::from(count)).sum()
    }

    pub(crate) fn peak(&self) -> u32 {
        self.seconds.iter().copied().max().unwrap_or(0)
    }

    fn instant(&self, now: Time) -> Instant {
        self.epoch + Duration::from_nanos(now)
    }
}

/// The name of a zone.
pub(crate) fn zone_name(zone: u32) -> Zone {
    Zone(format!("zone-{zone}"))
}
