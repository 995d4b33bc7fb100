//! The engine's state, and the one match in which each event finds its way.
//!
//! Invariant: after an event nothing can be asked that is not asked: every free slot has been tried on every idle piece.
//! What a piece costs is a few look-ups, one message a peer, and never a walk over pieces times peers.

mod connections;
mod membership;
mod requests;
mod search;
mod serving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::SeedableRng as _;
use rand::rngs::Xoshiro256PlusPlus;
use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Zone};

use crate::bans::Bans;
use crate::budget::InFlight;
use crate::config::Config;
use crate::event::{Action, Event, EventError, Message, Moment};
use crate::peer::Peer;
use crate::swarm::Swarm;
use crate::timers::{Timer, Timers};
use crate::uploads::Uploads;

/// One engine a node.
///
/// Take every [`Action`] that [`Engine::poll`] gives after each event and each timeout: what is not taken is kept.
/// Everything else that the engine keeps is bounded by [`Config`], and by the number of swarms that are open.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    zone: Zone,
    /// The same on every machine, so that a simulation can be repeated.
    rng: Xoshiro256PlusPlus,
    now: Moment,
    peers: BTreeMap<PeerId, Peer>,
    /// Peers that may have something to ask for: the others were tried in vain, and nothing has changed since.
    promising: BTreeSet<PeerId>,
    /// Origins and agents of other zones among the peers.
    scarce: BTreeSet<PeerId>,
    dialing: BTreeSet<PeerId>,
    bans: Bans,
    swarms: BTreeMap<Digest, Swarm>,
    /// Those swarms that are not seeds.
    fetching: BTreeSet<Digest>,
    /// Blobs that peers ask for, and that are not open: who waits, and what it said to have.
    loads: BTreeMap<Digest, BTreeMap<PeerId, Option<Bitfield>>>,
    uploads: Uploads,
    in_flight: InFlight,
    timers: Timers,
    actions: VecDeque<Action>,
}

