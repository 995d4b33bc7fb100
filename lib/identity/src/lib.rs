//! Who a node is: its key, its certificate, the cluster's authority, TLS configurations, signatures.
//!
//! Invariant: a [`Peer`] comes out of here only for a certificate of this cluster's form, and a metainfo is
//! believed only with an origin's signature. Certificates end by their age; there are no revocation lists.
//! Loading and saving block: call them before the runtime works, or in `spawn_blocking`.

mod authority;
mod error;
mod files;
mod message;
mod node;
mod spiffe;
mod tls;
mod trust;

use std::path::PathBuf;

use shoal_core::{PeerId, Role};

pub use authority::Authority;
pub use error::IdentityError;
pub use files::FileError;
pub use message::{MessageError, MessageKind};
pub use node::{Identity, ProofError};
pub use spiffe::NameError;
pub use tls::install_crypto_provider;
pub use trust::CertificateError;

/// Who is at the other end of an authenticated connection, from its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The certificate's key.
    pub id: PeerId,
    /// From the URI SAN.
    pub role: Role,
    /// Operator's name for the node.
    pub name: String,
}

/// Where a node's files are: `ca.pem`, `cert.pem`, `key.pem` in one directory.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory.
    pub directory: PathBuf,
}
