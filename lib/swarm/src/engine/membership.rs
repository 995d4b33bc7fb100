//! Who is in which swarm: swarms are opened, loaded and closed, peers join and leave them.
//!
//! A `Join` is answered by our own exactly once a stay, and not at all if ours came first, so that two engines never
//! answer each other for ever.

use std::ops::Range;

use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex};

use super::Engine;
use crate::event::{Action, Candidate, EventError, Message, Priority, Scope};
use crate::fetch::Fetch;
use crate::finder::Finder;
use crate::swarm::{Gain, Swarm};
use crate::timers::Timer;

/// Whether the members of a swarm are told that it is closed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The blob is gone.
    Absent,
    /// The blob is still here, and is loaded again when somebody asks.
    Silent,
}

impl Engine {
    /// Opens a swarm, or makes a seed fetch what it lacks. An error if it is being fetched, or if the pieces do not fit.
    pub(super) fn fetch(
        &mut self,
        digest: Digest,
        geometry: Geometry,
        have: Bitfield,
        candidates: Vec<Candidate>,
        priority: Priority,
        scope: Scope,
    ) -> Result<(), EventError> {
        if self.fetching.contains(&digest) {
            return Err(EventError("a fetch of a blob that is being fetched"));
        }
        let seed = self.swarms.get(&digest);
        if have.len() != geometry.piece_count() || seed.is_some_and(|seed| seed.geometry != geometry) {
            return Err(EventError("a fetch whose bitfield or geometry is not that of the blob"));
        }
        let gained = self.open(digest, geometry, have);
        self.note_news(&digest, gained);
        let Some(swarm) = self.swarms.get_mut(&digest) else { return Ok(()) };
        if swarm.have.is_full() {
            self.act(Action::Complete { digest });
        } else {
            swarm.start_fetch(self.now, Finder::new(self.now, candidates, &self.config), priority, scope);
            self.fetching.insert(digest);
            self.review_swarm(&digest);
        }
        self.admit_waiting(digest);
        Ok(())
    }

    /// Opens a swarm whose blob is here, whole or in part. An error if it is open, or if the pieces do not fit.
    pub(super) fn seed(
        &mut self,
        digest: Digest,
        geometry: Geometry,
        have: Bitfield,
    ) -> Result<(), EventError> {
        if self.swarms.contains_key(&digest) {
            return Err(EventError("a seed of a swarm that is open"));
        }
        if have.len() != geometry.piece_count() {
            return Err(EventError("a seed whose bitfield is not that of the blob"));
        }
        self.open(digest, geometry, have);
        self.admit_waiting(digest);
        Ok(())
    }

    /// Has more of a blob to serve. An error if it is not open, or fetched, or has no such pieces.
    pub(super) fn grew(&mut self, digest: &Digest, pieces: Vec<PieceIndex>) -> Result<(), EventError> {
        let swarm = self.swarms.get_mut(digest).ok_or(EventError("growth of a swarm that is not open"))?;
        if swarm.fetch.is_some() {
            return Err(EventError("growth of a blob that is being fetched"));
        }
        if pieces.iter().any(|piece| piece.0 >= swarm.geometry.piece_count()) {
            return Err(EventError("growth by a piece that the blob does not have"));
        }
        let news = swarm.grow(self.now, pieces);
        self.note_news(digest, news);
        Ok(())
    }

    /// Gives the pieces that an open swarm did not know of.
    fn open(&mut self, digest: Digest, geometry: Geometry, have: Bitfield) -> Vec<PieceIndex> {
        self.timers.ring_by(self.now, Timer::Swarm(digest), self.now.after(self.config.seed_idle_timeout));
        let Some(swarm) = self.swarms.get_mut(&digest) else {
            self.swarms.insert(digest, Swarm::new(self.now, geometry, have));
            return Vec::new();
        };
        let gained: Vec<_> = have.difference(&swarm.have).collect();
        for &piece in &gained {
            swarm.have.insert(piece);
        }
        gained
    }

    fn admit_waiting(&mut self, digest: Digest) {
        for (peer, have) in self.loads.remove(&digest).unwrap_or_default() {
            if let Some(have) = have {
                self.joined(peer, digest, have);
            }
        }
    }

