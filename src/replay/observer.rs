//! What became of every request, swarm and peer, from what an engine was told and what it did.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex};
use shoal_swarm::record::{Input, Start};
use shoal_swarm::{Action, Event, EventError, Message, Moment, PieceOutcome, Scope};

use super::diagnosis::{Diagnosis, Ending, Failure, Open, Peer, Stall, Swarm};

/// Watches an engine and draws up its [`Diagnosis`].
pub(super) struct Observer {
    diagnosis: Diagnosis,
    stall: Duration,
    /// How far beyond a reader pieces are wanted where only what is read is, in bytes.
    read_ahead: u64,
    now: Moment,
    swarms: BTreeMap<Digest, Watched>,
    peers: BTreeMap<PeerId, Peer>,
    open: HashMap<(PeerId, Digest, PieceIndex), Moment>,
}

/// A swarm and what it takes to judge it.
struct Watched {
    swarm: Swarm,
    geometry: Geometry,
    have: Bitfield,
    /// When the fetch that is under way last got something, or came to want something.
    progress: Option<Moment>,
    /// Where readers are, in a fetch of what is read alone.
    readers: Option<Vec<Range<u32>>>,
}

impl Observer {
    pub(super) fn new(start: &Start, stall: Duration) -> Self {
        let diagnosis = Diagnosis {
            node: start.node,
            software: start.software.clone(),
            started_unix_ms: start.unix_ms,
            seconds: 0.0,
            ending: Ending::BrokenOff,
            events: BTreeMap::new(),
            refused: BTreeMap::new(),
            actions: BTreeMap::new(),
            swarms: Vec::new(),
            peers: Vec::new(),
            open: Vec::new(),
        };
        let (swarms, peers, open) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
        let read_ahead = start.config.read_ahead;
        Self { diagnosis, stall, read_ahead, now: Moment::default(), swarms, peers, open }
    }

    /// The engine was told this.
    pub(super) fn told(&mut self, at: Moment, input: &Input, refused: Option<&EventError>) {
        self.now = self.now.max(at);
        let Input::Event(event) = input else { return count(&mut self.diagnosis.events, "timeout") };
        count(&mut self.diagnosis.events, &name_of(event, "event"));
        match refused {
            Some(EventError(reason)) => *self.diagnosis.refused.entry(reason).or_default() += 1,
            None => self.event(event),
        }
    }

    /// The engine did this.
    pub(super) fn did(&mut self, action: &Action) {
        count(&mut self.diagnosis.actions, &name_of(action, "action"));
        match action {
            Action::Send { peer, message } => self.sent(*peer, message),
            Action::Upload { peer, digest, .. } => {
                self.peer(*peer).uploads += 1;
                self.swarm(digest, |swarm| swarm.uploads += 1);
            }
            Action::FindPeers { digest } => self.swarm(digest, |swarm| swarm.searches += 1),
            Action::Complete { digest } => {
                let now = seconds(self.now);
                self.end_fetch(digest, |swarm| swarm.completed_at = Some(now));
            }
            Action::GiveUp { digest } => {
                let now = seconds(self.now);
                self.end_fetch(digest, |swarm| swarm.given_up_at = Some(now));
            }
            Action::Banned { peer, .. } => self.peer(*peer).banned = true,
            Action::Disconnect { peer, .. } => self.lose(*peer),
            _ => {}
        }
    }

