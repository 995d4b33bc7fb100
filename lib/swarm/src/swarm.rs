//! One blob among those who exchange it: what we have, who else is there, and what each of them has.
//!
//! Invariant: while the blob is being fetched, the bitfield of each agent of our zone is counted in the picker exactly once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Role};

use crate::config::Config;
use crate::event::{Moment, Priority, Scope};
use crate::fetch::{Fetch, Source};
use crate::finder::Finder;
use crate::peer::Peer;
use crate::picker::{Counted, Picker};
use crate::uploads::{Sends, Waiting};

#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) geometry: Geometry,
    pub(crate) have: Bitfield,
    pub(crate) members: BTreeMap<PeerId, Member>,
    /// None for a seed.
    pub(crate) fetch: Option<Box<Fetch>>,
    pub(crate) late: Late,
    /// How each piece went out; grown as far as needed.
    sends: Vec<Sends>,
    /// Whether all of it was here from the beginning, or comes another way: this node is where others have it from.
    is_source: bool,
    /// Pieces of which the members have not heard.
    pub(crate) news: Vec<PieceIndex>,
    /// When they heard of some last.
    pub(crate) told_at: Option<Moment>,
    /// When somebody asked for a piece last, or the swarm was opened.
    pub(crate) asked_at: Moment,
}

/// A connected peer that is in the swarm, as far as we know.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) role: Role,
    pub(crate) is_near: bool,
    /// None until it says so.
    pub(crate) have: Option<Bitfield>,
    /// Whether our `Join` was sent.
    pub(crate) told: bool,
    pub(crate) since: Moment,
    /// Whether it brought a good piece.
    pub(crate) proved: bool,
    /// When it said last that it has more: most of what is heard, and booked here alone.
    pub(crate) heard_at: Moment,
    counted: Counted,
}

/// What became of the news of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gain {
    /// It is booked. `wanted`: some of it is missing here, and being fetched.
    Taken { wanted: bool },
    /// The peer is not in the swarm.
    NoMember,
    /// The blob has no such piece.
    NoSuchPiece,
}

/// Requests that were given up, and may still be answered. Bounded: the oldest are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Late(VecDeque<(PeerId, PieceIndex)>);

impl Swarm {
    /// A seed, whole or partial.
    pub(crate) fn new(now: Moment, geometry: Geometry, have: Bitfield) -> Self {
        Self {
            geometry,
            is_source: have.is_full(),
            have,
            members: BTreeMap::new(),
            fetch: None,
            late: Late::default(),
            sends: Vec::new(),
            news: Vec::new(),
            told_at: None,
            asked_at: now,
        }
    }

    /// Takes pieces that came another way; gives those that are new.
    pub(crate) fn grow(&mut self, now: Moment, mut pieces: Vec<PieceIndex>) -> Vec<PieceIndex> {
        self.is_source = true;
        self.asked_at = now;
        pieces.retain(|&piece| self.have.insert(piece));
        pieces
    }

    /// Begins to fetch what is missing, as far as it is wanted.
    pub(crate) fn start_fetch(&mut self, now: Moment, finder: Finder, priority: Priority, scope: Scope) {
        let mut fetch = Fetch::new(now, &self.have, finder, priority, scope);
        for member in self.members.values_mut() {
            member.count_in(&mut fetch.picker);
        }
        self.fetch = Some(Box::new(fetch));
    }

    /// Ends the fetch; the swarm is a seed from now on.
    pub(crate) fn end_fetch(&mut self) -> Option<Box<Fetch>> {
        for member in self.members.values_mut() {
            member.counted = Counted::No;
        }
        self.fetch.take()
    }

    /// What a peer is, as one to be asked.
    pub(crate) fn source(&self, peer: &Peer) -> Source {
        match (peer.role, peer.is_near) {
            (Role::Agent | Role::Tracker, true) => Source::Near,
            _ if self.members.values().any(Member::is_near_agent) => Source::Shared,
            _ => Source::Alone,
        }
    }

