//! All nodes, and the loop that lets things happen to them in the order of virtual time.
//!
//! Invariant: a node's engine hears of nothing that could not have reached it by then: what crosses from node to node
//! takes a letter or a frame, and both take time.

mod actions;
mod control;
mod faults;
mod links;
mod transfers;

use std::time::Duration;

use links::Ends;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use shoal_core::{Bitfield, Digest, Geometry, PieceIndex, Role};
use shoal_swarm::{Candidate, Engine, Event, Message, Moment, Priority};

use crate::agenda::{Agenda, Due, Time};
use crate::node::{BlobId, Item, Node, NodeId, Tally, UploadId, Uploads};
use crate::pipe::Pipe;
use crate::report::{HostReport, Quantiles, Report};
use crate::scenario::Scenario;
use crate::tracker::{Tracker, zone_name};

#[derive(Debug)]
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    rng: Xoshiro256PlusPlus,
    agenda: Agenda<Tick, Letter>,
    nodes: Vec<Node>,
    blobs: Vec<Blob>,
    tracker: Tracker,
    /// What each zone can send to the others, and receive.
    trunks: Vec<(Pipe, Pipe)>,
    /// Bytes that came into each zone.
    far: Vec<u64>,
    ends: Ends,
    /// Pieces that hosts have, and how many they will have.
    pieces: u64,
    goal: u64,
    /// Hosts that are to have everything and do not.
    missing: usize,
}

#[derive(Clone, Debug)]
struct Blob {
    digest: Digest,
    geometry: Geometry,
}

/// Something of one node.
#[derive(Debug)]
enum Tick {
    Start {
        node: NodeId,
    },
    Wake {
        node: NodeId,
    },
    Dialled {
        node: NodeId,
        to: NodeId,
        life: u32,
    },
    DialFailed {
        node: NodeId,
        to: NodeId,
        life: u32,
    },
    /// The pipe out takes the next frame.
    Free {
        node: NodeId,
    },
    /// A piece is at its receiver, whole.
    Arrived {
        from: NodeId,
        to: NodeId,
        upload: UploadId,
    },
    /// The sender knows that a frame arrived.
    Acknowledged {
        from: NodeId,
        upload: UploadId,
        bytes: u64,
        is_last: bool,
    },
    /// A piece was checked, and written if it was right.
    Stored {
        node: NodeId,
        from: NodeId,
        item: Item,
        is_corrupt: bool,
        life: u32,
    },
    Loaded {
        node: NodeId,
        blob: BlobId,
        life: u32,
    },
    /// A request for peers is at the tracker.
    Asked {
        node: NodeId,
        blob: BlobId,
        is_first: bool,
        life: u32,
    },
    Found {
        node: NodeId,
        blob: BlobId,
        is_first: bool,
        life: u32,
        candidates: Vec<Candidate>,
    },
    /// A node says to the tracker that it is there.
    Heartbeat {
        node: NodeId,
        life: u32,
    },
    Announced {
        node: NodeId,
        blob: BlobId,
    },
    /// The peer of a connection is gone without a word.
    Lost {
        node: NodeId,
        peer: NodeId,
        link: u32,
    },
    Crash {
        node: NodeId,
    },
    Return {
        node: NodeId,
    },
    Churn,
    Cut {
        zone: u32,
    },
}

/// What crosses from one node to another.
#[derive(Debug)]
struct Letter {
    from: NodeId,
    to: NodeId,
    link: u32,
    what: Said,
}

