//! Registry path grammar, typed requests, and the storage drivers of a peer-to-peer registry.
//!
//! A registry asks a [`StorageDriver`] for paths. The peer-to-peer drivers read each path as a [`RegistryPath`], prove the
//! [`Request`], and answer from the content-addressed store, which a [`Transferer`] feeds. Bytes come from the store or
//! verified from the cluster, never from anywhere else. HTTP, manifests and who may see what are not known here.

pub mod conformance;
pub mod driver;
pub mod error;
pub mod filesystem;
pub mod link;
pub mod memory;
pub mod path;
pub mod read_only;
pub mod read_write;
pub mod registry_path;
pub mod request;
pub mod tag;
pub mod transferer;
pub mod walk;

mod blobs;
mod writer;

pub use driver::{
    ByteRange, ByteStream, Context, FileInfo, FileWriter, MAX_CONTENT_LENGTH, StorageDriver, WriteMode,
};
pub use error::DriverError;
pub use filesystem::FilesystemDriver;
pub use link::{Link, LinkKind};
pub use memory::MemoryDriver;
pub use path::{DriverPath, InvalidDriverPath, PathFault};
pub use read_only::ReadOnlyDriver;
pub use read_write::{ReadWriteDriver, Signer};
pub use registry_path::{InvalidRegistryPath, RegistryPath, RegistryPathFault, Shard, UploadId};
pub use request::{InvalidRequest, Operation, Request, RequestError};
pub use tag::{Freshness, ResolvedTag, TagExpectation};
pub use transferer::{TransferError, Transferer};
pub use walk::{Walk, walk};
