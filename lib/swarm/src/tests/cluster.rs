//! Engines that talk to each other: a virtual clock, links with delays, pieces that take time, and faults on request.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Role, Zone};

use crate::{Action, Candidate, Config, Engine, Event, Message, Moment, PieceOutcome, Priority, Scope};

/// What goes wrong, in percent of the occasions.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) lost_pieces: u32,
    pub(super) corrupt: u32,
    pub(super) not_stored: u32,
    /// Below 100, a few in a row at most: a peer of which every dial fails is one that cannot be reached.
    pub(super) failed_dials: u32,
    /// Each message is followed by a loss of its connection in so many of 10,000 cases.
    pub(super) disconnects: u32,
    /// How long a message may take, at most, in milliseconds.
    pub(super) delay: u64,
}

pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Moment,
    pub(super) faults: Faults,
    pub(super) audited: bool,
    rng: Xoshiro256PlusPlus,
    queue: BinaryHeap<Reverse<(Moment, u64, usize, Happening)>>,
    sequence: u64,
    /// On their way, by the number that the queue has: they have no order.
    messages: BTreeMap<u64, Message>,
    /// Connections, and the number of the connection, so that what belongs to an old one is not taken for the new one.
    links: BTreeMap<(usize, usize), u64>,
    /// How many dials from the one to the other failed since one did not.
    failed_in_a_row: BTreeMap<(usize, usize), u32>,
    last_delivery: BTreeMap<(usize, usize), Moment>,
    blobs: BTreeMap<Digest, Geometry>,
}

pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) role: Role,
    pub(super) disk: BTreeMap<Digest, Bitfield>,
    pub(super) complete: BTreeMap<Digest, u32>,
    pub(super) gave_up: BTreeSet<Digest>,
    /// Of blobs that are fetched as far as they are read: what each reader has yet to read.
    pub(super) readers: BTreeMap<Digest, Vec<Range<u32>>>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) events: u64,
    egress_free: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Wake,
    Message { from: usize, link: u64, slot: u64 },
    Dialled { to: usize },
    Sent { to: usize, link: Option<u64>, digest: Digest, piece: PieceIndex },
    Loaded { digest: Digest },
    Found { digest: Digest },
    Lost { peer: usize },
}

