//! Looking for peers: whom to contact, when to ask for more of them, and when to give up.

use shoal_core::{Digest, PeerId, Role};

use super::Engine;
use super::membership::Farewell;
use crate::event::{Action, Candidate, EventError, Moment};
use crate::peer::Peer;
use crate::swarm::{Member, Swarm};
use crate::timers::Timer;

impl Engine {
    /// Nothing happens if the blob is complete. An error if the swarm is not open.
    pub(super) fn found(&mut self, digest: Digest, candidates: Vec<Candidate>) -> Result<(), EventError> {
        let swarm = self.swarms.get_mut(&digest).ok_or(EventError("peers for a swarm that is not open"))?;
        if let Some(fetch) = &mut swarm.fetch {
            fetch.finder.found(self.now, candidates, &self.config);
            self.review_swarm(&digest);
        }
        Ok(())
    }

    /// A swarm's timer rang, or something happened that may change whom to turn to.
    pub(super) fn review_swarm(&mut self, digest: &Digest) {
        if !self.fetching.contains(digest) {
            return self.review_seed(digest);
        }
        self.expire_joins(digest);
        if self.rests(digest) {
            return self.review_later(digest);
        }
        self.contact_candidates(digest);
        self.look_at_all();
        self.find_peers(digest);
        if self.is_hopeless(digest) {
            return self.give_up(digest);
        }
        self.review_later(digest);
    }

    fn review_later(&mut self, digest: &Digest) {
        if let Some(at) = self.next_review(digest) {
            self.timers.ring_by(self.now, Timer::Swarm(*digest), at);
        }
    }

    /// Whether nothing of a blob is wanted now.
    pub(super) fn rests(&self, digest: &Digest) -> bool {
        let fetch = self.swarms.get(digest).and_then(|swarm| swarm.fetch.as_ref());
        fetch.is_some_and(|fetch| fetch.rests())
    }

    fn review_seed(&mut self, digest: &Digest) {
        let Some(swarm) = self.swarms.get(digest) else { return };
        let idle_at = swarm.asked_at.after(self.config.seed_idle_timeout);
        if idle_at > self.now {
            return self.timers.ring_by(self.now, Timer::Swarm(*digest), idle_at);
        }
        self.close_swarm(digest, Farewell::Silent);
        self.act(Action::Closed { digest: *digest });
    }

    /// A peer is gone, paused or slow: others are asked, and more are looked for if nobody usable is left.
    pub(super) fn lost_a_peer(&mut self, digest: &Digest) {
        self.look_at_all();
        self.hurry_if_alone(digest);
        self.timers.ring_by(self.now, Timer::Swarm(*digest), self.now);
    }

    /// Pieces are wanted that were not: whoever is here is asked, and more are looked for if nobody here has any.
    pub(super) fn wanted_more(&mut self, digest: &Digest) {
        self.hurry_if_alone(digest);
        self.review_swarm(digest);
    }

    fn hurry_if_alone(&mut self, digest: &Digest) {
        let usable = self.usable(digest);
        let fetch = self.swarms.get_mut(digest).and_then(|swarm| swarm.fetch.as_mut());
        if let Some(fetch) = fetch.filter(|_| usable == 0) {
            fetch.finder.hurry(self.now, &self.config);
        }
    }