    /// What is known now.
    pub(super) fn finish(mut self, ending: Ending) -> Diagnosis {
        let digests: Vec<_> = self.swarms.keys().copied().collect();
        for digest in digests {
            self.end_fetch(&digest, |_| {});
        }
        let mut open: Vec<_> = self.open.into_iter().map(|(key, since)| open(key, since)).collect();
        open.sort_by(|a, b| a.since.total_cmp(&b.since).then_with(|| a.piece.cmp(&b.piece)));
        let mut peers: Vec<_> = self.peers.into_values().collect();
        let slowness = |peer: &Peer| peer.mean_seconds.unwrap_or(f64::INFINITY);
        peers.sort_by(|a, b| slowness(b).total_cmp(&slowness(a)));
        Diagnosis {
            seconds: seconds(self.now),
            ending,
            swarms: self.swarms.into_values().map(|watched| watched.swarm).collect(),
            peers,
            open,
            ..self.diagnosis
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Fetch { digest, geometry, have, scope, .. } => {
                self.open_swarm(digest, geometry, have);
                let now = self.now;
                if let Some(watched) = self.swarms.get_mut(digest) {
                    watched.swarm.fetched_at = Some(seconds(now));
                    watched.progress = Some(now);
                    watched.readers = (*scope == Scope::Demand).then(Vec::new);
                }
                self.review_readers(digest);
            }
            Event::Demand { digest, pieces } => {
                let readers = self.swarms.get_mut(digest).and_then(|watched| watched.readers.as_mut());
                if let Some(readers) = readers {
                    readers.clone_from(pieces);
                    self.review_readers(digest);
                }
            }
            Event::Raise { digest, .. } => {
                if let Some(watched) = self.swarms.get_mut(digest)
                    && watched.readers.take().is_some()
                {
                    watched.progress.get_or_insert(self.now);
                }
            }
            Event::Seed { digest, geometry, have } => self.open_swarm(digest, geometry, have),
            Event::Grew { digest, pieces } => {
                if let Some(watched) = self.swarms.get_mut(digest) {
                    pieces.iter().for_each(|&piece| _ = watched.have.insert(piece));
                }
            }
            Event::Close { digest } => {
                self.end_fetch(digest, |_| {});
                self.fail_all(Failure::Closed, |(_, of, _)| of == digest);
            }
            Event::Connected { peer, role, .. } => {
                let peer = self.peer(*peer);
                peer.role = Some(*role);
                peer.connections += 1;
            }
            Event::ConnectFailed { peer } => self.peer(*peer).failed_dials += 1,
            Event::Disconnected { peer } => {
                self.peer(*peer).disconnects += 1;
                self.lose(*peer);
            }
            Event::Message { peer, message: Message::Reject { digest, piece } } => {
                self.fail((*peer, *digest, *piece), Failure::Rejected);
            }
            Event::Received { peer, digest, piece, outcome } => {
                self.received(*peer, *digest, *piece, *outcome);
            }
            _ => {}
        }
    }

    fn sent(&mut self, peer: PeerId, message: &Message) {
        match message {
            Message::Request { digest, piece, .. } => {
                self.open.insert((peer, *digest, *piece), self.now);
                self.peer(peer).requests.sent += 1;
                self.swarm(digest, |swarm| swarm.requests.sent += 1);
            }
            Message::Cancel { digest, piece } => {
                let is_here = self.swarms.get(digest).is_some_and(|watched| watched.have.contains(*piece));
                let failure = if is_here { Failure::Overtaken } else { Failure::TimedOut };
                self.fail((peer, *digest, *piece), failure);
            }
            Message::Reject { digest, .. } => self.swarm(digest, |swarm| swarm.uploads_refused += 1),
            _ => {}
        }
    }

    fn open_swarm(&mut self, digest: &Digest, geometry: &Geometry, have: &Bitfield) {
        let swarm = |watched: Option<Watched>| {
            let swarm = watched.map_or_else(|| Swarm::new(*digest, geometry, have), |earlier| earlier.swarm);
            Watched { swarm, geometry: *geometry, have: have.clone(), progress: None, readers: None }
        };
        let watched = swarm(self.swarms.remove(digest));
        self.swarms.insert(*digest, watched);
    }

    fn received(&mut self, peer: PeerId, digest: Digest, piece: PieceIndex, outcome: PieceOutcome) {
        self.end_stall(&digest);
        let asked = self.open.remove(&(peer, digest, piece));
        let wait = asked.map(|asked| self.now.0.saturating_sub(asked.0).as_secs_f64());
        let source = self.peer(peer);
        let role = source.role;
        let Some(watched) = self.swarms.get_mut(&digest) else { return };
        let is_new = outcome == PieceOutcome::Good && watched.have.insert(piece);
        let bytes = watched.geometry.piece(piece).map_or(0, |piece| u64::from(piece.length));
        watched.swarm.have = watched.have.count();
        watched.swarm.requests.arrived(outcome, is_new);
        if is_new {
            watched.swarm.source(role).add(bytes);
        }
        let source = self.peer(peer);
        source.requests.arrived(outcome, is_new);
        if is_new {
            source.bytes += bytes;
            source.took(wait);
        }
        self.review_readers(&digest);
    }

