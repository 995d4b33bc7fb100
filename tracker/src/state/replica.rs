//! The same state at several trackers: what a node says has a version, and the later one counts, in whatever order it comes.
//!
//! A node numbers what it says, so it does not matter to which tracker it said it, or how their clocks differ. Changes apply to the
//! version that they were made from and to no other: whoever lacks that one reads all that the node has.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shoal_control::Holding;
use shoal_core::PeerId;

use super::holders::Stake;
use super::{Announce, LimitError, Memory, State};

/// What was said of a node, in the order of the numbers.
pub(crate) type Version = u64;

/// The largest: what Lua, in which stores compare them, can tell from its neighbours. As microseconds, the year 2255.
pub(crate) const MAX_VERSION: Version = (1 << 53) - 1;

/// What of a node is news to others.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: PeerId,
    pub(crate) version: Version,
    pub(crate) said: Said,
}

#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// These changes to that version; to none of them (0) if it is everything.
    Changed { base: Version, announce: Box<Announce> },
    /// More than fits here: all that is known of it counts.
    Whole,
    /// Goodbye.
    Left,
}

/// All of a node.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) version: Version,
    /// For how long the lease is good.
    pub(crate) left: Duration,
    pub(crate) announce: Announce,
}

/// What came of what a node said itself.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) outcome: Result<Memory, LimitError>,
    /// The latest version of the node.
    pub(crate) version: Version,
    pub(crate) event: Option<Event>,
}

/// What came of what another tracker said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    Taken,
    /// What is known is later, or the same.
    Older,
    /// It builds on what is not known here: all of the node must be read.
    Gap,
    /// There is no room for it.
    Full,
}

/// The versions of nodes, those included that left, for a lease.
#[derive(Debug, Default)]
pub(super) struct Versions(HashMap<PeerId, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    version: Version,
    until: Instant,
    /// Whether the node said it here.
    heard: bool,
}

impl State {
    /// Takes what a node says to this tracker. `sequence`: its own number for it, or 0; `clock`: microseconds since 1970.
    pub(crate) fn hear(&mut self, now: Instant, clock: u64, sequence: u64, announce: Announce) -> Heard {
        let id = announce.address.id;
        let known = self.versions.of(now, &id);
        let version = number(sequence, clock, known);
        if version <= known {
            // A request that was overtaken; or the node's clock went back, and it is told beyond what to go.
            return Heard { outcome: Ok(Memory::Missing), version: known, event: None };
        }
        let is_new = self.key(now, &id).is_none();
        let said = if announce.everything || is_new {
            Said::Changed { base: 0, announce: Box::new(Announce { everything: true, ..announce.clone() }) }
        } else if known == 0 {
            Said::Whole
        } else {
            Said::Changed { base: known, announce: Box::new(announce.clone()) }
        };
        let outcome = self.announce(now, announce);
        let said = match (outcome, said) {
            (Err(LimitError::Nodes(_)), _) => return Heard { outcome, version: known, event: None },
            (Err(_), _) => Said::Whole,
            (Ok(_), said) => said,
        };
        self.note(id, Known { version, until: now + self.lease, heard: true });
        Heard { outcome, version, event: Some(Event { id, version, said }) }
    }

    /// Takes a node's goodbye.
    pub(crate) fn hear_leave(
        &mut self,
        now: Instant,
        clock: u64,
        sequence: u64,
        id: PeerId,
    ) -> Option<Event> {
        let known = self.versions.of(now, &id);
        let version = number(sequence, clock, known);
        (version > known).then(|| {
            self.leave(&id);
            self.note(id, Known { version, until: now + self.lease, heard: true });
            Event { id, version, said: Said::Left }
        })
    }

    /// Takes what another tracker was told.
    pub(crate) fn follow(&mut self, now: Instant, event: Event) -> Followed {
        let Event { id, version, said } = event;
        let known = self.versions.of(now, &id);
        if version <= known {
            return Followed::Older;
        }
        match said {
            Said::Left => self.leave(&id),
            Said::Whole => return Followed::Gap,
            Said::Changed { base, announce } => {
                let follows = base == known && self.key(now, &id).is_some();
                if base != 0 && !follows {
                    return Followed::Gap;
                }
                if self.announce(now, *announce).is_err() {
                    return Followed::Full;
                }
            }
        }
        self.note(id, Known { version, until: now + self.lease, heard: false });
        Followed::Taken
    }

    /// Takes all that is known of a node elsewhere, for as long as its lease is good there.
    pub(crate) fn adopt(&mut self, now: Instant, record: Record) -> Followed {
        let Record { version, left, announce } = record;
        let id = announce.address.id;
        if version <= self.versions.of(now, &id) {
            return Followed::Older;
        }
        if self.announce(now, announce).is_err() {
            return Followed::Full;
        }
        let until = now + left.min(self.lease);
        if let Some(&key) = self.keys.get(&id) {
            self.nodes[key as usize].expires = until;
        }
        self.note(id, Known { version, until, heard: false });
        Followed::Taken
    }

    /// All that is known of a node whose lease is good; without what it only asked for, which others learn when it has it.
    pub(crate) fn record(&self, now: Instant, id: &PeerId) -> Option<Record> {
        let node = self.nodes.get(self.key(now, id)? as usize)?;
        let key = self.keys[id];
        let held = |digest: &_| match self.blobs.get(digest)?.stake(key)? {
            Stake::Announced { complete } => Some(Holding { digest: *digest, complete }),
            Stake::Asked { .. } => None,
        };
        let announce = Announce {
            address: node.address.clone(),
            api: node.api.clone(),
            added: node.holdings.iter().filter_map(held).collect(),
            removed: Vec::new(),
            everything: true,
        };
        Some(Record { version: self.versions.of(now, id), left: node.expires - now, announce })
    }

    /// The nodes that said here what counts of them, with its version; those that said goodbye too.
    pub(crate) fn heard(&self, now: Instant) -> Vec<(PeerId, Version)> {
        let known = self.versions.0.iter().filter(|(_, known)| known.heard && now < known.until);
        known.map(|(id, known)| (*id, known.version)).collect()
    }

    fn note(&mut self, id: PeerId, known: Known) {
        self.versions.note(id, known, self.limits.max_nodes.saturating_mul(VERSIONS_PER_NODE));
    }
}

impl Versions {
    /// That of the latest word; 0: none is known.
    fn of(&self, now: Instant, id: &PeerId) -> Version {
        self.0.get(id).filter(|known| now < known.until).map_or(0, |known| known.version)
    }

    /// Beyond the limit new ones are not noted: whoever comes back within a lease may then be taken for who it was before.
    fn note(&mut self, id: PeerId, known: Known, max: usize) {
        if self.0.len() < max || self.0.contains_key(&id) {
            self.0.insert(id, known);
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, known| now < known.until);
    }
}

/// Each node that is known, and as many that left within the last lease.
const VERSIONS_PER_NODE: usize = 2;

/// The version of what a node says that numbers it, or does not.
fn number(sequence: u64, clock: u64, known: Version) -> Version {
    match sequence {
        1..=MAX_VERSION => sequence,
        _ => known.saturating_add(1).max(clock).min(MAX_VERSION),
    }
}

#[cfg(test)]
mod tests;
