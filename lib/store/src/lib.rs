//! The content-addressed store: blobs on disk under their digest, whole or still arriving.
//!
//! Invariant: a byte that leaves the store was verified, and a crash at any instant (killed, or power lost) leaves of
//! every blob the whole, or a partial whose marked pieces are right, or nothing (`commit`, `checkpoint` and `recovery`
//! say how). Disk and hashing run on blocking threads; memory does not grow with a blob's length, but for 32 bytes a piece.
//! It does not fetch and does not judge a metainfo's signature. Who must go for whom is in `space` and `eviction`.

#![allow(
    clippy::result_large_err,
    reason = "an error names digests by value, 65 bytes each; errors are rare, and none is raised in a hot loop"
)]

mod age;
mod arrivals;
mod blob;
mod checkpoint;
mod commit;
mod config;
mod demand;
mod directory;
mod disk;
mod eviction;
mod frontier;
mod hashes;
mod import;
mod index;
mod layout;
mod metrics;
mod partial;
mod progress;
mod reader;
mod recovery;
mod space;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod usage;

pub use arrivals::{Arrivals, Arrived};
pub use blob::Blob;
pub use commit::CommitError;
pub use config::{CacheConfig, Config, Percent, Room, RoomError, Verify};
pub use directory::OpenError;
pub use disk::DiskError;
pub use eviction::NoRoom;
pub use hashes::Conflict;
pub use import::ImportError;
pub use index::Entry;
pub use partial::{Partial, WriteError, Written};
pub use reader::{BlobReader, ReadError};
pub use space::Evictions;
pub use store::{CreateError, IdleBlob, Store, StoreError};
