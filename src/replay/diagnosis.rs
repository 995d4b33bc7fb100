//! What is known of a node's life: the counts, times and stalls of its swarms, peers and requests.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Role};
use shoal_swarm::PieceOutcome;
use shoal_swarm::record::EndReason;

/// What is known of a node's life.
#[derive(Debug, Serialize)]
pub(super) struct Diagnosis {
    pub(super) node: PeerId,
    pub(super) software: String,
    /// The wall clock at the start, in milliseconds since 1970.
    pub(super) started_unix_ms: u64,
    /// From the start to the last line that was replayed.
    pub(super) seconds: f64,
    pub(super) ending: Ending,
    /// What the engine was told, by kind; timeouts too.
    pub(super) events: BTreeMap<String, u64>,
    /// Events that it refused, by its reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// What it did, by kind.
    pub(super) actions: BTreeMap<String, u64>,
    pub(super) swarms: Vec<Swarm>,
    /// Slowest first; those that brought nothing before all others.
    pub(super) peers: Vec<Peer>,
    /// Requests that were open at the end, oldest first.
    pub(super) open: Vec<Open>,
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// The node was stopped.
    Stopped,
    /// The record has the size that it may have; the node went on.
    Full,
    /// Events came faster than they could be written; the node went on.
    Overrun,
    /// The record has no end: the node was killed, or runs still.
    BrokenOff,
    /// `--until`.
    Until,
    /// The engine did otherwise than it is on record.
    Mismatch,
}

/// One blob.
#[derive(Debug, Serialize)]
pub(super) struct Swarm {
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) pieces: u32,
    pub(super) held_before: u32,
    pub(super) have: u32,
    /// None: it was only served.
    pub(super) fetched_at: Option<f64>,
    pub(super) completed_at: Option<f64>,
    pub(super) given_up_at: Option<f64>,
    pub(super) searches: u64,
    pub(super) from_agents: Source,
    pub(super) from_origins: Source,
    pub(super) requests: Requests,
    pub(super) uploads: u64,
    pub(super) uploads_refused: u64,
    pub(super) stalls: Vec<Stall>,
}

/// What came from one kind of node.
#[derive(Debug, Default, Serialize)]
pub(super) struct Source {
    pub(super) pieces: u64,
    pub(super) bytes: u64,
}

/// What became of requests.
#[derive(Debug, Default, Serialize)]
pub(super) struct Requests {
    pub(super) sent: u64,
    /// A piece that was wanted came.
    pub(super) good: u64,
    /// A piece came that was there already.
    pub(super) duplicate: u64,
    pub(super) corrupt: u64,
    pub(super) not_stored: u64,
    /// The peer would not.
    pub(super) rejected: u64,
    /// It took too long, and was asked for elsewhere.
    pub(super) timed_out: u64,
    /// Another peer was faster: the endgame.
    pub(super) overtaken: u64,
    /// The connection was lost.
    pub(super) lost: u64,
    /// The fetch was closed.
    pub(super) closed: u64,
}

/// A time in which a fetch got nothing.
#[derive(Debug, Serialize)]
pub(super) struct Stall {
    pub(super) from: f64,
    pub(super) to: f64,
    /// Whom it waited for when it ended, by how many requests.
    pub(super) waited_for: BTreeMap<PeerId, u64>,
}

/// One peer.
#[derive(Debug, Serialize)]
pub(super) struct Peer {
    pub(super) peer: PeerId,
    pub(super) role: Option<Role>,
    pub(super) bytes: u64,
    /// From the request to the piece, the mean and the longest.
    pub(super) mean_seconds: Option<f64>,
    pub(super) longest_seconds: Option<f64>,
    pub(super) requests: Requests,
    /// Pieces that it was sent.
    pub(super) uploads: u64,
    pub(super) connections: u64,
    pub(super) failed_dials: u64,
    pub(super) disconnects: u64,
    pub(super) banned: bool,
}

/// A request that is not answered.
#[derive(Debug, Serialize)]
pub(super) struct Open {
    pub(super) digest: Digest,
    pub(super) piece: PieceIndex,
    pub(super) peer: PeerId,
    pub(super) since: f64,
}

/// How a request ended, of those that bring no piece.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    Rejected,
    TimedOut,
    Overtaken,
    Lost,
    Closed,
}

impl Swarm {
    pub(super) fn new(digest: Digest, geometry: &Geometry, have: &Bitfield) -> Self {
        Self {
            digest,
            length: geometry.length(),
            pieces: geometry.piece_count(),
            held_before: have.count(),
            have: have.count(),
            fetched_at: None,
            completed_at: None,
            given_up_at: None,
            searches: 0,
            from_agents: Source::default(),
            from_origins: Source::default(),
            requests: Requests::default(),
            uploads: 0,
            uploads_refused: 0,
            stalls: Vec::new(),
        }
    }

    pub(super) fn source(&mut self, role: Option<Role>) -> &mut Source {
        if role == Some(Role::Origin) { &mut self.from_origins } else { &mut self.from_agents }
    }
}

impl Source {
    pub(super) fn add(&mut self, bytes: u64) {
        self.pieces += 1;
        self.bytes += bytes;
    }
}

impl Peer {
    pub(super) fn new(peer: PeerId) -> Self {
        Self {
            peer,
            role: None,
            bytes: 0,
            mean_seconds: None,
            longest_seconds: None,
            requests: Requests::default(),
            uploads: 0,
            connections: 0,
            failed_dials: 0,
            disconnects: 0,
            banned: false,
        }
    }

    /// A good piece came after such a wait; it is counted already.
    pub(super) fn took(&mut self, wait: Option<f64>) {
        let Some(wait) = wait else { return };
        let count = self.requests.good as f64;
        self.mean_seconds = Some(self.mean_seconds.map_or(wait, |mean| mean + (wait - mean) / count));
        self.longest_seconds = Some(self.longest_seconds.map_or(wait, |longest| longest.max(wait)));
    }
}

impl Requests {
    pub(super) fn arrived(&mut self, outcome: PieceOutcome, is_new: bool) {
        match outcome {
            PieceOutcome::Good if is_new => self.good += 1,
            PieceOutcome::Good => self.duplicate += 1,
            PieceOutcome::Corrupt => self.corrupt += 1,
            PieceOutcome::NotStored => self.not_stored += 1,
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        match failure {
            Failure::Rejected => self.rejected += 1,
            Failure::TimedOut => self.timed_out += 1,
            Failure::Overtaken => self.overtaken += 1,
            Failure::Lost => self.lost += 1,
            Failure::Closed => self.closed += 1,
        }
    }
}

impl From<EndReason> for Ending {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Stopped => Self::Stopped,
            EndReason::Full => Self::Full,
            EndReason::Overrun => Self::Overrun,
        }
    }
}
