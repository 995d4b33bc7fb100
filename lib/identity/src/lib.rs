//! Who a node is: its key, its certificate, the cluster's authority, TLS configurations, signatures.
//!
//! Invariant: a [`Peer`] comes out of here only for a certificate of this cluster's form that is not revoked, and a metainfo
//! is believed only with an origin's signature. What a running node shows and whom it trusts may change; who it is may not.
//! Loading, saving and refreshing block: call them before the runtime works, or in `spawn_blocking`.

mod authority;
mod config;
mod error;
mod files;
mod join;
mod ledger;
mod message;
mod node;
mod refusals;
mod request;
mod revocation;
mod spiffe;
mod standing;
mod statement;
mod tls;
mod token;
mod trust;

use shoal_core::{PeerId, Role};

pub use authority::Authority;
pub use config::{Config, JoinConfig, Renewal};
pub use error::IdentityError;
pub use files::FileError;
pub use join::Joining;
pub use ledger::Ledger;
pub use message::{MessageError, MessageKind};
pub use node::{Identity, ProofError, Refresh};
pub use refusals::Refusals;
pub use request::RequestError;
pub use revocation::{Outcast, RevocationError, Revocations, Serial, SerialError};
pub use spiffe::NameError;
pub use statement::StatementError;
pub use tls::install_crypto_provider;
pub use token::{Grant, JoinToken, NamePattern, TokenError, TokenOrder};
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