fn id(node: usize) -> PeerId {
    let mut key = [0; 32];
    // Spread over the order of names, so that age and rank are independent.
    key[..8].copy_from_slice(&(node as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..16].copy_from_slice(&(node as u64).to_be_bytes());
    PeerId::from_public_key(key)
}

fn number(peer: PeerId) -> usize {
    u64::from_be_bytes(peer.public_key()[8..16].try_into().unwrap()) as usize
}

impl Cluster {
    /// Time a piece takes on a node's way out: 1 MiB at 100 MiB/s.
    const PIECE: Duration = Duration::from_millis(10);

    pub(super) fn new(roles: &[Role], config: &Config, seed: u64) -> Self {
        let node = |at: usize, role| Node {
            engine: Engine::new(config.clone(), Zone::default(), seed ^ at as u64),
            role,
            disk: BTreeMap::new(),
            complete: BTreeMap::new(),
            gave_up: BTreeSet::new(),
            readers: BTreeMap::new(),
            sent: 0,
            received: 0,
            events: 0,
            egress_free: Moment::default(),
        };
        Self {
            nodes: roles.iter().enumerate().map(|(at, &role)| node(at, role)).collect(),
            now: Moment::default(),
            faults: Faults { delay: 2, ..Faults::default() },
            audited: true,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            sequence: 0,
            messages: BTreeMap::new(),
            links: BTreeMap::new(),
            failed_in_a_row: BTreeMap::new(),
            last_delivery: BTreeMap::new(),
            blobs: BTreeMap::new(),
        }
    }

    /// Puts a blob on the disk of a node.
    pub(super) fn hold(&mut self, node: usize, digest: Digest, geometry: Geometry) {
        self.blobs.insert(digest, geometry);
        self.nodes[node].disk.insert(digest, Bitfield::full(geometry.piece_count()));
    }

    pub(super) fn fetch(&mut self, node: usize, digest: Digest) {
        self.start_fetch(node, digest, Scope::All);
    }

    /// Begins to fetch what is read, which is nothing yet.
    pub(super) fn fetch_on_demand(&mut self, node: usize, digest: Digest) {
        self.nodes[node].readers.insert(digest, Vec::new());
        self.start_fetch(node, digest, Scope::Demand);
    }

    /// Readers of a blob that is fetched on demand, instead of those that there were. They read what comes, in order.
    pub(super) fn read(&mut self, node: usize, digest: Digest, ranges: Vec<Range<u32>>) {
        self.nodes[node].readers.insert(digest, ranges);
        self.nodes[node].advance_readers(&digest);
        self.tell_demand(node, digest);
    }

    /// All of a blob is wanted from now on.
    pub(super) fn raise(&mut self, node: usize, digest: Digest) {
        self.nodes[node].readers.remove(&digest);
        self.event(node, Event::Raise { digest, priority: Priority::Reader });
    }

    fn tell_demand(&mut self, node: usize, digest: Digest) {
        let pieces = self.nodes[node].readers[&digest].clone();
        self.event(node, Event::Demand { digest, pieces });
    }

    fn start_fetch(&mut self, node: usize, digest: Digest, scope: Scope) {
        let geometry = self.blobs[&digest];
        let empty = Bitfield::empty(geometry.piece_count());
        let have = self.nodes[node].disk.entry(digest).or_insert(empty).clone();
        let candidates = self.candidates(node, &digest);
        self.event(
            node,
            Event::Fetch { digest, geometry, have, candidates, priority: Priority::Reader, scope },
        );
    }

    /// Whoever holds or fetches the blob, like a tracker would say.
    fn candidates(&mut self, node: usize, digest: &Digest) -> Vec<Candidate> {
        let holders =
            (0..self.nodes.len()).filter(|&at| at != node && self.nodes[at].disk.contains_key(digest));
        let mut all: Vec<_> = holders.collect();
        for at in (1..all.len()).rev() {
            let other = self.rng.random_range(0..=at);
            all.swap(at, other);
        }
        let candidate =
            |at: usize| Candidate { peer: id(at), role: self.nodes[at].role, zone: Zone::default() };
        all.into_iter().take(50).map(candidate).collect()
    }

    /// Runs until every fetch has ended or the time is up. Says how long it took.
    pub(super) fn run(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        let end = self.now.after(limit);
        while self.nodes.iter().any(Node::is_busy) {
            let Some(Reverse((at, ..))) = self.queue.peek() else { break };
            if *at > end {
                break;
            }
            self.step();
        }
        self.now.since(start)
    }

    /// Lets that much time pass.
    pub(super) fn idle(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let Some(Reverse((at, _, node, happening))) = self.queue.pop() else { return };
        self.now = at;
        match happening {
            Happening::Wake => {
                if self.nodes[node].engine.next_timeout().is_some_and(|next| next <= self.now) {
                    self.nodes[node].engine.handle_timeout(self.now);
                    let next = self.nodes[node].engine.next_timeout();
                    assert!(next.is_none_or(|next| next > self.now), "the driver would spin");
                    self.after_event(node);
                }
            }
            Happening::Message { from, link, slot } => {
                let message = self.messages.remove(&slot).unwrap();
                if self.link(node, from) == Some(link) {
                    self.event(node, Event::Message { peer: id(from), message });
                    if self.rng.random_range(0..10_000) < self.faults.disconnects {
                        self.cut(node, from);
                    }
                }
            }
            Happening::Dialled { to } => self.dialled(node, to),
            Happening::Sent { to, link, digest, piece } => self.sent(node, to, link, digest, piece),
            Happening::Loaded { digest } => self.loaded(node, digest),
            Happening::Found { digest } => {
                let candidates = self.candidates(node, &digest);
                let _ = self.nodes[node].engine.handle(self.now, Event::Found { digest, candidates });
                self.after_event(node);
            }
            Happening::Lost { peer } => {
                if self.link(node, peer).is_none() {
                    self.event(node, Event::Disconnected { peer: id(peer) });
                }
            }
        }
    }

    fn dialled(&mut self, node: usize, to: usize) {
        let in_a_row = self.failed_in_a_row.remove(&(node, to)).unwrap_or(0);
        let may_fail = self.faults.failed_dials == 100 || in_a_row < MAX_FAILED_IN_A_ROW;
        if may_fail && self.chance(self.faults.failed_dials) {
            self.failed_in_a_row.insert((node, to), in_a_row + 1);
            // An error if the other side was faster to dial.
            let _ = self.nodes[node].engine.handle(self.now, Event::ConnectFailed { peer: id(to) });
            return self.after_event(node);
        }
        if self.link(node, to).is_some() {
            return;
        }
        self.sequence += 1;
        self.links.insert(pair(node, to), self.sequence);
        let roles = [self.nodes[to].role, self.nodes[node].role];
        for (at, other, role) in [(node, to, roles[0]), (to, node, roles[1])] {
            // The one may have closed the connection before the other knows of it.
            if self.link(node, to).is_some() {
                self.event(at, Event::Connected { peer: id(other), role, zone: Zone::default() });
            }
        }
    }

    fn sent(&mut self, node: usize, to: usize, link: Option<u64>, digest: Digest, piece: PieceIndex) {
        let alive = link.is_some() && self.link(node, to) == link;
        self.event(node, Event::Uploaded { peer: id(to), digest, piece });
        if !alive || self.chance(self.faults.lost_pieces) {
            return;
        }
        self.nodes[node].sent += 1;
        self.nodes[to].received += 1;
        let outcome = match () {
            () if self.chance(self.faults.corrupt) => PieceOutcome::Corrupt,
            () if self.chance(self.faults.not_stored) => PieceOutcome::NotStored,
            () => PieceOutcome::Good,
        };
        let received = Event::Received { peer: id(node), digest, piece, outcome };
        let taken = self.nodes[to].engine.handle(self.now, received).is_ok();
        let given_up = self.nodes[to].gave_up.contains(&digest);
        assert!(taken || given_up, "a piece that was asked for was refused");
        if taken && outcome == PieceOutcome::Good {
            self.nodes[to].disk.get_mut(&digest).unwrap().insert(piece);
        }
        self.after_event(to);
        if !self.nodes[to].gave_up.contains(&digest) && self.nodes[to].advance_readers(&digest) {
            self.tell_demand(to, digest);
        }
    }

    fn loaded(&mut self, node: usize, digest: Digest) {
        let event = match self.nodes[node].disk.get(&digest) {
            Some(have) => Event::Seed { digest, geometry: self.blobs[&digest], have: have.clone() },
            None => Event::NotHeld { digest },
        };
        // An error if the blob began to be fetched meanwhile.
        let _ = self.nodes[node].engine.handle(self.now, event);
        self.after_event(node);
    }

    pub(super) fn event(&mut self, node: usize, event: Event) {
        let text = format!("{event:?}");
        if let Err(error) = self.nodes[node].engine.handle(self.now, event) {
            panic!("node {node} at {:?}: {error}: {text}", self.now);
        }
        self.after_event(node);
    }

    fn after_event(&mut self, node: usize) {
        self.nodes[node].events += 1;
        if self.audited {
            self.nodes[node].engine.audit();
        }
        while let Some(action) = self.nodes[node].engine.poll() {
            self.act(node, action);
        }
        if let Some(at) = self.nodes[node].engine.next_timeout() {
            self.schedule(at.max(self.now), node, Happening::Wake);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Connect { peer } => self.later(node, Happening::Dialled { to: number(peer) }),
            Action::Disconnect { peer, .. } => {
                if self.links.remove(&pair(node, number(peer))).is_some() {
                    self.later(number(peer), Happening::Lost { peer: node });
                }
            }
            Action::Send { peer, message } => {
                if let Message::Request { digest, piece, .. } = &message {
                    self.nodes[node].check_near(digest, *piece);
                }
                self.deliver(node, number(peer), message);
            }
            Action::Upload { peer, digest, piece, .. } => {
                assert!(self.nodes[node].disk[&digest].contains(piece), "only what is here is sent");
                let to = number(peer);
                let link = self.link(node, to);
                let done = self.nodes[node].egress_free.max(self.now).after(Self::PIECE);
                self.nodes[node].egress_free = done;
                self.schedule(done, node, Happening::Sent { to, link, digest, piece });
            }
            Action::Load { digest } => self.later(node, Happening::Loaded { digest }),
            Action::FindPeers { digest } => self.later(node, Happening::Found { digest }),
            Action::Complete { digest } => {
                assert!(self.nodes[node].disk[&digest].count() + 1 >= self.blobs[&digest].piece_count());
                *self.nodes[node].complete.entry(digest).or_default() += 1;
            }
            Action::GiveUp { digest } => drop(self.nodes[node].gave_up.insert(digest)),
            Action::Banned { .. } | Action::Closed { .. } => {}
        }
    }

    /// Messages of a connection keep their order.
    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let Some(link) = self.link(from, to) else { return };
        let delay = Duration::from_millis(self.rng.random_range(1..=self.faults.delay.max(1)));
        let at = self.now.after(delay).max(self.last_delivery.get(&(from, to)).copied().unwrap_or_default());
        self.last_delivery.insert((from, to), at);
        self.sequence += 1;
        let slot = self.sequence;
        self.messages.insert(slot, message);
        self.schedule(at, to, Happening::Message { from, link, slot });
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        if self.links.remove(&pair(one, other)).is_some() {
            self.event(one, Event::Disconnected { peer: id(other) });
            self.later(other, Happening::Lost { peer: one });
        }
    }

    fn later(&mut self, node: usize, happening: Happening) {
        self.schedule(self.now.after(Duration::from_millis(1)), node, happening);
    }

    fn schedule(&mut self, at: Moment, node: usize, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, node, happening)));
    }

    fn link(&self, one: usize, other: usize) -> Option<u64> {
        self.links.get(&pair(one, other)).copied()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }
}

