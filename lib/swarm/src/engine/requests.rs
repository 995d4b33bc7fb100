//! Asking for pieces, within the budgets of the peer and of the node, and what becomes of a request.

use std::time::Duration;

use rand::RngExt as _;
use shoal_core::{Digest, PeerId, PieceIndex};

use super::Engine;
use crate::event::{Action, DisconnectReason, EventError, Message, PieceOutcome, Priority};
use crate::fetch::{Choice, Need, Purpose, Whom};
use crate::peer::{Ask, after_last};
use crate::swarm::Swarm;
use crate::timers::Timer;

impl Engine {
    /// A peer may have something that it had not: asks it, and others, for as much as the budget allows.
    pub(super) fn look_at(&mut self, id: &PeerId) {
        if self.peers.contains_key(id) {
            self.promising.insert(*id);
        }
        self.fill();
    }

    /// Any peer may.
    pub(super) fn look_at_all(&mut self) {
        if self.promising.len() < self.peers.len() {
            self.promising = self.peers.keys().copied().collect();
        }
        self.fill();
    }

    /// Asks for pieces until the budget is used or nobody has anything that is wanted: near agents for all they have,
    /// origins and far agents for what nobody near has; and these for anything where near agents are too slow or too few.
    pub(super) fn fill(&mut self) {
        if self.in_flight.requests >= self.config.max_requests.max(1) {
            return;
        }
        let Some(bytes) = self.least_piece() else { return };
        while self.in_flight.has_room(bytes, &self.config)
            && let Some(id) = self.next_to_ask(bytes)
        {
            if !self.ask_for_next(&id, Need::Usual) {
                self.promising.remove(&id);
            }
        }
        self.fill_from_afar(bytes);
    }

    /// Asks origins and far agents for what near agents have too: while too little is under way, or where one of them
    /// would bring a piece in a fraction of the time.
    fn fill_from_afar(&mut self, bytes: u64) {
        let has_room = |id: &&PeerId| {
            self.peers.get(id).is_some_and(|peer| peer.has_room(self.now, bytes, &self.config))
        };
        let mut scarce: Vec<_> = self.scarce.iter().filter(has_room).copied().collect();
        if scarce.is_empty() {
            return;
        }
        let near_wait = self.near_wait(bytes);
        // A place in the order of names is no merit: somebody else is first each time.
        let first = self.rng.random_range(0..scarce.len());
        scarce.rotate_left(first);
        while !scarce.is_empty() {
            scarce.retain(|id| self.is_worth_it(id, bytes, near_wait) && self.ask_for_next(id, Need::Hungry));
        }
    }

    fn is_worth_it(&self, id: &PeerId, bytes: u64, near_wait: Duration) -> bool {
        // One whose pace is not known is taken for no quicker than what is called late elsewhere.
        let wait = self.peers.get(id).map_or(Duration::MAX, |peer| peer.wait(bytes));
        let wait = if wait.is_zero() { self.config.endgame_delay } else { wait };
        self.in_flight.is_hungry(bytes, &self.config)
            || (self.in_flight.has_room(bytes, &self.config)
                && wait.saturating_mul(self.config.far_advantage) < near_wait)
    }

    /// How long the near agent that is soonest free would take for one more piece; no time if that is not known.
    fn near_wait(&self, bytes: u64) -> Duration {
        let near = self.peers.values().filter(|peer| !peer.is_scarce());
        let busy = near.filter(|peer| !peer.asked.is_empty()).map(|peer| peer.wait(bytes));
        busy.filter(|wait| *wait < Duration::MAX).min().unwrap_or_default()
    }

    /// The shortest of the pieces of what is fetched, each swarm's longest taken.
    fn least_piece(&self) -> Option<u64> {
        let fetched = self.fetching.iter().filter_map(|digest| self.swarms.get(digest));
        fetched.map(Swarm::largest_piece).min()
    }

