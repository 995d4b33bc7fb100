//! A client of any OCI registry (distribution-spec 1.1), safe by construction.
//!
//! What comes from a registry is believed only where a digest proves it. A secret goes to the registry's own host, and to hosts
//! of tokens that are named; nothing that a registry answers leads a request nearer to this host than the registry itself is.
//! Every wait, retry and answer is bounded. Deliberately not here: files of images (`shoal-images`), and what to copy.

mod blobs;
mod challenge;
mod config;
mod credentials;
mod download;
mod error;
mod link;
mod manifest;
mod manifests;
mod reach;
mod redirect;
mod reference;
mod registry;
mod retry;
mod token;
mod transport;
mod upload;

pub use blobs::BlobFound;
pub use config::{EndpointConfig, Scheme};
pub use credentials::{Credentials, CredentialsError, DockerConfig, Secret};
pub use download::Download;
pub use error::UpstreamError;
pub use manifest::{Descriptor, Manifest, ManifestError, MediaType, Platform};
pub use manifests::{ManifestFound, fallback_tag};
pub use reference::{ImageReference, ReferenceError, RegistryHost};
pub use registry::Registry;
pub use upload::{ByteStream, Content, Session, Uploaded, Watch};

/// The largest manifest that is taken, in bytes: what registries have to accept (distribution-spec, "Pushing manifests").
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