    /// Members that answered nothing for `join_timeout` are let go.
    fn expire_joins(&mut self, digest: &Digest) {
        let Some(swarm) = self.swarms.get(digest) else { return };
        let limit = self.config.join_timeout;
        let silent = swarm.members.iter().filter(|(_, member)| {
            member.told && member.have.is_none() && self.now.since(member.since) >= limit
        });
        for id in silent.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.leave(&id, digest);
        }
    }

    pub(super) fn contact_all(&mut self) {
        for digest in self.fetching.clone() {
            self.contact_candidates(&digest);
        }
    }

    /// Dials candidates, or joins those that are connected, while there is room.
    pub(super) fn contact_candidates(&mut self, digest: &Digest) {
        while let Some(id) = self.next_contact(digest) {
            if self.peers.contains_key(&id) {
                self.join(id, *digest);
            } else if self.dialing.len() < self.config.max_dials.max(1) && self.has_connection_left() {
                self.dialing.insert(id);
                self.act(Action::Connect { peer: id });
            } else {
                return;
            }
        }
    }

    fn next_contact(&self, digest: &Digest) -> Option<PeerId> {
        let swarm = self.swarms.get(digest)?;
        let fetch = swarm.fetch.as_ref()?;
        if fetch.rests() || !self.has_place(swarm) {
            return None;
        }
        let has_origin = swarm.members.values().any(|member| member.role == Role::Origin);
        fetch.finder.next_contact(self.now, !has_origin, &self.config, |id| self.is_free(swarm, id))
    }

    /// Whether the swarm has room for one more peer that we look for. A peer that has had nothing to give since it
    /// joined, longer than a search takes, takes no place; and those who have something keep nobody out while none of them has
    /// what is wanted now.
    fn has_place(&self, swarm: &Swarm) -> bool {
        let Some(fetch) = &swarm.fetch else { return false };
        let dialled = fetch.finder.count(|id| self.dialing.contains(id));
        let most = self.config.max_peers_per_swarm.max(1);
        if swarm.members.len() + dialled < most {
            return true;
        }
        if swarm.members.len() >= self.config.max_members_per_swarm.max(1) {
            return false;
        }
        let gives = |member: &&Member| member.can_give(&swarm.have);
        let counts =
            |member: &&Member| self.now.since(member.since) < self.config.find_interval || gives(member);
        let mut givers = swarm.members.values().filter(gives).peekable();
        let in_vain = givers.peek().is_some() && !givers.any(|member| swarm.can_use(member));
        let counted = if in_vain { 0 } else { swarm.members.values().filter(counts).count() };
        counted + dialled < most
    }

    fn is_free(&self, swarm: &Swarm, id: &PeerId) -> bool {
        let known = swarm.members.get(id).is_some_and(|member| member.told);
        !known && !self.dialing.contains(id) && !self.bans.contains(self.now, id)
    }

    /// How many peers have something for us and can be counted on.
    fn usable(&self, digest: &Digest) -> usize {
        self.givers(digest).filter(|peer| peer.is_reliable(&self.config)).count()
    }

    /// The members that have something for us.
    fn givers(&self, digest: &Digest) -> impl Iterator<Item = &Peer> {
        let swarm = self.swarms.get(digest);
        let members = swarm.into_iter().flat_map(|swarm| &swarm.members);
        let giving = members.filter(move |(_, member)| swarm.is_some_and(|swarm| swarm.can_use(member)));
        giving.filter_map(|(id, _)| self.peers.get(id))
    }

    fn find_peers(&mut self, digest: &Digest) {
        let usable = self.usable(digest);
        let Some(swarm) = self.swarms.get(digest) else { return };
        let wanting = usable == 0 || (usable < self.config.wanted_peers && self.has_place(swarm));
        let Some(swarm) = self.swarms.get_mut(digest).filter(|_| wanting) else { return };
        let Some(fetch) = &mut swarm.fetch else { return };
        if fetch.finder.query(self.now, &self.config) {
            self.act(Action::FindPeers { digest: *digest });
        }
    }

    /// Whether nobody is left to ask, nobody new was found, and nothing came for `stall_timeout`.
    fn is_hopeless(&self, digest: &Digest) -> bool {
        let Some(swarm) = self.swarms.get(digest) else { return false };
        let Some(fetch) = &swarm.fetch else { return false };
        let waiting = swarm.members.values().any(|member| member.told && member.have.is_none());
        self.now.since(fetch.last_progress) >= self.config.stall_timeout
            && fetch.finder.is_barren()
            && !waiting
            && !fetch.finder.has_hope(&self.config, |id| {
                !swarm.members.contains_key(id) && !self.bans.contains(self.now, id)
            })
            && !self.givers(digest).any(|peer| peer.has_hope(&self.config))
    }

    /// Ends a fetch without its blob.
    pub(super) fn give_up(&mut self, digest: &Digest) {
        self.act(Action::GiveUp { digest: *digest });
        self.close_swarm(digest, Farewell::Absent);
    }

    /// When something about the fetch may be due next. One that rests waits for readers, and for those who have yet to answer.
    fn next_review(&self, digest: &Digest) -> Option<Moment> {
        let swarm = self.swarms.get(digest)?;
        let fetch = swarm.fetch.as_ref()?;
        let later = |at: &Moment| *at > self.now;
        let joins = swarm.members.values().filter(|member| member.told && member.have.is_none());
        let retry = fetch.finder.next_retry(self.now, &self.config, |id| self.is_free(swarm, id));
        let mut due: Vec<_> = joins.map(|member| member.since.after(self.config.join_timeout)).collect();
        if fetch.rests() {
            return due.into_iter().filter(later).min();
        }
        due.extend(retry);
        due.push(fetch.paused_until);
        due.push(fetch.last_progress.after(self.config.stall_timeout));
        due.push(fetch.finder.next_query());
        // A fetch that has enough peers looks at its search again only now and then.
        due.push(self.now.after(self.config.find_interval_max));
        due.into_iter().filter(later).min()
    }

    /// Whether a peer is too slow to keep while a candidate waits for its place.
    pub(super) fn is_to_be_replaced(&self, id: &PeerId, digest: &Digest) -> bool {
        let slow = self.peers.get(id).is_some_and(|peer| peer.is_struck_out(&self.config));
        let Some(swarm) = self.swarms.get(digest).filter(|_| slow) else { return false };
        let fetch = swarm.fetch.as_ref();
        fetch.is_some_and(|fetch| {
            fetch
                .finder
                .next_contact(self.now, false, &self.config, |other| {
                    other != id && self.is_free(swarm, other)
                })
                .is_some()
        })
    }
}