    /// A piece that a peer asks for, if it is here.
    pub(crate) fn waiting(
        &self,
        now: Moment,
        digest: Digest,
        piece: PieceIndex,
        priority: Priority,
    ) -> Option<Waiting> {
        let sends = self.sends.get(piece.0 as usize).copied().unwrap_or_default();
        self.have.contains(piece).then_some(Waiting { digest, piece, priority, sends, since: now })
    }

    /// A piece is being sent to somebody. `usual`: how long that takes of late.
    pub(crate) fn sent(&mut self, now: Moment, piece: PieceIndex, usual: Duration, config: &Config) -> Sends {
        let at = piece.0 as usize;
        if self.sends.len() <= at {
            self.sends.resize(at + 1, Sends::default());
        }
        let sends = &mut self.sends[at];
        sends.copies = sends.copies.saturating_add(1);
        let is_held = self.is_source && sends.copies <= config.held_copies;
        sends.held_until = if is_held { now.after(config.hold) } else { Moment::default() };
        // Whoever is much slower than others is not waited for, nor is a second one that did not pass it on.
        let until = if sends.copies == 1 { now.after(usual * 2 + config.reader_hold) } else { now };
        sends.held_from_readers_until = sends.held_until.min(until);
        *sends
    }

    /// A piece was sent: those who read may soon have it from whoever got it.
    pub(crate) fn sent_whole(&mut self, now: Moment, piece: PieceIndex, config: &Config) -> Option<Sends> {
        let sends = self.sends.get_mut(piece.0 as usize)?;
        let until = now.after(config.reader_hold);
        sends.held_from_readers_until = sends.held_from_readers_until.min(until);
        Some(*sends)
    }

    /// How many bytes a request takes at most.
    pub(crate) fn largest_piece(&self) -> u64 {
        self.geometry.length().min(u64::from(self.geometry.piece_length().bytes()))
    }

    /// How many pieces lie within `read_ahead` of a reader; one at least.
    pub(crate) fn pieces_ahead(&self, config: &Config) -> u32 {
        let pieces = config.read_ahead.div_ceil(u64::from(self.geometry.piece_length().bytes()));
        u32::try_from(pieces.max(1)).unwrap_or(u32::MAX)
    }

    /// Whether a member has something that is wanted here.
    pub(crate) fn can_use(&self, member: &Member) -> bool {
        member.can_give(self.fetch.as_ref().map_or(&self.have, |fetch| fetch.settled(&self.have)))
    }

    pub(crate) fn member(&mut self, now: Moment, id: PeerId, peer: &Peer) -> &mut Member {
        self.members.entry(id).or_insert(Member {
            role: peer.role,
            is_near: peer.is_near,
            have: None,
            told: false,
            since: now,
            proved: false,
            heard_at: now,
            counted: Counted::No,
        })
    }

    /// A member says what it has; what it said before is void.
    pub(crate) fn heard(&mut self, peer: &PeerId, have: Bitfield) {
        let Some(member) = self.members.get_mut(peer) else { return };
        member.says(have, self.fetch.as_deref_mut().map(|fetch| &mut fetch.picker));
    }

    /// A peer says that it has these pieces now.
    pub(crate) fn gained(&mut self, now: Moment, peer: &PeerId, pieces: &[PieceIndex]) -> Gain {
        if pieces.iter().any(|piece| piece.0 >= self.geometry.piece_count()) {
            return Gain::NoSuchPiece;
        }
        let Some(member) = self.members.get_mut(peer) else { return Gain::NoMember };
        member.heard_at = now;
        let mut picker = self.fetch.as_deref_mut().map(|fetch| &mut fetch.picker);
        if member.have.is_none() {
            member.says(Bitfield::empty(self.have.len()), picker.as_deref_mut());
        }
        let (Some(theirs), counted) = (&mut member.have, member.counted) else { return Gain::NoMember };
        let mut wanted = false;
        for &piece in pieces {
            if !theirs.insert(piece) {
                continue;
            }
            wanted |= !self.have.contains(piece);
            if let (Counted::Pieces, Some(picker)) = (counted, picker.as_deref_mut()) {
                picker.count(piece);
            }
        }
        Gain::Taken { wanted: wanted && picker.is_some() }
    }

