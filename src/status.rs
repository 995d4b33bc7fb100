//! What a role knows of itself, its peers and a blob: served as JSON at its admin port, shown by `shoal status`, `shoal peers`
//! and `shoal swarm`; `shoal retry` is told to it.
//!
//! The types here are both ends' schema. Every list has a limit and says whether there is more. Asking costs the role a copy
//! of its counters; rates are the difference of two looks, so nothing is added where bytes move.

mod api;
mod command;
mod node;
mod render;
mod tracker;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use shoal_core::{Digest, PeerId, Role, Zone};

pub use api::router;
pub(crate) use command::{Options, ReadOnlyOptions, SwarmOptions, peers, read_only, retry, status, swarm};
pub use node::NodeSource;
pub use tracker::TrackerSource;

/// Where the admin port answers.
pub mod path {
    /// `GET` for a [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// `GET` for [`super::Peers`].
    pub const PEERS: &str = "/v1/peers";
    /// `POST` for [`super::Retried`].
    pub const RETRY: &str = "/v1/retry";
    /// `GET` for [`super::ReadOnly`]; `POST` with `/on` or `/off` after it to change it, for what it is then.
    pub const READ_ONLY: &str = "/v1/read-only";
    /// `GET` with a digest after it for a [`super::Swarm`].
    pub const SWARM: &str = "/v1/swarm";
}

/// Whether an origin takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOnly {
    /// It serves pulls alone.
    pub on: bool,
}

/// How a list is asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// The most entries of an answer, at most [`Query::MAX_LIMIT`].
    pub limit: usize,
    /// Where the answer before ended: its `next`.
    pub after: u64,
    /// How far apart the two looks are that rates come from, in milliseconds, at most [`Query::MAX_OVER_MS`]. 0: no rates.
    pub over_ms: u64,
}

/// Some of all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List<T> {
    /// So many as the limit allows.
    pub entries: Vec<T>,
    /// How many there are.
    pub total: usize,
    /// Whether there are more than these.
    pub truncated: bool,
    /// What to say as `after` for those that follow, where they can be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Its name by its key.
    pub id: PeerId,
    /// Its name by its certificate.
    pub name: String,
    /// The cluster.
    pub cluster: String,
    /// Of the software.
    pub version: String,
    /// Seconds since it came up.
    pub uptime_s: u64,
    /// When its certificate ends (RFC 3339).
    pub certificate_ends: String,
    /// Why it is not ready; nothing if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// What an agent or origin has and does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
    /// What a tracker knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracker: Option<TrackerStatus>,
}

/// An agent or an origin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Where it stands.
    pub zone: Zone,
    /// Where its peer port is.
    pub peer_port: SocketAddr,
    /// The trackers, each asked just now.
    pub trackers: Vec<ServerStatus>,
    /// Nodes of the overlay that it is connected to; nothing where it takes no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_peers: Option<usize>,
    /// What it keeps.
    pub store: StoreStatus,
    /// Peers that are connected.
    pub connections: usize,
    /// Bytes of pieces from agents since the start.
    pub received_from_agents: u64,
    /// Bytes of pieces from origins since the start.
    pub received_from_origins: u64,
    /// Bytes of pieces that it sent since the start.
    pub sent: u64,
    /// What comes and goes now.
    pub rates: Option<Rates>,
    /// Blobs on their way.
    pub fetches: List<FetchStatus>,
    /// What an origin is to do later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<JobQueue>,
}

/// Work that is kept on disk until it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobQueue {
    /// Its name.
    pub name: String,
    /// Jobs that are not done.
    pub waiting: usize,
    /// Seconds that the oldest of them has waited.
    pub lag_s: u64,
    /// Jobs that were given up, the newest first.
    pub dead: List<DeadJob>,
}

/// Jobs that were given up, and are tried again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Retried {
    /// How many.
    pub jobs: usize,
}

/// A job that was given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadJob {
    /// What it is about.
    pub key: String,
    /// How often it failed.
    pub tries: u32,
    /// Why, the last time.
    pub error: String,
}

/// A server of the control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// As it is configured.
    pub url: String,
    /// Why it did not answer; nothing if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is kept on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Bytes of all blobs, those on their way included.
    pub used: u64,
    /// Bytes that there may be; nothing where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Bytes that the file system has left; nothing where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// Whole blobs.
    pub blobs: usize,
    /// Blobs of which parts are here.
    pub partials: usize,
}

