//! Who is there, and who has what: pure, with time as an argument.
//!
//! Everything a node said is on lease. A lease that ran out counts as none from that moment on, whether or not a sweep
//! has come by, so nobody who fell silent is handed out. Holdings are kept twice, by node and by blob; both say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use rand::Rng;
use serde::Deserialize;
pub use shoal_control::Holding;
use shoal_control::ServerUrl;
use shoal_core::{Digest, PeerAddress, PeerId, Role, Zone};
use slab::Slab;

use crate::handout::{Asker, Candidates, Policy, handout};
use arrivals::Arrivals;
use holders::{Holders, Key, Stake};
use replica::Versions;
use reports::{Absence, Handed, Reports};
pub use reports::{Removal, Reported, Scope};
pub use views::{HolderView, NodeView, Share};

/// What a tracker knows.
#[derive(Debug)]
pub struct State {
    lease: Duration,
    limits: Limits,
    nodes: Slab<Node>,
    keys: HashMap<PeerId, Key>,
    blobs: HashMap<Digest, Holders>,
    origins: BTreeMap<PeerId, Key>,
    holdings: usize,
    /// Every [`Stake::Asked`] there is, those that end first in front.
    asked: BTreeSet<(Instant, Key, Digest)>,
    /// What was said last of each node, where others say it too.
    versions: Versions,
    reports: Reports,
    arrivals: Arrivals,
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
    handed: Handed,
    absence: Option<Absence>,
}

impl State {
    /// Knows nobody yet; each announce is good for `lease`.
    #[must_use]
    pub fn new(lease: Duration, limits: Limits) -> Self {
        Self {
            lease,
            limits,
            nodes: Slab::new(),
            keys: HashMap::new(),
            blobs: HashMap::new(),
            origins: BTreeMap::new(),
            holdings: 0,
            asked: BTreeSet::new(),
            versions: Versions::default(),
            reports: Reports::new(Removal::default(), lease),
            arrivals: Arrivals::default(),
        }
    }

    /// The same, with other numbers of reports that remove a node.
    #[must_use]
    pub fn removing(mut self, removal: Removal) -> Self {
        self.reports = Reports::new(removal, self.lease);
        self
    }

    /// Takes what a node says. Its lease is renewed and what it removed is gone even if a limit keeps out what it added;
    /// of that, either all is taken or nothing.
    pub fn announce(&mut self, now: Instant, announce: Announce) -> Result<Memory, LimitError> {
        let Announce { address, api, added, removed, everything } = announce;
        let (id, is_origin) = (address.id, address.role == Role::Origin);
        let (key, memory) = self.renew(now, address, api)?;
        if everything {
            // It has just started: what was said of it was said of its life before.
            self.reports.forget(&id);
            self.forget_holdings(key);
        }
        self.return_from_absence(now, key);
        if is_origin && (everything || memory == Memory::Missing) {
            self.origin_arrives();
        }
        for digest in removed {
            self.remove_holding(key, &digest);
        }
        self.make_room(key, added.len(), &added)?;
        for Holding { digest, complete } in added {
            self.hold(now, key, digest, Stake::Announced { complete });
        }
        Ok(if everything { Memory::Known } else { memory })
    }

    /// An agent that asks for a blob has its first pieces in a moment: from now on others who ask meet it. A node without
    /// a lease is left out, since nobody would know where to reach it; so is one at a limit. One that does not announce
    /// the blob within a lease only wanted to know of it.
    pub fn join(&mut self, now: Instant, id: &PeerId, digest: Digest) {
        let Some(key) = self.key(now, id) else { return };
        let may_ask = match self.blobs.get(&digest).and_then(|holders| holders.stake(key)) {
            Some(Stake::Announced { .. }) => false,
            Some(Stake::Asked { .. }) => true,
            None => self.make_room(key, 1, &[]).is_ok(),
        };
        if may_ask {
            self.hold(now, key, digest, Stake::Asked { until: now + self.lease });
        }
    }

