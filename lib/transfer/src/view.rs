//! What a node knows of its peers and fetches at one moment, for people: a copy that the node's task makes when it is asked.

use std::net::SocketAddr;
use std::time::Duration;

use shoal_core::{Digest, PeerId, Role, Zone};
pub use shoal_swarm::MemberView;

use crate::link::Transport;

/// All connections and all fetches. Both are bounded by the node's limits.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By name.
    pub peers: Vec<PeerView>,
    /// By digest.
    pub fetches: Vec<FetchView>,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Who it is.
    pub id: PeerId,
    /// What its certificate says that it is.
    pub role: Role,
    /// Where it says that it stands.
    pub zone: Zone,
    /// The other end of the connection.
    pub address: SocketAddr,
    /// `quic` or `tcp`.
    pub transport: &'static str,
    /// How long a packet and its answer take, as far as it was measured.
    pub round_trip: Option<Duration>,
    /// Since when there is this connection.
    pub connected_for: Duration,
    /// Bytes of pieces that came over it.
    pub received: u64,
    /// Bytes of pieces that left over it.
    pub sent: u64,
    /// Pieces that it is asked for now.
    pub requests: usize,
    /// Blobs that both exchange.
    pub blobs: usize,
}

/// A blob on its way.
#[derive(Clone, Copy, Debug)]
pub struct FetchView {
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// How many of its bytes are here.
    pub bytes: u64,
    /// How many pieces it has.
    pub pieces: u32,
    /// How many of them are here.
    pub have: u32,
    /// Peers in its swarm.
    pub peers: usize,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}