    /// Where only what is read is wanted, nothing is late while all of that is here.
    fn review_readers(&mut self, digest: &Digest) {
        let Some(watched) = self.swarms.get_mut(digest) else { return };
        let Some(waits) = watched.waits(self.read_ahead) else { return };
        if waits {
            watched.progress.get_or_insert(self.now);
            return;
        }
        self.end_stall(digest);
        if let Some(watched) = self.swarms.get_mut(digest) {
            watched.progress = None;
        }
    }

    /// Something came, or the fetch ends: was it long?
    fn end_stall(&mut self, digest: &Digest) {
        let Some(watched) = self.swarms.get_mut(digest) else { return };
        let Some(since) = watched.progress.replace(self.now) else {
            watched.progress = None;
            return;
        };
        if self.now.0.saturating_sub(since.0) < self.stall {
            return;
        }
        let mut waited_for = BTreeMap::new();
        for (peer, ..) in self.open.keys().filter(|(_, of, _)| of == digest) {
            *waited_for.entry(*peer).or_default() += 1;
        }
        watched.swarm.stalls.push(Stall { from: seconds(since), to: seconds(self.now), waited_for });
    }

    fn end_fetch(&mut self, digest: &Digest, note: impl FnOnce(&mut Swarm)) {
        self.end_stall(digest);
        if let Some(watched) = self.swarms.get_mut(digest) {
            (watched.progress, watched.readers) = (None, None);
            note(&mut watched.swarm);
        }
    }

    fn lose(&mut self, peer: PeerId) {
        self.fail_all(Failure::Lost, |(of, ..)| *of == peer);
    }

    fn fail_all(&mut self, failure: Failure, which: impl Fn(&(PeerId, Digest, PieceIndex)) -> bool) {
        let keys: Vec<_> = self.open.keys().filter(|key| which(key)).copied().collect();
        for key in keys {
            self.fail(key, failure);
        }
    }

    fn fail(&mut self, key: (PeerId, Digest, PieceIndex), failure: Failure) {
        if self.open.remove(&key).is_some() {
            self.peer(key.0).requests.failed(failure);
            self.swarm(&key.1, |swarm| swarm.requests.failed(failure));
        }
    }

    fn peer(&mut self, peer: PeerId) -> &mut Peer {
        self.peers.entry(peer).or_insert_with(|| Peer::new(peer))
    }

    fn swarm(&mut self, digest: &Digest, note: impl FnOnce(&mut Swarm)) {
        if let Some(watched) = self.swarms.get_mut(digest) {
            note(&mut watched.swarm);
        }
    }
}

impl Watched {
    /// Whether a reader is near a piece that is missing; `None` where all of the blob is wanted.
    fn waits(&self, read_ahead: u64) -> Option<bool> {
        let ahead = read_ahead.div_ceil(u64::from(self.geometry.piece_length().bytes())).max(1);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let near = |range: &Range<u32>| {
            let end = range.end.min(self.have.len());
            range.start..end.min(range.start.saturating_add(ahead))
        };
        let mut pieces = self.readers.as_ref()?.iter().flat_map(near).map(PieceIndex);
        Some(pieces.any(|piece| !self.have.contains(piece)))
    }
}

fn open((peer, digest, piece): (PeerId, Digest, PieceIndex), since: Moment) -> Open {
    Open { digest, piece, peer, since: seconds(since) }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

/// The name that a record gives to an event or an action.
fn name_of(what: &impl Serialize, tag: &str) -> String {
    let value = serde_json::to_value(what).ok();
    let name = value.as_ref().and_then(|value| value.get(tag)).and_then(serde_json::Value::as_str);
    name.unwrap_or("unnamed").to_owned()
}

fn seconds(at: Moment) -> f64 {
    at.0.as_secs_f64()
}