    /// Forgets a node.
    pub fn leave(&mut self, id: &PeerId) {
        if let Some(key) = self.keys.get(id).copied() {
            self.forget(key);
        }
    }

    /// Forgets every node whose lease has run out, and who asked for a blob and never announced it.
    pub fn sweep(&mut self, now: Instant) {
        let gone: Vec<_> =
            self.nodes.iter().filter(|(_, node)| node.expires <= now).map(|(key, _)| key as Key).collect();
        for key in gone {
            self.forget(key);
        }
        self.versions.sweep(now);
        while self.asked.first().is_some_and(|(until, ..)| *until <= now)
            && let Some((_, key, digest)) = self.asked.pop_first()
        {
            self.remove_holding(key, &digest);
        }
        self.reports.sweep(now);
    }

    /// Whom a node meets that asks for a blob, by that policy. Nobody is named whose lease is over, or whom others
    /// could not reach. All origins may be: one that does not have the blob says so, and one may have got it since its last
    /// announce. Where none could be reached, all are named: nobody else stands in for them.
    pub fn meet<R: Rng + ?Sized>(
        &self,
        now: Instant,
        policy: &Policy,
        id: PeerId,
        digest: &Digest,
        rng: &mut R,
    ) -> Vec<PeerAddress> {
        let (none, nowhere) = (Holders::default(), Zone::default());
        let holders = self.blobs.get(digest).unwrap_or(&none);
        let live = |key: Key| Some(&self.nodes.get(key as usize).filter(|node| now < node.expires)?.address);
        let asker = self.keys.get(&id).and_then(|&key| live(key));
        let zone = asker.map_or(&nowhere, |address| &address.zone);
        let holds = |key: Key| holders.stake(key).is_none_or(|stake| stake.holds(now));
        let there = |key: Key| live(key).filter(|_| holds(key));
        let address = |key: Key| there(key).filter(|_| self.may_be_named(now, key, zone));
        let is_complete = |key: Key| holders.stake(key).is_some_and(Stake::is_complete);
        let keys = self.origins.values().copied();
        let mut origins: Vec<_> =
            keys.clone().filter_map(|key| Some((address(key)?, is_complete(key)))).collect();
        if origins.is_empty() {
            origins = keys.filter_map(|key| Some((there(key)?, is_complete(key)))).collect();
        }
        let candidates = Candidates { agents: holders, origins, address: &address };
        handout(policy, &candidates, Asker { id, zone }, rng)
    }

