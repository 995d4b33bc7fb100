//! Connections: made, lost, refused, idle. A clean close is no offence: the peer is tried again after a pause.

use shoal_core::{Digest, PeerId, Role, Zone};

use super::Engine;
use crate::event::{Action, DisconnectReason, EventError, Message, Moment};
use crate::peer::Peer;
use crate::timers::Timer;

impl Engine {
    /// An error if there is a connection already. A banned peer is refused.
    pub(super) fn connected(&mut self, id: PeerId, role: Role, zone: &Zone) -> Result<(), EventError> {
        if self.peers.contains_key(&id) {
            return Err(EventError("a peer that is connected was connected again"));
        }
        let dialled = self.dialing.remove(&id);
        if self.bans.contains(self.now, &id) {
            self.act(Action::Disconnect { peer: id, reason: DisconnectReason::Corrupt });
        } else if dialled || self.has_connection_left() || self.evict_idle() {
            self.accept(id, role, zone);
        } else {
            self.act(Action::Disconnect { peer: id, reason: DisconnectReason::Replaced });
        }
        self.contact_all();
        Ok(())
    }

    fn accept(&mut self, id: PeerId, role: Role, zone: &Zone) {
        let peer = Peer::new(self.now, role, zone.is_near(&self.zone), &self.config);
        if peer.is_scarce() {
            self.scarce.insert(id);
        }
        self.promising.insert(id);
        self.peers.insert(id, peer);
        self.timers.ring_by(self.now, Timer::Peer(id), self.now.after(self.config.idle_timeout));
        let wanted_by = |digest: &&Digest| {
            let fetch = self.swarms.get(digest).and_then(|swarm| swarm.fetch.as_ref());
            fetch.is_some_and(|fetch| fetch.finder.knows(&id))
        };
        for digest in self.fetching.iter().filter(wanted_by).copied().collect::<Vec<_>>() {
            self.join(id, digest);
        }
    }

    pub(super) fn has_connection_left(&self) -> bool {
        self.peers.len() + self.dialing.len() < self.config.max_connections.max(1)
    }

    /// Closes the connection that was quiet longest, if one was so for `idle_timeout`. Its place is not dialled away.
    fn evict_idle(&mut self) -> bool {
        let idle = self.peers.iter().filter(|(id, peer)| self.is_quiet(id, peer));
        let quietest = idle.min_by_key(|(id, peer)| self.active_at(id, peer));
        let Some(id) = quietest.map(|(&id, _)| id) else { return false };
        self.act(Action::Disconnect { peer: id, reason: DisconnectReason::Replaced });
        self.drop_peer(&id);
        true
    }

    /// When a peer said or brought something last.
    fn active_at(&self, id: &PeerId, peer: &Peer) -> Moment {
        let swarms = peer.swarms.iter().filter_map(|digest| self.swarms.get(digest));
        let heard = swarms.filter_map(|swarm| Some(swarm.members.get(id)?.heard_at));
        heard.fold(peer.active_at, Ord::max)
    }

    fn is_quiet(&self, id: &PeerId, peer: &Peer) -> bool {
        let quiet = self.now.since(self.active_at(id, peer)) >= self.config.idle_timeout;
        quiet && peer.asked.is_empty() && !self.uploads.concerns(id)
    }

    pub(super) fn connect_failed(&mut self, id: &PeerId) -> Result<(), EventError> {
        if !self.dialing.remove(id) {
            return Err(EventError("a dial failed that was not asked for"));
        }
        for digest in &self.fetching {
            let fetch = self.swarms.get_mut(digest).and_then(|swarm| swarm.fetch.as_mut());
            if let Some(fetch) = fetch {
                fetch.finder.failed(self.now, id, &self.config);
            }
            self.timers.ring_by(self.now, Timer::Swarm(*digest), self.now);
        }
        self.contact_all();
        Ok(())
    }

    /// Nothing happens if the peer is not connected: the engine may have closed the connection itself.
    pub(super) fn disconnected(&mut self, id: &PeerId) {
        self.drop_peer(id);
        self.contact_all();
    }

