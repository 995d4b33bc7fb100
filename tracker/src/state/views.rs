//! What is known, for people: copies of some of it.

use std::time::{Duration, Instant};

use shoal_core::{Digest, PeerAddress, PeerId, Role, Zone};

use super::State;
use super::holders::{Key, Stake};

/// A node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Who and where.
    pub address: PeerAddress,
    /// How long its lease is good.
    pub lease: Duration,
    /// Blobs that it has, or asked for lately.
    pub holdings: usize,
    /// Whether it is kept out of answers, or of those to some.
    pub is_removed: bool,
}

/// A node that has some of a blob.
#[derive(Clone, Debug)]
pub struct HolderView {
    /// Who and where.
    pub address: PeerAddress,
    /// How much it has.
    pub share: Share,
    /// How long it has been known to.
    pub since: Duration,
}

/// How much of a blob a node has, as far as it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It asked for the blob, and said nothing yet.
    Asked,
    /// Some.
    Partial,
    /// All.
    Complete,
}

impl State {
    /// The nodes with a lease from a place in the list on, at most `limit`; and the place at which to go on, if there is more.
    /// Who comes or goes between two calls may be missed, all others are named once.
    #[must_use]
    pub fn nodes(&self, now: Instant, after: u64, limit: usize) -> (Vec<NodeView>, Option<u64>) {
        let start = usize::try_from(after).unwrap_or(usize::MAX);
        let (mut nodes, mut at) = (Vec::new(), start);
        let end = self.nodes.capacity();
        while at < end && nodes.len() < limit {
            nodes.extend(self.nodes.get(at).filter(|node| now < node.expires).map(|node| NodeView {
                address: node.address.clone(),
                lease: node.expires - now,
                holdings: node.holdings.len(),
                is_removed: node.absence.is_some_and(|absence| absence.holds(now, false)),
            }));
            at += 1;
        }
        let is_more = (at..end).any(|at| self.nodes.get(at).is_some_and(|node| now < node.expires));
        (nodes, is_more.then_some(at as u64))
    }

    /// Agents with a lease, and where they stand.
    pub(crate) fn agents(&self, now: Instant) -> impl Iterator<Item = (PeerId, &Zone)> {
        let live = self.nodes.iter().map(|(_, node)| node).filter(move |node| now < node.expires);
        let agents = live.map(|node| &node.address).filter(|address| address.role == Role::Agent);
        agents.map(|address| (address.id, &address.zone))
    }

    /// Where a node stands, if its lease is good.
    pub(crate) fn zone(&self, now: Instant, id: &PeerId) -> Option<&Zone> {
        let key = self.key(now, id)?;
        Some(&self.nodes.get(key as usize)?.address.zone)
    }

    /// How many of those agents have all of a blob.
    pub(crate) fn count_whole(
        &self,
        now: Instant,
        digest: &Digest,
        is_one: impl Fn(&PeerId, &Zone) -> bool,
    ) -> usize {
        let Some(holders) = self.blobs.get(digest) else { return 0 };
        let is_whole = |key: &Key| holders.stake(*key).is_some_and(Stake::is_complete);
        let nodes = holders.keys().filter(is_whole).filter_map(|key| self.nodes.get(key as usize));
        let live = nodes.filter(|node| now < node.expires && node.address.role == Role::Agent);
        live.filter(|node| is_one(&node.address.id, &node.address.zone)).count()
    }

    /// Nodes with a lease that have some of the blob, at most `limit`; and how many there are.
    #[must_use]
    pub fn holders(&self, now: Instant, digest: &Digest, limit: usize) -> (Vec<HolderView>, usize) {
        let Some(holders) = self.blobs.get(digest) else { return (Vec::new(), 0) };
        let live = |key: &Key| self.nodes.get(*key as usize).is_some_and(|node| now < node.expires);
        let holds = |key: &Key| holders.stake(*key).is_some_and(|stake| stake.holds(now));
        let mut keys: Vec<_> = holders.keys().filter(live).filter(holds).collect();
        keys.sort_unstable();
        let view = |&key: &Key| {
            Some(HolderView {
                address: self.nodes.get(key as usize)?.address.clone(),
                share: holders.stake(key)?.into(),
                since: now.saturating_duration_since(holders.since(key)?),
            })
        };
        (keys.iter().take(limit).filter_map(view).collect(), keys.len())
    }
}

impl From<Stake> for Share {
    fn from(stake: Stake) -> Self {
        match stake {
            Stake::Asked { .. } => Self::Asked,
            Stake::Announced { complete: false } => Self::Partial,
            Stake::Announced { complete: true } => Self::Complete,
        }
    }
}
