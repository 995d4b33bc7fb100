//! What can go wrong with an identity; each kind is explained by the module that raises it.

use crate::files::FileError;
use crate::node::ProofError;
use crate::spiffe::NameError;
use crate::trust::CertificateError;

/// Why an identity could not be made, read, or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A cluster or a node cannot be called that.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something is wrong with a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate is not accepted.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A signed metainfo is not believed.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The authority's own certificate has run out: it can issue nothing that anybody would accept.
    #[error("the authority of cluster {cluster:?} has expired: make a new one with `shoal ca init`")]
    AuthorityExpired {
        /// The authority's cluster.
        cluster: String,
    },
    /// The certificate could not be made.
    #[error("cannot issue a certificate for {subject:?}")]
    Issue {
        /// For whom it was meant.
        subject: String,
        /// What the X.509 library said.
        source: rcgen::Error,
    },
}