    pub(super) fn disconnect(&mut self, id: &PeerId, reason: DisconnectReason) {
        if self.peers.contains_key(id) {
            self.act(Action::Disconnect { peer: *id, reason });
            self.drop_peer(id);
            self.contact_all();
        }
    }

    /// The peer said what no sound peer says.
    pub(super) fn violated(&mut self, id: &PeerId) {
        self.disconnect(id, DisconnectReason::Protocol);
        self.refuse(id);
    }

    /// The peer is not counted on any more by the fetches that are open.
    pub(super) fn refuse(&mut self, id: &PeerId) {
        for digest in &self.fetching {
            let fetch = self.swarms.get_mut(digest).and_then(|swarm| swarm.fetch.as_mut());
            if let Some(fetch) = fetch {
                fetch.finder.refused(self.now, id, &self.config);
            }
        }
    }

    /// Forgets a connection; what it was asked for is asked of others.
    fn drop_peer(&mut self, id: &PeerId) {
        let Some(peer) = self.peers.remove(id) else { return };
        self.promising.remove(id);
        self.scarce.remove(id);
        self.timers.clear(Timer::Peer(*id));
        self.uploads.forget(id);
        self.loads.values_mut().for_each(|waiting| drop(waiting.remove(id)));
        for ask in &peer.asked {
            self.in_flight.give_back(ask);
            self.put_back(id, &ask.digest, ask.piece);
        }
        for digest in &peer.swarms {
            let Some(swarm) = self.swarms.get_mut(digest) else { continue };
            swarm.forget(id);
            if let Some(fetch) = &mut swarm.fetch {
                fetch.finder.failed(self.now, id, &self.config);
            }
        }
        for digest in peer.swarms {
            self.lost_a_peer(&digest);
        }
        self.fill();
    }

    /// A connection's timer rang: requests are overdue, a pause is over, or it may be idle.
    pub(super) fn review_peer(&mut self, id: &PeerId) {
        self.give_up_overdue(id);
        self.look_at(id);
        if self.is_idle(id) {
            self.disconnect(id, DisconnectReason::Idle);
        }
        let Some(peer) = self.peers.get(id) else { return };
        let idle = self.active_at(id, peer).after(self.config.idle_timeout);
        let idle = if idle > self.now { idle } else { self.now.after(self.config.idle_timeout) };
        let pause = Some(peer.paused_until).filter(|&until| until > self.now);
        let at = [peer.deadline(&self.config), pause].into_iter().flatten().fold(idle, Ord::min);
        self.timers.ring_by(self.now, Timer::Peer(*id), at);
    }

    /// Whether nothing was said for long, and neither side can gain by the connection.
    fn is_idle(&self, id: &PeerId) -> bool {
        let Some(peer) = self.peers.get(id).filter(|peer| self.is_quiet(id, peer)) else { return false };
        !peer.swarms.iter().filter_map(|digest| self.swarms.get(digest)).any(|swarm| {
            swarm.members.get(id).is_some_and(|member| {
                member.can_take(&swarm.have) || (swarm.fetch.is_some() && member.can_give(&swarm.have))
            })
        })
    }

    /// Says to a connected peer that we are in the swarm, and waits for its answer.
    pub(super) fn join(&mut self, id: PeerId, digest: Digest) {
        let (Some(peer), Some(swarm)) = (self.peers.get_mut(&id), self.swarms.get_mut(&digest)) else {
            return;
        };
        let full = swarm.members.len() >= self.config.max_members_per_swarm.max(1);
        if full && !swarm.members.contains_key(&id) {
            return;
        }
        let have = swarm.have.clone();
        let member = swarm.member(self.now, id, peer);
        if member.told {
            return;
        }
        member.told = true;
        member.since = self.now;
        peer.swarms.insert(digest);
        self.timers.ring_by(self.now, Timer::Swarm(digest), self.now.after(self.config.join_timeout));
        self.send(id, Message::Join { digest, have });
    }
}