    /// An error if nobody asked to load that blob.
    pub(super) fn not_held(&mut self, digest: Digest) -> Result<(), EventError> {
        let waiting =
            self.loads.remove(&digest).ok_or(EventError("an answer to a load that was not asked for"))?;
        for peer in waiting.into_keys() {
            self.send(peer, Message::Absent { digest });
        }
        Ok(())
    }

    /// An error if the swarm is not open.
    pub(super) fn close(&mut self, digest: &Digest) -> Result<(), EventError> {
        if !self.swarms.contains_key(digest) {
            return Err(EventError("a close of a swarm that is not open"));
        }
        self.close_swarm(digest, Farewell::Absent);
        Ok(())
    }

    pub(super) fn close_swarm(&mut self, digest: &Digest, farewell: Farewell) {
        let Some(swarm) = self.swarms.remove(digest) else { return };
        self.fetching.remove(digest);
        self.timers.clear(Timer::Swarm(*digest));
        self.timers.clear(Timer::News(*digest));
        self.uploads.forget_blob(digest);
        for (piece, asked) in swarm.fetch.iter().flat_map(|fetch| &fetch.asked) {
            for peer in &asked.peers {
                self.cancel(peer, digest, *piece);
            }
        }
        for peer in swarm.members.into_keys() {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.swarms.remove(digest);
            }
            if farewell == Farewell::Absent {
                self.send(peer, Message::Absent { digest: *digest });
            }
        }
        self.fill();
    }

    /// All pieces are here: from now on the swarm is a seed.
    pub(super) fn complete(&mut self, digest: Digest) {
        let Some(swarm) = self.swarms.get_mut(&digest) else { return };
        swarm.end_fetch();
        swarm.asked_at = self.now;
        self.fetching.remove(&digest);
        self.tell_news(&digest);
        self.act(Action::Complete { digest });
        self.timers.clear(Timer::Swarm(digest));
        self.timers.clear(Timer::News(digest));
        self.timers.ring_by(self.now, Timer::Swarm(digest), self.now.after(self.config.seed_idle_timeout));
    }

    /// Nothing happens if the blob is complete. An error if the swarm is not open.
    pub(super) fn demand(&mut self, digest: &Digest, pieces: Vec<Range<u32>>) -> Result<(), EventError> {
        let swarm = self.swarms.get_mut(digest).ok_or(EventError("a demand in a swarm that is not open"))?;
        let ahead = swarm.pieces_ahead(&self.config);
        if let Some(fetch) = &mut swarm.fetch
            && fetch.demand(self.now, pieces, ahead, &swarm.have, &self.config)
        {
            self.wanted_more(digest);
        }
        Ok(())
    }

    /// Nothing happens if the blob is complete. An error if the swarm is not open.
    pub(super) fn raise(&mut self, digest: &Digest, priority: Priority) -> Result<(), EventError> {
        let swarm = self.swarms.get_mut(digest).ok_or(EventError("a raise in a swarm that is not open"))?;
        if let Some(fetch) = &mut swarm.fetch
            && fetch.raise(self.now, priority, &swarm.have, &self.config)
        {
            self.wanted_more(digest);
        }
        Ok(())
    }

    /// A peer says that it is in a swarm. A bitfield of the wrong length is a violation.
    pub(super) fn joined(&mut self, id: PeerId, digest: Digest, have: Bitfield) {
        if u64::from(have.len()) > Geometry::MAX_PIECES {
            return self.violated(&id);
        }
        let Some(swarm) = self.swarms.get(&digest) else { return self.load(id, digest, Some(have)) };
        if have.len() != swarm.geometry.piece_count() {
            return self.violated(&id);
        }
        self.join(id, digest);
        let Some(swarm) = self.swarms.get_mut(&digest) else { return };
        if swarm.members.contains_key(&id) {
            swarm.heard(&id, have);
            self.look_at(&id);
        } else {
            self.send(id, Message::Absent { digest });
        }
    }

    /// Asks whether a blob is here that a peer wants; until that is known the peer waits, with what it said.
    pub(super) fn load(&mut self, id: PeerId, digest: Digest, have: Option<Bitfield>) {
        if let Some(said) = self.loads.get_mut(&digest).and_then(|waiting| waiting.get_mut(&id)) {
            *said = have.or(said.take());
            return;
        }
        let open = self.loads.contains_key(&digest);
        let of_peer = self.loads.values().filter(|waiting| waiting.contains_key(&id)).count();
        let full = !open && self.loads.len() >= self.config.max_loads.max(1);
        if full || of_peer >= self.config.max_loads_per_peer.max(1) {
            return self.send(id, Message::Absent { digest });
        }
        self.loads.entry(digest).or_default().insert(id, have);
        if !open {
            self.act(Action::Load { digest });
        }
    }

    /// A peer left a swarm, or was never in it. Nothing happens if we are not in it either.
    pub(super) fn absent(&mut self, id: &PeerId, digest: &Digest) {
        self.uploads.cancel(id, |other, _| other == digest);
        self.leave(id, digest);
    }

    /// A peer is not in the swarm any more; what it was asked for is asked of others.
    pub(super) fn leave(&mut self, id: &PeerId, digest: &Digest) {
        let (Some(peer), Some(swarm)) = (self.peers.get_mut(id), self.swarms.get_mut(digest)) else { return };
        if swarm.forget(id).is_none() {
            return;
        }
        peer.swarms.remove(digest);
        let asked: Vec<_> =
            peer.asked.iter().filter(|ask| ask.digest == *digest).map(|ask| ask.piece).collect();
        if let Some(fetch) = &mut swarm.fetch {
            fetch.finder.failed(self.now, id, &self.config);
        }
        for piece in asked {
            self.withdraw(id, digest, piece);
            self.put_back(id, digest, piece);
        }
        self.lost_a_peer(digest);
    }

    /// A member of a swarm has more pieces. `None` if it is no member: what it says is then of no use.
    pub(super) fn gained(&mut self, id: PeerId, digest: Digest, pieces: &[PieceIndex]) -> Option<()> {
        let swarm = self.swarms.get_mut(&digest)?;
        match swarm.gained(self.now, &id, pieces) {
            Gain::Taken { wanted: false } => {}
            Gain::Taken { wanted: true } => {
                for (peer, piece) in swarm.overtaken(self.now, &id, pieces) {
                    self.cancel(&peer, &digest, piece);
                    self.put_back(&peer, &digest, piece);
                }
                self.promising.insert(id);
                self.fill();
            }
            Gain::NoMember | Gain::NoSuchPiece => return None,
        }
        Some(())
    }

    /// What a peer says to have that is no member, or of pieces that do not exist, which is a violation.
    pub(super) fn gained_nothing(&mut self, id: &PeerId, digest: &Digest, pieces: &[PieceIndex]) {
        let swarm = self.swarms.get(digest);
        if swarm.is_some_and(|swarm| pieces.iter().any(|piece| piece.0 >= swarm.geometry.piece_count())) {
            self.violated(id);
        }
    }

    /// The members of a swarm are to hear of a piece: at once, or together with others.
    pub(super) fn note_news(&mut self, digest: &Digest, pieces: impl IntoIterator<Item = PieceIndex>) {
        let Some(swarm) = self.swarms.get_mut(digest) else { return };
        swarm.news.extend(pieces);
        let due = swarm.told_at.map_or(self.now, |told| told.after(self.config.news_interval));
        if due <= self.now || swarm.news.len() >= Message::MAX_NEWS {
            self.tell_news(digest);
        } else {
            self.timers.ring_by(self.now, Timer::News(*digest), due);
        }
    }

    /// Tells every member what is new here and it does not have itself.
    pub(super) fn tell_news(&mut self, digest: &Digest) {
        let Some(swarm) = self.swarms.get_mut(digest) else { return };
        let news = std::mem::take(&mut swarm.news);
        if news.is_empty() {
            return;
        }
        swarm.told_at = Some(self.now);
        for (&peer, member) in swarm.members.iter().filter(|(_, member)| member.told) {
            let lacks =
                |piece: &&PieceIndex| !member.have.as_ref().is_some_and(|have| have.contains(**piece));
            let lacking: Vec<_> = news.iter().filter(lacks).copied().collect();
            for pieces in lacking.chunks(Message::MAX_NEWS) {
                let message = Message::Have { digest: *digest, pieces: pieces.to_vec() };
                self.actions.push_back(Action::Send { peer, message });
            }
        }
    }

    pub(super) fn fetch_mut(&mut self, digest: &Digest) -> Option<&mut Fetch> {
        self.swarms.get_mut(digest)?.fetch.as_deref_mut()
    }
}
