//! Asking for pieces, within the budgets of the peer and of the node, and what becomes of a request.

use rand::RngExt as _;
use shoal_core::{Digest, PeerId, PieceIndex, Role};

use super::{Engine, InFlight};
use crate::config::Config;
use crate::event::{Action, DisconnectReason, EventError, Message, PieceOutcome};
use crate::fetch::{Choice, Purpose};
use crate::peer::{Ask, after_last};
use crate::timers::Timer;

impl InFlight {
    fn has_room(&self, bytes: u64, config: &Config) -> bool {
        self.requests == 0
            || (self.requests < config.max_requests && self.bytes + bytes <= config.max_bytes_in_flight)
    }

    /// Whether not even the shortest piece may be asked for.
    fn is_full(&self, config: &Config) -> bool {
        self.requests > 0
            && (self.requests >= config.max_requests || self.bytes >= config.max_bytes_in_flight)
    }

    fn add(&mut self, ask: &Ask) {
        self.requests += 1;
        self.bytes += u64::from(ask.bytes);
    }

    pub(super) fn give_back(&mut self, ask: &Ask) {
        self.requests -= 1;
        self.bytes -= u64::from(ask.bytes);
    }
}

impl Engine {
    /// Asks a peer for as much as its slots and the budget allow.
    pub(super) fn feed(&mut self, id: &PeerId) {
        while self.feed_once(id) {}
    }

    /// Asks the peers of a swarm in turn for one piece each, agents first, until nobody can be asked for more.
    pub(super) fn feed_swarm(&mut self, digest: &Digest) {
        let Some(swarm) = self.swarms.get(digest).filter(|swarm| swarm.fetch.is_some()) else { return };
        let (origins, agents): (Vec<_>, Vec<_>) =
            swarm.members.iter().partition(|(_, member)| member.role == Role::Origin);
        let ids = |group: Vec<(&PeerId, _)>| group.into_iter().map(|(&id, _)| id).collect::<Vec<_>>();
        for mut group in [ids(agents), ids(origins)] {
            // A place in the order of names is no merit: somebody else is first each time.
            let first = self.rng.random_range(0..group.len().max(1));
            group.rotate_left(first);
            while !group.is_empty() {
                group.retain(|id| self.feed_once(id));
            }
        }
    }

    /// If the budget held somebody back and has room again: asks all peers in turn until it has none.
    pub(super) fn feed_held_back(&mut self) {
        if !self.in_flight.held_back || self.in_flight.is_full(&self.config) {
            return;
        }
        self.in_flight.held_back = false;
        for _ in 0..self.peers.len() {
            let Some(id) = self.next_to_feed() else { return };
            self.feed(&id);
            if self.in_flight.held_back {
                return;
            }
        }
    }