impl Node {
    /// How many pieces of a blob that is fetched on demand may be asked for beyond a reader.
    pub(super) const AHEAD: u32 = 4;

    fn is_busy(&self) -> bool {
        let wants = |digest, have: &Bitfield| match self.readers.get(digest) {
            Some(ranges) => ranges.iter().any(|range| !range.is_empty()),
            None => !have.is_full(),
        };
        self.disk.iter().any(|(digest, have)| wants(digest, have) && !self.gave_up.contains(digest))
    }

    /// Lets readers read what is there. Says whether one did.
    fn advance_readers(&mut self, digest: &Digest) -> bool {
        let (Some(ranges), Some(have)) = (self.readers.get_mut(digest), self.disk.get(digest)) else {
            return false;
        };
        let before = ranges.clone();
        for range in &mut *ranges {
            range.start = range.clone().find(|&piece| !have.contains(PieceIndex(piece))).unwrap_or(range.end);
        }
        *ranges != before
    }

    /// What is fetched on demand is asked for near its readers only.
    fn check_near(&self, digest: &Digest, piece: PieceIndex) {
        let Some(ranges) = self.readers.get(digest) else { return };
        let near = |range: &Range<u32>| range.contains(&piece.0) && piece.0 - range.start < Self::AHEAD;
        assert!(ranges.iter().any(near), "piece {piece} is asked for, the readers are at {ranges:?}");
    }
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

/// One less than would be taken for a peer that cannot be reached, with the attempt that comes at the end of the patience.
const MAX_FAILED_IN_A_ROW: u32 = 4;