    /// Of those that may have something, the one that will bring it soonest; chance decides among equals.
    fn next_to_ask(&mut self, bytes: u64) -> Option<PeerId> {
        let mut best: Option<(Duration, PeerId)> = None;
        let mut equals = 0u32;
        for &id in &self.promising {
            let Some(peer) = self.peers.get(&id) else { continue };
            if !peer.has_room(self.now, bytes, &self.config) {
                continue;
            }
            let wait = peer.wait(bytes);
            match best {
                Some((least, _)) if least < wait => continue,
                Some((least, _)) if least == wait => equals += 1,
                _ => equals = 1,
            }
            if equals == 1 || self.rng.random_range(0..equals) == 0 {
                best = Some((wait, id));
            }
        }
        best.map(|(_, id)| id)
    }

    fn ask_for_next(&mut self, id: &PeerId, need: Need) -> bool {
        let Some((digest, piece, purpose)) = self.choose(id, need) else { return false };
        self.ask(*id, digest, piece, purpose);
        true
    }

    /// What to ask that peer for next: its swarms take turns, those that are read before those that are not.
    fn choose(&mut self, id: &PeerId, need: Need) -> Option<(Digest, PieceIndex, Purpose)> {
        let peer = self.peers.get(id)?;
        let priority = |digest: &Digest| Some(self.swarms.get(digest)?.fetch.as_ref()?.priority());
        let mut turns: Vec<_> = after_last(&self.fetching, peer.last_served).collect();
        turns.sort_by_key(priority);
        let is_read = turns.first().and_then(priority) == Some(Priority::Reader);
        for digest in turns {
            let Some(swarm) = self.swarms.get(&digest) else { continue };
            let (Some(fetch), bytes) = (&swarm.fetch, swarm.largest_piece()) else { continue };
            let have = swarm.members.get(id).and_then(|member| member.have.as_ref());
            let Some(have) = have.filter(|_| peer.has_room(self.now, bytes, &self.config)) else { continue };
            let waits = is_read && fetch.priority() != Priority::Reader;
            if !self.in_flight.has_room(bytes, &self.config)
                || (waits && self.in_flight.is_background_full(bytes, &self.config))
            {
                continue;
            }
            let (source, share) = (swarm.source(peer), fetch.finder.share_of(id));
            let whom = Whom { peer: id, have, source, share, need };
            match fetch.choose(self.now, whom, &self.config, &mut self.rng) {
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
        let fetch_priority = fetch.priority();
        let ask = Ask { digest, piece: index, bytes: piece.length, at: self.now, fetch_priority };
        let is_read = purpose == Purpose::Reader;
        let priority = if is_read { fetch_priority } else { fetch_priority.max(Priority::Prefetch) };
        fetch.ask(self.now, id, index, purpose);
        peer.ask(ask);
        peer.last_served = Some(digest);
        self.in_flight.add(&ask);
        if let Some(deadline) = peer.deadline(&self.config) {
            self.timers.ring_by(self.now, Timer::Peer(id), deadline);
        }
        self.send(id, Message::Request { digest, piece: index, priority });
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
    }

    /// A peer will not send a piece: it is left alone for a while. Nothing happens if it was not asked (any more).
    pub(super) fn rejected(&mut self, id: &PeerId, digest: &Digest, piece: PieceIndex) {
        if self.is_out_of_range(digest, piece) {
            return self.violated(id);
        }
        if self.withdraw(id, digest, piece).is_none() {
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.rejected(self.now, &self.config);
        let is_lost = !peer.is_reliable(&self.config);
        self.timers.ring_by(self.now, Timer::Peer(*id), peer.paused_until);
        self.put_back(id, digest, piece);
        if is_lost {
            self.lost_a_peer(digest);
        } else {
            self.look_at_all();
        }
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
        self.look_at(&id);
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
        self.note_news(&digest, [piece]);
        if complete {
            self.complete(digest);
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
        self.look_at_all();
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
