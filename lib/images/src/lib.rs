//! Where images are kept, and how they get from one place to another: registries, OCI layouts, docker archives.
//!
//! A copy is planned first (every manifest read and proved), then blobs go, several at a time, then manifests from the leaves to
//! the root, the tag last: whatever is cut short leaves nothing that names what is not there. Archives are never unpacked: a name
//! in one is a key of a table. Deliberately not here: making, changing or unpacking images.

mod archive;
mod copy;
mod docker;
mod error;
mod files;
mod layout;
mod location;
mod place;
mod plan;
mod proof;
mod registry;
mod sessions;

pub use copy::{Copied, Options, Progress, copy};
pub use docker::DockerSource;
pub use error::ImageError;
pub use layout::{LayoutSink, LayoutSource};
pub use location::{Location, LocationError};
pub use place::{Put, Sink, Source};
pub use plan::Plan;
pub use registry::{RegistrySink, RegistrySource};
pub use sessions::Sessions;
