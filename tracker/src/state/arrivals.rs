//! Who has come to a blob since somebody was told whom to meet: what an answer may be waited for.

use std::time::Instant;

use shoal_core::{Digest, PeerId};

use super::State;
use super::holders::{Holders, Key};
use crate::handout::Policy;

/// Counts who comes to any blob, and when an origin came last.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    count: u64,
    /// An origin may have any blob.
    origin: u64,
}

/// The last two different nodes that came to a blob: whichever node asks, the last other one is among them.
#[derive(Debug, Default)]
pub(super) struct Latest {
    last: Option<(Key, u64)>,
    other: Option<(Key, u64)>,
}

impl State {
    /// How many came so far: what is to be known later by whoever is answered now.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.arrivals.count
    }

    /// Whether a node that was answered when `since` had come would be told of others now: somebody came to the blob after
    /// that, or an origin to the cluster, or there are more than one answer names.
    #[must_use]
    pub fn has_news(&self, policy: &Policy, id: &PeerId, digest: &Digest, since: u64) -> bool {
        if self.arrivals.origin > since {
            return true;
        }
        let Some(holders) = self.blobs.get(digest) else { return false };
        holders.latest().by_others(self.keys.get(id).copied()) > since || holders.len() > policy.size + 1
    }

    /// A node has come to a blob.
    pub(super) fn arrive(&mut self, key: Key, digest: &Digest) {
        self.arrivals.count += 1;
        if let Some(holders) = self.blobs.get_mut(digest) {
            holders.arrived(key, self.arrivals.count);
        }
    }

    /// An origin has come, or come back.
    pub(super) fn origin_arrives(&mut self) {
        self.arrivals.count += 1;
        self.arrivals.origin = self.arrivals.count;
    }

    /// A node that was out is named again: to those who ask for what it has it is as good as new.
    pub(super) fn return_from_absence(&mut self, now: Instant, key: Key) {
        let Some(node) = self.nodes.get_mut(key as usize) else { return };
        let Some(absence) = &mut node.absence else { return };
        absence.announced = true;
        if !absence.ends(now) {
            return;
        }
        node.absence = None;
        let (id, digests): (_, Vec<_>) = (node.address.id, node.holdings.iter().copied().collect());
        for digest in digests {
            self.arrive(key, &digest);
        }
        if self.origins.contains_key(&id) {
            self.origin_arrives();
        }
    }
}

impl Latest {
    pub(super) fn note(&mut self, key: Key, number: u64) {
        if self.last.is_some_and(|(last, _)| last != key) {
            self.other = self.last;
        }
        self.last = Some((key, number));
    }

    /// When somebody came who is not that node; 0: never.
    fn by_others(&self, key: Option<Key>) -> u64 {
        let other = [self.last, self.other].into_iter().flatten().find(|(came, _)| Some(*came) != key);
        other.map_or(0, |(_, number)| number)
    }
}

impl Holders {
    pub(super) fn arrived(&mut self, key: Key, number: u64) {
        self.latest_mut().note(key, number);
    }
}