#[derive(Debug)]
enum Said {
    /// A message about one piece: kept short, since so many are on their way.
    Piece {
        kind: Kind,
        blob: BlobId,
        piece: PieceIndex,
    },
    Have {
        blob: BlobId,
        pieces: Vec<PieceIndex>,
    },
    /// Any other message.
    Other(Box<Message>),
    /// The connection was closed.
    Closed,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Request(Priority),
    Cancel,
    Reject,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let blobs: Vec<_> = scenario
            .blobs
            .iter()
            .enumerate()
            .map(|(number, &length)| Blob {
                digest: Digest::sha256(&number.to_be_bytes()),
                geometry: Geometry::for_blob(length).expect("checked in Scenario::check"),
            })
            .collect();
        let pieces: u64 = blobs.iter().map(|blob| u64::from(blob.geometry.piece_count())).sum();
        let hosts = scenario.hosts + u32::from(scenario.late_joiner.is_some());
        let trunk = scenario.trunk_rate.unwrap_or(u64::MAX);
        let mut world = Self {
            scenario,
            rng: Xoshiro256PlusPlus::seed_from_u64(scenario.seed),
            agenda: Agenda::new(),
            nodes: Vec::new(),
            tracker: Tracker::new(
                scenario.policy.clone(),
                scenario.tracker_service,
                scenario.tracker_processors,
            ),
            trunks: vec![(Pipe::new(trunk), Pipe::new(trunk)); scenario.zones as usize],
            far: vec![0; scenario.zones as usize],
            ends: Ends::default(),
            pieces: 0,
            goal: pieces * u64::from(hosts),
            missing: hosts as usize,
            blobs,
        };
        for number in 0..hosts + scenario.origins {
            let (role, zone) =
                if number < hosts { (Role::Agent, number) } else { (Role::Origin, number - hosts) };
            let node = world.node(number, role, zone % scenario.zones);
            world.nodes.push(node);
        }
        world.plan();
        world
    }

    fn node(&self, number: NodeId, role: Role, zone: u32) -> Node {
        let has = |blob: &Blob| match role {
            Role::Origin => Bitfield::full(blob.geometry.piece_count()),
            Role::Agent | Role::Tracker => Bitfield::empty(blob.geometry.piece_count()),
        };
        let rate = if role == Role::Origin { self.scenario.origin_rate } else { self.scenario.host_rate };
        Node {
            engine: self.engine(number, zone, 0),
            role,
            zone,
            up: Pipe::new(rate),
            down: Pipe::new(rate),
            store: Pipe::new(self.scenario.store_rate),
            uploads: Uploads::default(),
            links: std::collections::BTreeMap::new(),
            expected: std::collections::BTreeSet::new(),
            disk: self.blobs.iter().map(has).collect(),
            frontier: vec![0; self.blobs.len()],
            is_corrupt: false,
            is_unsound: false,
            is_on: true,
            life: 0,
            wake: None,
            tally: Tally { completed: vec![None; self.blobs.len()], ..Tally::default() },
        }
    }

    fn engine(&self, node: NodeId, zone: u32, life: u32) -> Engine {
        let seed = self.scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (u64::from(life) << 32)
            ^ u64::from(node);
        Engine::new(self.scenario.engine.clone(), zone_name(zone), seed)
    }

    /// Enters what is known before: who starts when, and what goes wrong.
    fn plan(&mut self) {
        let within = nanos(self.scenario.start_within);
        for number in 0..self.nodes.len() {
            let node = number_of(number);
            let (role, zone) = (self.nodes[number].role, self.nodes[number].zone);
            self.tracker.announce(0, node, role, zone, Vec::new());
            let phase = self.rng.random_range(0..nanos(Tracker::HEARTBEAT));
            self.agenda.at(phase, Tick::Heartbeat { node, life: 0 });
            if role == Role::Agent {
                let start = match self.scenario.late_joiner {
                    Some(at) if node == self.scenario.hosts => nanos(at),
                    _ if node == 0 || within == 0 => 0,
                    _ => self.rng.random_range(0..within),
                };
                self.agenda.at(start, Tick::Start { node });
                self.nodes[number].tally.started = Some(start);
            }
        }
        self.plan_faults();
    }

    /// Lets everything happen.
    pub(crate) fn run(mut self, mut progress: impl FnMut(f64)) -> Report {
        let limit = nanos(self.scenario.limit);
        let mut told = 0;
        while self.missing > 0
            && let Some(due) = self.agenda.pop()
            && self.agenda.now() <= limit
        {
            match due {
                Due::Tick(tick) => self.tick(tick),
                Due::Letter(letter) => self.letter(letter),
            }
            if self.pieces * TELLINGS / self.goal.max(1) > told {
                told = self.pieces * TELLINGS / self.goal.max(1);
                #[allow(clippy::cast_precision_loss, reason = "a share for people")]
                progress(told as f64 / TELLINGS as f64);
            }
        }
        self.report()
    }

    fn tick(&mut self, tick: Tick) {
        match tick {
            Tick::Start { node } => self.start(node),
            Tick::Wake { node } => self.wake(node),
            Tick::Dialled { node, to, life } => self.dialled(node, to, life),
            Tick::DialFailed { node, to, life } => self.dial_failed(node, to, life),
            Tick::Free { node } => {
                self.nodes[node as usize].uploads.is_busy = false;
                self.send_frame(node);
            }
            Tick::Arrived { from, to, upload } => self.arrived(from, to, upload),
            Tick::Acknowledged { from, upload, bytes, is_last } => {
                self.acknowledged(from, upload, bytes, is_last);
            }
            Tick::Stored { node, from, item, is_corrupt, life } => {
                self.stored(node, from, item, is_corrupt, life);
            }
            Tick::Loaded { node, blob, life } => self.loaded(node, blob, life),
            Tick::Asked { node, blob, is_first, life } => self.asked(node, blob, is_first, life),
            Tick::Found { node, blob, is_first, life, candidates } => {
                self.found(node, blob, is_first, life, candidates);
            }
            Tick::Heartbeat { node, life } => self.heartbeat(node, life),
            Tick::Announced { node, blob } => self.announced(node, blob),
            Tick::Lost { node, peer, link } => self.lost(node, peer, link),
            Tick::Crash { node } => self.crash(node),
            Tick::Return { node } => self.return_(node),
            Tick::Churn => self.churn(),
            Tick::Cut { zone } => self.cut(zone),
        }
    }

    fn wake(&mut self, node: NodeId) {
        let now = self.agenda.now();
        let it = &mut self.nodes[node as usize];
        if it.is_on && it.wake == Some(now) {
            it.wake = None;
            it.engine.handle_timeout(moment(now));
            self.carry_out(node);
        }
    }

    /// Tells an engine what happened, and does what it says. Says whether the engine took it.
    fn tell(&mut self, node: NodeId, event: Event) -> bool {
        let now = self.agenda.now();
        let it = &mut self.nodes[node as usize];
        it.tally.events += 1;
        let taken = it.engine.handle(moment(now), event).is_ok();
        self.carry_out(node);
        taken
    }

    fn carry_out(&mut self, node: NodeId) {
        while let Some(action) = self.nodes[node as usize].engine.poll() {
            self.act(node, action);
        }
        let it = &mut self.nodes[node as usize];
        let Some(at) = it.engine.next_timeout() else { return };
        let at = nanos(at.0).max(self.agenda.now() + 1);
        if it.wake.is_none_or(|wake| at < wake) {
            it.wake = Some(at);
            self.agenda.at(at, Tick::Wake { node });
        }
    }

    fn blob(&self, digest: &Digest) -> BlobId {
        let at = self.blobs.iter().position(|blob| blob.digest == *digest);
        let at = at.expect("engines know no other blobs than those of the scenario");
        BlobId::try_from(at).expect("there are at most Scenario::MAX_BLOBS")
    }

    fn is_alive(&self, node: NodeId, life: u32) -> bool {
        let it = &self.nodes[node as usize];
        it.is_on && it.life == life
    }

    /// Half a round trip.
    fn latency(&self, one: NodeId, other: NodeId) -> Time {
        // One zone is the usual case, and the other node far away in memory.
        let near =
            self.scenario.zones == 1 || self.nodes[one as usize].zone == self.nodes[other as usize].zone;
        let trip = if near { self.scenario.round_trip } else { self.scenario.far_round_trip };
        nanos(trip) / 2
    }

    fn report(&self) -> Report {
        let hosts = self.nodes.iter().filter(|node| node.role == Role::Agent);
        let total: u64 = self.blobs.iter().map(|blob| blob.geometry.length()).sum();
        let useful: u64 = self.nodes.iter().map(|node| node.tally.useful).sum();
        let share =
            |of: fn(&Tally) -> u64| ratio(self.nodes.iter().map(|node| of(&node.tally)).sum(), useful.max(1));
        let from_origins = self.nodes.iter().filter(|node| node.role == Role::Origin);
        let hosts: Vec<_> = hosts.map(Node::report).collect();
        let regular = hosts.iter().take(self.scenario.hosts as usize);
        Report {
            bound: self.scenario.bound().as_secs_f64(),
            seconds: Quantiles::of(
                regular.filter(|host| host.is_sound).filter_map(HostReport::seconds).collect(),
            ),
            makespan: hosts.iter().filter_map(|host| host.complete).fold(0.0, f64::max),
            unfinished: self.missing,
            origin_copies: ratio(from_origins.map(|node| node.tally.sent).sum(), total),
            duplicate_share: share(|tally| tally.duplicate),
            wasted_share: share(|tally| tally.wasted),
            far_copies: self.far.iter().map(|&bytes| ratio(bytes, total)).collect(),
            tracker_peak: self.tracker.peak(),
            tracker_requests: self.tracker.requests(),
            events: self.nodes.iter().map(|node| node.tally.events).sum(),
            refused: self.nodes.iter().map(|node| node.tally.refused).sum(),
            gave_up: self.nodes.iter().map(|node| u64::from(node.tally.gave_up)).sum(),
            bans: self.nodes.iter().map(|node| u64::from(node.tally.banned)).sum(),
            late_joiner_to_cap: self.late_joiner_to_cap(),
            hosts,
        }
    }

    fn late_joiner_to_cap(&self) -> Option<f64> {
        self.scenario.late_joiner?;
        let late = &self.nodes[self.scenario.hosts as usize].tally;
        let wanted = self.scenario.host_rate / 10 * 95 / 100 * WINDOW as u64;
        let windows = late.tenths.windows(WINDOW);
        let first = windows.into_iter().position(|window| window.iter().sum::<u64>() >= wanted)?;
        #[allow(clippy::cast_precision_loss, reason = "a short time")]
        Some(first as f64 / 10.0)
    }
}

impl Node {
    fn report(&self) -> HostReport {
        let tally = &self.tally;
        let complete = tally.completed.iter().copied().collect::<Option<Vec<_>>>();
        HostReport {
            zone: self.zone,
            is_sound: !self.is_unsound,
            start: seconds(tally.started.unwrap_or_default()),
            complete: complete.and_then(|times| times.into_iter().max()).map(seconds),
            sent: tally.sent,
            received: tally.received,
            from_origins: tally.from_origins,
        }
    }
}

/// How often progress is told.
const TELLINGS: u64 = 200;
/// Tenths of a second over which a late joiner's rate is taken.
const WINDOW: usize = 5;

fn nanos(duration: Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

fn moment(time: Time) -> Moment {
    Moment(Duration::from_nanos(time))
}

fn seconds(time: Time) -> f64 {
    Duration::from_nanos(time).as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn number_of(at: usize) -> NodeId {
    NodeId::try_from(at).expect("there are at most Scenario::MAX_HOSTS and MAX_ORIGINS")
}

fn frontier(have: &Bitfield, from: u32) -> u32 {
    have.first_missing(PieceIndex(from)).map_or(have.len(), |piece| piece.0)
}