impl Engine {
    /// A node of that zone. `seed` feeds the engine's random choices.
    #[must_use]
    pub fn new(config: Config, zone: Zone, seed: u64) -> Self {
        Self {
            config,
            zone,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now: Moment::default(),
            peers: BTreeMap::new(),
            promising: BTreeSet::new(),
            scarce: BTreeSet::new(),
            dialing: BTreeSet::new(),
            bans: Bans::default(),
            swarms: BTreeMap::new(),
            fetching: BTreeSet::new(),
            loads: BTreeMap::new(),
            uploads: Uploads::default(),
            in_flight: InFlight::default(),
            timers: Timers::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes an event. Time never runs backwards: an earlier `now` counts as the latest one.
    pub fn handle(&mut self, now: Moment, event: Event) -> Result<(), EventError> {
        self.now = self.now.max(now);
        match event {
            Event::Fetch { digest, geometry, have, candidates, priority, scope } => {
                self.fetch(digest, geometry, have, candidates, priority, scope)
            }
            Event::Raise { digest, priority } => self.raise(&digest, priority),
            Event::Seed { digest, geometry, have } => self.seed(digest, geometry, have),
            Event::Grew { digest, pieces } => self.grew(&digest, pieces),
            Event::NotHeld { digest } => self.not_held(digest),
            Event::Close { digest } => self.close(&digest),
            Event::Found { digest, candidates } => self.found(digest, candidates),
            Event::Demand { digest, pieces } => self.demand(&digest, pieces),
            Event::Connected { peer, role, zone } => self.connected(peer, role, &zone),
            Event::ConnectFailed { peer } => self.connect_failed(&peer),
            Event::Disconnected { peer } => {
                self.disconnected(&peer);
                Ok(())
            }
            Event::Message { peer, message } => self.message(peer, message),
            Event::Received { peer, digest, piece, outcome } => self.received(peer, digest, piece, outcome),
            Event::Uploaded { peer, digest, piece } => self.uploaded(peer, digest, piece),
        }
    }

    /// Lets time pass: call at (or after) `next_timeout`.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.now = self.now.max(now);
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Peer(peer) => self.review_peer(&peer),
                Timer::Swarm(digest) => self.review_swarm(&digest),
                Timer::News(digest) => self.tell_news(&digest),
                Timer::Uploads => self.start_uploads(),
            }
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call `handle_timeout` next. After `handle_timeout(now)` it is later than `now`.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    pub(crate) fn peer_of(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    pub(crate) fn swarm(&self, digest: &Digest) -> Option<&Swarm> {
        self.swarms.get(digest)
    }

    fn message(&mut self, peer: PeerId, message: Message) -> Result<(), EventError> {
        // Most of what is heard. Members are connected, and booking that with them alone saves a look-up.
        if let Message::Have { digest, pieces } = &message
            && self.gained(peer, *digest, pieces).is_some()
        {
            return Ok(());
        }
        let Some(connection) = self.peers.get_mut(&peer) else {
            let banned = self.bans.contains(self.now, &peer);
            return if banned {
                Ok(())
            } else {
                Err(EventError("a message from a peer that is not connected"))
            };
        };
        connection.active_at = self.now;
        match message {
            Message::Join { digest, have } => self.joined(peer, digest, have),
            Message::Absent { digest } => self.absent(&peer, &digest),
            Message::Have { digest, pieces } => self.gained_nothing(&peer, &digest, &pieces),
            Message::Request { digest, piece, priority } => self.requested(peer, digest, piece, priority),
            Message::Cancel { digest, piece } => self.cancelled(&peer, &digest, piece),
            Message::Reject { digest, piece } => self.rejected(&peer, &digest, piece),
        }
        Ok(())
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn send(&mut self, peer: PeerId, message: Message) {
        self.actions.push_back(Action::Send { peer, message });
    }

    /// Whether a peer names a piece that does not exist; of a swarm that is not open that cannot be said.
    fn is_out_of_range(&self, digest: &Digest, piece: PieceIndex) -> bool {
        let pieces = self
            .swarms
            .get(digest)
            .map_or(Geometry::MAX_PIECES, |swarm| u64::from(swarm.geometry.piece_count()));
        u64::from(piece.0) >= pieces
    }

    /// Where a blob stands, as `states.md` names it.
    #[cfg(test)]
    pub(crate) fn state_of(&self, digest: &Digest) -> &'static str {
        match () {
            () if self.rests(digest) => "resting",
            () if self.fetching.contains(digest) => "fetching",
            () if self.swarms.contains_key(digest) => "seed",
            () if self.loads.contains_key(digest) => "loading",
            () => "closed",
        }
    }

    /// Where each piece of a blob stands, if it is being fetched.
    #[cfg(test)]
    pub(crate) fn states_of_pieces(&self, digest: &Digest) -> Vec<&'static str> {
        let Some(swarm) = self.swarms.get(digest) else { return Vec::new() };
        let Some(fetch) = &swarm.fetch else { return Vec::new() };
        let state = |piece| match () {
            () if swarm.have.contains(piece) => "held",
            () => fetch.state_of(piece),
        };
        Bitfield::full(swarm.have.len()).iter().map(state).collect()
    }

    /// Panics unless every invariant of the engine holds.
    #[cfg(test)]
    pub(crate) fn audit(&self) {
        let asks: Vec<_> = self.peers.values().flat_map(|peer| &peer.asked).collect();
        assert_eq!(asks.len(), self.in_flight.requests);
        assert_eq!(asks.iter().map(|ask| u64::from(ask.bytes)).sum::<u64>(), self.in_flight.bytes);
        assert_eq!(asks.iter().filter(|ask| ask.is_background()).count(), self.in_flight.background);
        assert!(asks.len() <= self.config.max_requests);
        assert!(self.in_flight.bytes <= self.config.max_bytes_in_flight || asks.len() == 1);
        assert!(self.peers.len() + self.dialing.len() <= self.config.max_connections);
        assert!(self.dialing.len() <= self.config.max_dials);
        assert!(self.loads.len() <= self.config.max_loads);
        assert!(self.bans.len() <= self.config.max_bans);
        self.uploads.audit(&self.config);
        assert!(self.promising.iter().all(|id| self.peers.contains_key(id)));
        let scarce = self.peers.iter().filter(|(_, peer)| peer.is_scarce()).map(|(id, _)| id);
        assert!(scarce.eq(&self.scarce));
        self.peers.values().for_each(|peer| peer.audit(&self.config));
        for (digest, swarm) in &self.swarms {
            swarm.audit(&self.config);
            assert_eq!(swarm.fetch.is_some(), self.fetching.contains(digest));
            assert!(swarm.members.len() <= self.config.max_members_per_swarm);
            for (id, peer) in &self.peers {
                assert_eq!(peer.swarms.contains(digest), swarm.members.contains_key(id));
            }
            let Some(fetch) = &swarm.fetch else { continue };
            for (&piece, asked) in &fetch.asked {
                let asks = asks.iter().filter(|ask| ask.piece == piece && ask.digest == *digest);
                assert_eq!(asks.count(), asked.peers.len());
            }
        }
    }
}
