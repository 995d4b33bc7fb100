//! What can go wrong with an identity; each kind is explained by the module that raises it.

use crate::files::FileError;
use std::path::PathBuf;

use shoal_core::{PeerId, Role};

use crate::node::ProofError;
use crate::request::RequestError;
use crate::revocation::RevocationError;
use crate::spiffe::NameError;
use crate::token::TokenError;
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
    /// A join token is of no use.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A certificate request is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A revocation list is not taken.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The files, or a renewed certificate, are another node's: that cannot change while a node runs.
    #[error(
        "{found} ({role} {name:?}) is not who this node is ({expected}): restart it, if it is to be that one; an issuer must keep the key when it renews"
    )]
    OtherNode {
        /// Who this node is.
        expected: PeerId,
        /// Whom the certificate names.
        found: PeerId,
        /// Its role.
        role: Role,
        /// Its name.
        name: String,
    },
    /// There is neither a certificate nor a token to get one by.
    #[error("no identity in {}: issue one with `shoal ca issue`, or set identity.join with a token of `shoal ca token` and the trackers' enrolment addresses", directory.display())]
    Nothing {
        /// The directory of the configuration.
        directory: PathBuf,
        /// What was tried.
        source: Box<FileError>,
    },
    /// The configuration of joining cannot work.
    #[error("identity.join: {0}")]
    Join(&'static str),
    /// No tracker proved to be of the cluster that the token is for.
    #[error("no tracker has shown the authority that the token names")]
    NoAuthority,
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