    /// Of pieces that a peer has now: those for which an origin or a far agent was asked, long enough ago that a near agent
    /// is quicker. Whoever waits there for what is here by now only keeps others from what is not.
    pub(crate) fn overtaken(
        &self,
        now: Moment,
        by: &PeerId,
        pieces: &[PieceIndex],
    ) -> Vec<(PeerId, PieceIndex)> {
        let is_near = |peer| self.members.get(peer).is_some_and(Member::is_near_agent);
        let Some(fetch) = self.fetch.as_ref().filter(|_| is_near(by)) else { return Vec::new() };
        let late = pieces.iter().filter_map(|&piece| Some((piece, fetch.asked_late(now, piece)?)));
        let scarce = late.filter(|(_, peers)| !peers.iter().any(is_near));
        scarce.flat_map(|(piece, peers)| peers.iter().map(move |&peer| (peer, piece))).collect()
    }

    pub(crate) fn forget(&mut self, peer: &PeerId) -> Option<Member> {
        let mut member = self.members.remove(peer)?;
        if let Some(fetch) = &mut self.fetch {
            member.count_out(&mut fetch.picker);
        }
        Some(member)
    }

    /// Panics unless rarities are what a recount of the bitfields gives.
    #[cfg(test)]
    pub(crate) fn audit(&self, config: &Config) {
        let Some(fetch) = &self.fetch else { return };
        fetch.audit(&self.have, config);
        assert!(!self.have.is_full());
        for piece in Bitfield::full(self.have.len()).iter() {
            let agents = self.members.values().filter(|member| member.is_near_agent());
            let holders =
                agents.filter(|member| member.have.as_ref().is_some_and(|have| have.contains(piece)));
            assert_eq!(holders.count(), fetch.picker.rarity(piece) as usize, "piece {piece}");
        }
    }
}

impl Member {
    /// Whether it is one of those whose pieces are counted: an agent of our zone.
    pub(crate) fn is_near_agent(&self) -> bool {
        self.is_near && self.role != Role::Origin
    }

    /// Whether it has something that `ours` lacks.
    pub(crate) fn can_give(&self, ours: &Bitfield) -> bool {
        self.have.as_ref().is_some_and(|have| have.difference(ours).next().is_some())
    }

    /// Whether it lacks something of `ours`.
    pub(crate) fn can_take(&self, ours: &Bitfield) -> bool {
        self.have.as_ref().is_some_and(|have| ours.difference(have).next().is_some())
    }

    /// It has these, whatever it said before.
    fn says(&mut self, have: Bitfield, picker: Option<&mut Picker>) {
        match picker {
            Some(picker) => {
                self.count_out(picker);
                self.have = Some(have);
                self.count_in(picker);
            }
            None => self.have = Some(have),
        }
    }

    fn count_in(&mut self, picker: &mut Picker) {
        self.counted = match &self.have {
            Some(have) if self.is_near_agent() => picker.count_all(have),
            _ => Counted::No,
        };
    }

    fn count_out(&mut self, picker: &mut Picker) {
        if let Some(have) = &self.have {
            picker.uncount_all(self.counted, have);
        }
        self.counted = Counted::No;
    }
}

impl Late {
    pub(crate) fn insert(&mut self, peer: PeerId, piece: PieceIndex, limit: usize) {
        self.0.push_back((peer, piece));
        while self.0.len() > limit {
            self.0.pop_front();
        }
    }

    /// Whether that was given up; if so, it is not any more.
    pub(crate) fn remove(&mut self, peer: &PeerId, piece: PieceIndex) -> bool {
        let at = self.0.iter().position(|(by, late)| by == peer && *late == piece);
        at.is_some_and(|at| self.0.remove(at).is_some())
    }
}
