//! Who is there, and who has what: pure, with time as an argument.
//!
//! Everything a node said is on lease. A lease that ran out counts as none from that moment on, whether or not a sweep
//! has come by, so nobody who fell silent is handed out. Holdings are kept twice, by node and by blob; both say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
pub use shoal_control::Holding;
use shoal_control::ServerUrl;
use shoal_core::{Digest, PeerAddress, PeerId, Role, Zone};

use crate::handout::Candidate;

/// What a tracker knows.
#[derive(Debug)]
pub struct State {
    lease: Duration,
    limits: Limits,
    nodes: HashMap<PeerId, Node>,
    blobs: HashMap<Digest, Holders>,
    origins: BTreeSet<PeerId>,
    holdings: usize,
    /// Every [`Stake::Asked`] there is, those that end first in front.
    asked: BTreeSet<(Instant, PeerId, Digest)>,
}

/// Limits of what is kept. Beyond them a node is told so, and what is known stays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Nodes, agents and origins together. Default 20,000: several times the largest clusters known.
    pub max_nodes: usize,
    /// Blobs of one node. Default 100,000: a host's disk has some thousand, so only origins come near.
    pub max_holdings_per_node: usize,
    /// Blobs of all nodes together. Default 4,000,000, which take about 800 MB.
    pub max_holdings: usize,
}

/// What a node says of itself, checked.
#[derive(Clone, Debug)]
pub struct Announce {
    /// Who and where.
    pub address: PeerAddress,
    /// An origin's internal API.
    pub api: Option<ServerUrl>,
    /// What it has.
    pub added: Vec<Holding>,
    /// What it has no more.
    pub removed: Vec<Digest>,
    /// Whether `added` replaces what it said before.
    pub everything: bool,
}

/// Whether the rest of what a node has is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The node said it before.
    Known,
    /// The node is new here, or its lease had run out: it must say everything.
    Missing,
}

/// More than a tracker keeps. What others said stays; the node's lease is renewed if there is room for the node at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too many nodes.
    #[error("the tracker knows {0} nodes already, which is its limit (limits.max_nodes)")]
    Nodes(usize),
    /// Too many blobs of this node.
    #[error("a node may announce {0} blobs (limits.max_holdings_per_node)")]
    HoldingsOfNode(usize),
    /// Too many blobs of all.
    #[error("the tracker keeps {0} holdings of all nodes together, which is its limit (limits.max_holdings)")]
    Holdings(usize),
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Agents, those included whose lease ran out since the last sweep.
    pub agents: usize,
    /// Origins, likewise.
    pub origins: usize,
    /// Blobs that somebody has.
    pub blobs: usize,
    /// Pairs of a node and a blob that it has.
    pub holdings: usize,
}

#[derive(Debug)]
struct Node {
    address: PeerAddress,
    api: Option<ServerUrl>,
    expires: Instant,
    holdings: HashSet<Digest>,
}

/// Each holder, and why it counts as one; ordered, so that the same history gives the same answers.
type Holders = BTreeMap<PeerId, Stake>;

/// Why a node counts as a holder of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stake {
    /// It asked for the blob, and so will have some of it soon. Unless it announces it, it only wanted to know.
    Asked { until: Instant },
    /// It said so.
    Announced { complete: bool },
}

impl State {
    /// Knows nobody yet; each announce is good for `lease`.
    #[must_use]
    pub fn new(lease: Duration, limits: Limits) -> Self {
        Self {
            lease,
            limits,
            nodes: HashMap::new(),
            blobs: HashMap::new(),
            origins: BTreeSet::new(),
            holdings: 0,
            asked: BTreeSet::new(),
        }
    }

    /// Takes what a node says. Its lease is renewed and what it removed is gone even if a limit keeps out what it added;
    /// of that, either all is taken or nothing.
    pub fn announce(&mut self, now: Instant, announce: Announce) -> Result<Memory, LimitError> {
        let Announce { address, api, added, removed, everything } = announce;
        let id = address.id;
        let memory = self.renew(now, address, api)?;
        if everything {
            self.forget_holdings(&id);
        }
        for digest in removed {
            self.remove_holding(&id, &digest);
        }
        self.make_room(&id, added.len(), &added)?;
        for Holding { digest, complete } in added {
            self.hold(&id, digest, Stake::Announced { complete });
        }
        Ok(if everything { Memory::Known } else { memory })
    }

    /// An agent that asks for a blob has its first pieces in a moment: from now on others who ask meet it. A node without
    /// a lease is left out, since nobody would know where to reach it; so is one at a limit. One that does not announce
    /// the blob within a lease only wanted to know of it.
    pub fn join(&mut self, now: Instant, id: &PeerId, digest: Digest) {
        if self.node(now, id).is_none() {
            return;
        }
        let stake = self.blobs.get(&digest).and_then(|holders| holders.get(id));
        let may_ask = match stake {
            Some(Stake::Announced { .. }) => false,
            Some(Stake::Asked { .. }) => true,
            None => self.make_room(id, 1, &[]).is_ok(),
        };
        if may_ask {
            self.hold(id, digest, Stake::Asked { until: now + self.lease });
        }
    }

    /// Forgets a node.
    pub fn leave(&mut self, id: &PeerId) {
        self.forget_holdings(id);
        self.nodes.remove(id);
        self.origins.remove(id);
    }