/// Bytes of pieces a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// What comes.
    pub received: u64,
    /// What goes.
    pub sent: u64,
}

/// A blob on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FetchStatus {
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// How many of its bytes are here.
    pub bytes: u64,
    /// Peers in its swarm.
    pub peers: usize,
    /// Bytes of it a second that were checked and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// A tracker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrackerStatus {
    /// Agents with a lease.
    pub agents: usize,
    /// Origins with a lease.
    pub origins: usize,
    /// Blobs that agents have some of.
    pub blobs: usize,
    /// Pairs of an agent and a blob that it has some of.
    pub holdings: usize,
    /// Agents that wait to hear of somebody new.
    pub waiting: usize,
}

/// Whom a role knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Peers {
    /// The peers of an agent or origin that are connected.
    Node(List<PeerStatus>),
    /// All nodes of a tracker.
    Tracker(List<KnownNode>),
}

/// A connected peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Who it is.
    pub id: PeerId,
    /// What it is.
    pub role: Role,
    /// Where it stands.
    pub zone: Zone,
    /// The other end of the connection.
    pub address: SocketAddr,
    /// `quic` or `tcp`.
    pub transport: String,
    /// How long a packet and its answer take, in microseconds, as far as it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Seconds since it was connected.
    pub connected_s: u64,
    /// Bytes of pieces that came from it.
    pub received: u64,
    /// Bytes of pieces that it was sent.
    pub sent: u64,
    /// What comes and goes now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// Pieces that it is asked for now.
    pub requests: usize,
    /// Blobs that both exchange.
    pub blobs: usize,
}

/// A node that a tracker knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KnownNode {
    /// Who it is.
    pub id: PeerId,
    /// What it is.
    pub role: Role,
    /// Where it stands.
    pub zone: Zone,
    /// Where others reach it.
    pub addresses: Vec<SocketAddr>,
    /// Seconds until its lease is over.
    pub lease_s: u64,
    /// Blobs that it has, or asked for lately.
    pub blobs: usize,
    /// Whether it is kept out of answers, because others cannot reach it.
    pub removed: bool,
}

/// Who has what of a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Swarm {
    /// As an agent or origin sees it.
    Node(NodeSwarm),
    /// As a tracker does.
    Tracker(TrackerSwarm),
}

/// A blob at an agent or origin, and its peers there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSwarm {
    /// The blob.
    pub digest: Digest,
    /// What the node itself has; nothing where it knows nothing of the blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
    /// The peers that exchange it with the node now.
    pub members: List<MemberStatus>,
}

/// What a node has of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The blob's length in bytes.
    pub length: u64,
    /// How many pieces it has.
    pub pieces: u32,
    /// How many of them are here.
    pub have: u32,
}

/// A peer in a swarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Who it is.
    pub id: PeerId,
    /// What it is.
    pub role: Role,
    /// How many pieces it has; nothing until it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<u32>,
    /// What comes and goes over the connection with it, pieces of all blobs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
}

/// A blob at a tracker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrackerSwarm {
    /// The blob.
    pub digest: Digest,
    /// Who has some of it.
    pub holders: List<HolderStatus>,
}

/// A node that has some of a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HolderStatus {
    /// Who it is.
    pub id: PeerId,
    /// What it is.
    pub role: Role,
    /// Where it stands.
    pub zone: Zone,
    /// Where others reach it.
    pub addresses: Vec<SocketAddr>,
    /// How much it has.
    pub state: Holds,
    /// Seconds since the tracker heard of it first.
    pub since_s: u64,
}

/// How much of a blob a node has, as far as a tracker was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// It asked for the blob, and said nothing yet.
    Asked,
    /// Some pieces.
    Partial,
    /// All of them.
    Complete,
}

impl Query {
    /// The most entries of one answer: some hundred KiB.
    pub const MAX_LIMIT: usize = 1000;
    /// The longest time between two looks, in milliseconds.
    pub const MAX_OVER_MS: u64 = 5000;

    fn limit(self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }

    fn over(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.over_ms.min(Self::MAX_OVER_MS))
    }
}

impl Default for Query {
    fn default() -> Self {
        Self { limit: Self::MAX_LIMIT, after: 0, over_ms: 500 }
    }
}

impl<T> List<T> {
    /// The first of them.
    fn of(entries: impl IntoIterator<Item = T>, total: usize, limit: usize) -> Self {
        let entries: Vec<T> = entries.into_iter().take(limit).collect();
        Self { truncated: entries.len() < total, entries, total, next: None }
    }
}