    /// The internal APIs of all origins.
    #[must_use]
    pub fn origin_apis(&self, now: Instant) -> Vec<ServerUrl> {
        let live = self.origins.values().filter_map(|&key| self.nodes.get(key as usize));
        live.filter(|node| now < node.expires).filter_map(|node| node.api.clone()).collect()
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

    /// Of a node whose lease is good.
    fn key(&self, now: Instant, id: &PeerId) -> Option<Key> {
        let key = *self.keys.get(id)?;
        (now < self.nodes.get(key as usize)?.expires).then_some(key)
    }

    fn renew(
        &mut self,
        now: Instant,
        address: PeerAddress,
        api: Option<ServerUrl>,
    ) -> Result<(Key, Memory), LimitError> {
        let expires = now + self.lease;
        if self.key(now, &address.id).is_none() {
            self.leave(&address.id);
        }
        if let Some(&key) = self.keys.get(&address.id) {
            self.move_to(key, address);
            let node = &mut self.nodes[key as usize];
            (node.api, node.expires) = (api, expires);
            return Ok((key, Memory::Known));
        }
        if self.nodes.len() >= self.limits.max_nodes {
            self.sweep(now);
        }
        if self.nodes.len() >= self.limits.max_nodes {
            return Err(LimitError::Nodes(self.limits.max_nodes));
        }
        let (id, role) = (address.id, address.role);
        // As many nodes as there are names for fit into no memory.
        let node = Node {
            address,
            api,
            expires,
            holdings: HashSet::new(),
            handed: Handed::default(),
            absence: None,
        };
        let key = self.nodes.insert(node) as Key;
        self.keys.insert(id, key);
        if role == Role::Origin {
            self.origins.insert(id, key);
        }
        Ok((key, Memory::Missing))
    }

    /// A known node is at that address now. If its zone or role is another, it is found there from now on.
    fn move_to(&mut self, key: Key, address: PeerAddress) {
        let node = &mut self.nodes[key as usize];
        let stays = node.address.zone == address.zone && node.address.role == address.role;
        let before = std::mem::replace(&mut node.address, address);
        if stays {
            return;
        }
        let node = &self.nodes[key as usize];
        for digest in &node.holdings {
            let Some(holders) = self.blobs.get_mut(digest) else { continue };
            let Some(since) = holders.since(key) else { continue };
            if let Some(stake) = holders.remove(key, agents_zone(&before)) {
                holders.insert(key, stake, agents_zone(&node.address), since);
            }
        }
        match node.address.role {
            Role::Origin => self.origins.insert(node.address.id, key),
            Role::Agent | Role::Tracker => self.origins.remove(&node.address.id),
        };
    }

    fn forget(&mut self, key: Key) {
        self.forget_holdings(key);
        if let Some(node) = self.nodes.try_remove(key as usize) {
            self.keys.remove(&node.address.id);
            self.reports.forget(&node.address.id);
            self.origins.remove(&node.address.id);
        }
    }

    /// Whether there is room for so many more; `known` may be held already and then takes none.
    fn make_room(&self, key: Key, count: usize, known: &[Holding]) -> Result<(), LimitError> {
        let held = self.nodes.get(key as usize).map(|node| &node.holdings);
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

    fn hold(&mut self, now: Instant, key: Key, digest: Digest, stake: Stake) {
        let Some(node) = self.nodes.get_mut(key as usize) else { return };
        if node.holdings.insert(digest) {
            self.holdings += 1;
        }
        let holders = self.blobs.entry(digest).or_default();
        let before = holders.insert(key, stake, agents_zone(&node.address), now);
        if let Some(Stake::Asked { until }) = before {
            self.asked.remove(&(until, key, digest));
        }
        if let Stake::Asked { until } = stake {
            self.asked.insert((until, key, digest));
        }
        if before.is_none() {
            self.arrive(key, &digest);
        }
    }

    fn remove_holding(&mut self, key: Key, digest: &Digest) {
        if self.nodes.get_mut(key as usize).is_some_and(|node| node.holdings.remove(digest)) {
            self.remove_holder(key, digest);
        }
    }

    fn forget_holdings(&mut self, key: Key) {
        let node = self.nodes.get_mut(key as usize);
        let holdings = node.map(|node| std::mem::take(&mut node.holdings)).unwrap_or_default();
        for digest in holdings {
            self.remove_holder(key, &digest);
        }
    }

    fn remove_holder(&mut self, key: Key, digest: &Digest) {
        self.holdings -= 1;
        let zone = self.nodes.get(key as usize).and_then(|node| agents_zone(&node.address));
        if let Some(holders) = self.blobs.get_mut(digest) {
            if let Some(Stake::Asked { until }) = holders.remove(key, zone) {
                self.asked.remove(&(until, key, *digest));
            }
            if holders.is_empty() {
                self.blobs.remove(digest);
            }
        }
    }
}

/// Where an agent stands; origins are found wherever they are.
fn agents_zone(address: &PeerAddress) -> Option<&Zone> {
    (address.role != Role::Origin).then_some(&address.zone)
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_nodes: 20_000, max_holdings_per_node: 100_000, max_holdings: 4_000_000 }
    }
}

mod arrivals;
pub(crate) mod holders;
mod reachability;
pub(crate) mod replica;
mod reports;
#[cfg(test)]
mod tests;
mod views;