    fn next_to_feed(&mut self) -> Option<PeerId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = self.fed_last.map_or(Unbounded, Excluded);
        let next = self.peers.range((behind, Unbounded)).next().or_else(|| self.peers.iter().next());
        self.fed_last = next.map(|(&id, _)| id);
        self.fed_last
    }

    fn feed_once(&mut self, id: &PeerId) -> bool {
        let Some((digest, piece, purpose)) = self.choose(id) else { return false };
        self.ask(*id, digest, piece, purpose);
        true
    }

    /// What to ask that peer for next: its swarms take turns.
    fn choose(&mut self, id: &PeerId) -> Option<(Digest, PieceIndex, Purpose)> {
        let peer = self.peers.get(id)?;
        for digest in after_last(&self.fetching, peer.last_served) {
            let Some(swarm) = self.swarms.get(&digest) else { continue };
            let Some(fetch) = &swarm.fetch else { continue };
            let have = swarm.members.get(id).and_then(|member| member.have.as_ref());
            let Some(have) = have.filter(|_| peer.has_room(self.now, swarm.largest_piece(), &self.config))
            else {
                continue;
            };
            if !self.in_flight.has_room(swarm.largest_piece(), &self.config) {
                self.in_flight.held_back = true;
                continue;
            }
            match fetch.choose(self.now, (id, swarm.source(peer.role)), have, &self.config, &mut self.rng) {
                Choice::Piece(piece, purpose) => return Some((digest, piece, purpose)),
                Choice::Later(at) => self.timers.ring_by(self.now, Timer::Swarm(digest), at),
                Choice::Nothing => {}
            }
        }
        None
    }

    fn ask(&mut self, id: PeerId, digest: Digest, index: PieceIndex, purpose: Purpose) {
        let (Some(peer), Some(swarm)) = (self.peers.get_mut(&id), self.swarms.get_mut(&digest)) else {
            return;
        };
        let (Some(fetch), Some(piece)) = (&mut swarm.fetch, swarm.geometry.piece(index)) else { return };
        let ask = Ask { digest, piece: index, bytes: piece.length, at: self.now };
        fetch.ask(self.now, id, index, purpose);
        peer.ask(ask);
        peer.last_served = Some(digest);
        self.in_flight.add(&ask);
        if let Some(deadline) = peer.deadline(&self.config) {
            self.timers.ring_by(self.now, Timer::Peer(id), deadline);
        }
        self.send(id, Message::Request { digest, piece: index });
    }

    /// A request is not outstanding any more, at the peer and in the budget.
    pub(super) fn withdraw(&mut self, id: &PeerId, digest: &Digest, piece: PieceIndex) -> Option<Ask> {
        let ask = self.peers.get_mut(id)?.withdraw(digest, piece)?;
        self.in_flight.give_back(&ask);
        Some(ask)
    }

    /// A request that was withdrawn may be made elsewhere; an answer that is on its way is still taken.
    pub(super) fn put_back(&mut self, id: &PeerId, digest: &Digest, piece: PieceIndex) {
        let Some(swarm) = self.swarms.get_mut(digest) else { return };
        swarm.late.insert(*id, piece, self.config.max_late);
        if let Some(fetch) = &mut swarm.fetch {
            fetch.release(id, piece);
        }
    }

    /// Withdraws a request and says so.
    pub(super) fn cancel(&mut self, id: &PeerId, digest: &Digest, piece: PieceIndex) {
        if self.withdraw(id, digest, piece).is_none() {
            return;
        }
        if let Some(swarm) = self.swarms.get_mut(digest) {
            swarm.late.insert(*id, piece, self.config.max_late);
        }
        self.send(*id, Message::Cancel { digest: *digest, piece });
    }

    /// Gives up what a peer let time out, and asks the others first.
    pub(super) fn give_up_overdue(&mut self, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let overdue = peer.overdue(self.now, &self.config);
        if overdue.is_empty() {
            return;
        }
        peer.struck(self.now, &self.config);
        for (digest, piece) in &overdue {
            self.cancel(id, digest, *piece);
            self.put_back(id, digest, *piece);
        }
        let mut digests: Vec<_> = overdue.into_iter().map(|(digest, _)| digest).collect();
        digests.dedup();
        let replaced = digests.iter().any(|digest| self.is_to_be_replaced(id, digest));
        for digest in digests {
            self.lost_a_peer(&digest);
        }
        if replaced {
            self.disconnect(id, DisconnectReason::Replaced);
        }
        self.feed_held_back();
    }

    /// A peer will not send a piece: it is left alone for a while. Nothing happens if it was not asked (any more).
    pub(super) fn rejected(&mut self, id: &PeerId, digest: &Digest, piece: PieceIndex) {
        if self.is_out_of_range(digest, piece) {
            return self.violated(id);
        }
        if self.withdraw(id, digest, piece).is_none() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(id) {
            peer.rejected(self.now, &self.config);
            let until = peer.paused_until;
            self.timers.ring_by(self.now, Timer::Peer(*id), until);
        }
        self.put_back(id, digest, piece);
        self.lost_a_peer(digest);
        self.feed_held_back();
    }

    /// A piece that was asked for is here. An error if it was not asked for, or so long ago that it is forgotten.
    pub(super) fn received(
        &mut self,
        id: PeerId,
        digest: Digest,
        piece: PieceIndex,
        outcome: PieceOutcome,
    ) -> Result<(), EventError> {
        let swarm =
            self.swarms.get_mut(&digest).ok_or(EventError("a piece of a blob whose swarm is not open"))?;
        let was_late = swarm.late.remove(&id, piece);
        let ask = self.withdraw(&id, &digest, piece);
        if ask.is_none() && !was_late {
            return Err(EventError("a piece that was not asked for"));
        }
        match outcome {
            PieceOutcome::Good => self.good(id, digest, piece, ask),
            PieceOutcome::Corrupt => self.corrupt(id, digest, piece),
            PieceOutcome::NotStored => self.not_stored(id, digest, piece, ask),
        }
        self.feed(&id);
        self.feed_held_back();
        self.look_again_if_dry(&digest);
        Ok(())
    }

    fn good(&mut self, id: PeerId, digest: Digest, piece: PieceIndex, ask: Option<Ask>) {
        self.credit(&id, ask);
        let Some(swarm) = self.swarms.get_mut(&digest) else { return };
        let news = swarm.have.insert(piece);
        let Some(fetch) = swarm.fetch.as_deref_mut().filter(|_| news) else { return };
        if let Some(ask) = ask {
            fetch.measured(self.now.since(ask.at));
        }
        if let Some(member) = swarm.members.get_mut(&id).filter(|member| !member.proved) {
            member.proved = true;
            fetch.finder.proved(&id);
        }
        let losers = fetch.arrived(self.now, piece, &swarm.have, &self.config);
        let complete = swarm.have.is_full();
        for loser in losers.iter().filter(|loser| **loser != id) {
            self.cancel(loser, &digest, piece);
        }
        self.tell_all(&digest, &[piece]);
        if complete {
            self.complete(digest);
        }
        for loser in losers {
            self.feed(&loser);
        }
    }

    fn credit(&mut self, id: &PeerId, ask: Option<Ask>) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.delivered(self.now, ask, &self.config);
        }
    }

    fn corrupt(&mut self, id: PeerId, digest: Digest, piece: PieceIndex) {
        if let Some(fetch) = self.fetch_mut(&digest) {
            fetch.release(&id, piece);
        }
        self.bans.ban(self.now, id, self.now.after(self.config.ban_duration), self.config.max_bans);
        self.act(Action::Banned { peer: id, digest, piece });
        self.refuse(&id);
        self.disconnect(&id, DisconnectReason::Corrupt);
        self.feed_swarm(&digest);
    }

    /// The store failed, not the peer: the fetch rests, and ends if that happens several times in a row.
    fn not_stored(&mut self, id: PeerId, digest: Digest, piece: PieceIndex, ask: Option<Ask>) {
        self.credit(&id, ask);
        let (now, config) = (self.now, &self.config);
        let fetch = self.swarms.get_mut(&digest).and_then(|swarm| swarm.fetch.as_mut());
        let Some(fetch) = fetch else { return };
        fetch.release(&id, piece);
        fetch.store_failures += 1;
        if fetch.store_failures >= config.max_store_failures.max(1) {
            return self.give_up(&digest);
        }
        fetch.paused_until = now.after(config.store_backoff);
        self.timers.ring_by(now, Timer::Swarm(digest), fetch.paused_until);
    }

    /// A fetch that has nothing in flight is reviewed soon, for perhaps nobody is left.
    fn look_again_if_dry(&mut self, digest: &Digest) {
        let fetch = self.swarms.get(digest).and_then(|swarm| swarm.fetch.as_ref());
        if fetch.is_some_and(|fetch| fetch.asked.is_empty()) {
            self.timers.ring_by(self.now, Timer::Swarm(*digest), self.now);
        }
    }
}