    /// Forgets every node whose lease has run out, and who asked for a blob and never announced it.
    pub fn sweep(&mut self, now: Instant) {
        let gone: Vec<_> =
            self.nodes.iter().filter(|(_, node)| node.expires <= now).map(|(id, _)| *id).collect();
        for id in gone {
            self.leave(&id);
        }
        while self.asked.first().is_some_and(|(until, ..)| *until <= now)
            && let Some((_, id, digest)) = self.asked.pop_first()
        {
            self.remove_holding(&id, &digest);
        }
    }

    /// Everybody who has some of the blob, and all origins: one that does not have it says so, and an origin may have got it
    /// since its last announce.
    #[must_use]
    pub fn candidates(&self, now: Instant, digest: &Digest) -> Vec<Candidate<'_>> {
        let none = Holders::new();
        let holders = self.blobs.get(digest).unwrap_or(&none);
        let known = holders.iter().filter_map(|(id, stake)| match *stake {
            Stake::Asked { until } => (now < until).then_some((id, false)),
            Stake::Announced { complete } => Some((id, complete)),
        });
        let unknown = self.origins.iter().filter(|id| !holders.contains_key(id)).map(|id| (id, false));
        known
            .chain(unknown)
            .filter_map(|(id, complete)| Some(Candidate { address: &self.node(now, id)?.address, complete }))
            .collect()
    }

    /// Where a node stands, as it said in its last announce.
    #[must_use]
    pub fn zone(&self, now: Instant, id: &PeerId) -> Option<&Zone> {
        self.node(now, id).map(|node| &node.address.zone)
    }

    /// The internal APIs of all origins.
    #[must_use]
    pub fn origin_apis(&self, now: Instant) -> Vec<ServerUrl> {
        self.origins.iter().filter_map(|id| self.node(now, id)?.api.clone()).collect()
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            agents: self.nodes.len() - self.origins.len(),
            origins: self.origins.len(),
            blobs: self.blobs.len(),
            holdings: self.holdings,
        }
    }

    fn node(&self, now: Instant, id: &PeerId) -> Option<&Node> {
        self.nodes.get(id).filter(|node| now < node.expires)
    }

    fn renew(
        &mut self,
        now: Instant,
        address: PeerAddress,
        api: Option<ServerUrl>,
    ) -> Result<Memory, LimitError> {
        let expires = now + self.lease;
        let id = address.id;
        if self.node(now, &id).is_none() {
            self.leave(&id);
        }
        match address.role {
            Role::Origin => self.origins.insert(id),
            Role::Agent | Role::Tracker => self.origins.remove(&id),
        };
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.address, node.api, node.expires) = (address, api, expires);
            return Ok(Memory::Known);
        }
        if self.nodes.len() >= self.limits.max_nodes {
            self.sweep(now);
        }
        if self.nodes.len() >= self.limits.max_nodes {
            self.origins.remove(&id);
            return Err(LimitError::Nodes(self.limits.max_nodes));
        }
        self.nodes.insert(id, Node { address, api, expires, holdings: HashSet::new() });
        Ok(Memory::Missing)
    }

    /// Whether there is room for so many more; `known` may be held already and then takes none.
    fn make_room(&self, id: &PeerId, count: usize, known: &[Holding]) -> Result<(), LimitError> {
        let held = self.nodes.get(id).map(|node| &node.holdings);
        let known = known.iter().filter(|one| held.is_some_and(|held| held.contains(&one.digest))).count();
        let new = count - known;
        if held.map_or(0, HashSet::len) + new > self.limits.max_holdings_per_node {
            return Err(LimitError::HoldingsOfNode(self.limits.max_holdings_per_node));
        }
        if self.holdings + new > self.limits.max_holdings {
            return Err(LimitError::Holdings(self.limits.max_holdings));
        }
        Ok(())
    }

    fn hold(&mut self, id: &PeerId, digest: Digest, stake: Stake) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.holdings.insert(digest) {
            self.holdings += 1;
        }
        let before = self.blobs.entry(digest).or_default().insert(*id, stake);
        if let Some(Stake::Asked { until }) = before {
            self.asked.remove(&(until, *id, digest));
        }
        if let Stake::Asked { until } = stake {
            self.asked.insert((until, *id, digest));
        }
    }

    fn remove_holding(&mut self, id: &PeerId, digest: &Digest) {
        if self.nodes.get_mut(id).is_some_and(|node| node.holdings.remove(digest)) {
            self.remove_holder(id, digest);
        }
    }

    fn forget_holdings(&mut self, id: &PeerId) {
        let holdings =
            self.nodes.get_mut(id).map(|node| std::mem::take(&mut node.holdings)).unwrap_or_default();
        for digest in holdings {
            self.remove_holder(id, &digest);
        }
    }

    fn remove_holder(&mut self, id: &PeerId, digest: &Digest) {
        self.holdings -= 1;
        if let Some(holders) = self.blobs.get_mut(digest) {
            if let Some(Stake::Asked { until }) = holders.remove(id) {
                self.asked.remove(&(until, *id, *digest));
            }
            if holders.is_empty() {
                self.blobs.remove(digest);
            }
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_nodes: 20_000, max_holdings_per_node: 100_000, max_holdings: 4_000_000 }
    }
}

#[cfg(test)]
mod tests;
