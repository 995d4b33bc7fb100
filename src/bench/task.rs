//! What one end of a measurement is told to do, and what it says. One JSON line each.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shoal_core::PeerAddress;
use shoal_store::Verify;

use super::usage::Usage;

/// What an end is there for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Task {
    /// Listens, and serves until its standard input ends.
    Serve(Serve),
    /// Does one thing.
    Work(Work),
}

/// What is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Serve {
    /// So many bytes to the first who connects.
    Stream { over: Protocol, identity: PathBuf, bytes: u64 },
    /// What a store has, to other nodes.
    Seed { transport: Transport, identity: PathBuf, store: PathBuf },
    /// What a cluster has, by the registry of its agent.
    Registry { directory: PathBuf },
}

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Work {
    /// Hashes so many bytes.
    Hash { hash: Hash, bytes: u64 },
    /// Writes so many bytes to a new file.
    FileWrite { file: PathBuf, bytes: u64 },
    /// Reads a file.
    FileRead { file: PathBuf, bytes: u64 },
    /// Takes the prepared blob of so many bytes into a new store.
    StoreWrite { store: PathBuf, verify: Verify, metainfo: PathBuf, bytes: u64 },
    /// Reads the only blob of a store in order.
    StoreRead { store: PathBuf, bytes: u64 },
    /// Reads the only blob of a store piece by piece.
    StorePieces { store: PathBuf, bytes: u64 },
    /// Reads a stream to its end.
    Stream { over: Protocol, identity: PathBuf, address: SocketAddr, bytes: u64 },
    /// Fetches a blob into a new store.
    Fetch(Fetch),
    /// Reads what a registry has at a path.
    Get { address: SocketAddr, path: String, bytes: u64 },
}

/// A blob that is fetched from a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fetch {
    pub(super) transport: Transport,
    pub(super) identity: PathBuf,
    pub(super) store: PathBuf,
    pub(super) verify: Verify,
    pub(super) metainfo: PathBuf,
    pub(super) peer: PeerAddress,
}

/// How raw bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    Tcp,
    Tls,
    Quic,
}

/// How nodes exchange pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Transport {
    Tcp,
    Quic,
}

/// What bytes are hashed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Hash {
    Sha256,
    Sha512,
    Blake3,
}

/// What an end says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// Whoever serves is ready.
    Listening(SocketAddr),
    /// What the work took; of whoever serves, from ready to the end.
    Used(Usage),
}
