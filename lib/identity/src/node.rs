//! A node's identity: its key and certificate, and what it does with them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, UnixTime};
use shoal_core::{Digest, Metainfo, PeerId, Proof, Role, SignedMetainfo};

use crate::error::IdentityError;
use crate::files::{self, FileError, PemFile, Secrecy};
use crate::trust::{self, CertificateError, Trust};
use crate::{Config, Peer, tls};

/// Who this node is: key, certificate, the CA that it trusts. Shared by all its connections; cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    files: NodeFiles,
    peer: Peer,
    certificate: CertificateDer<'static>,
    key: Ed25519KeyPair,
    shown: Arc<SingleCertAndKey>,
    trust: Arc<Trust>,
}

/// What a node's directory holds.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    pub(crate) authorities: PemFile,
    pub(crate) certificate: PemFile,
    pub(crate) key: PemFile,
}

/// Why a signed metainfo is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProofError {
    /// The signer's certificate is not accepted.
    #[error("metainfo of {digest} is not believed: its signer is not accepted")]
    Certificate {
        /// The blob.
        digest: Digest,
        /// What is wrong with the certificate.
        source: Box<CertificateError>,
    },
    /// Only origins may sign.
    #[error(
        "metainfo of {digest} is not believed: its signer {signer} is of role {role}, and only origins may sign"
    )]
    NotAnOrigin {
        /// The blob.
        digest: Digest,
        /// Who signed.
        signer: PeerId,
        /// What the signer is.
        role: Role,
    },
    /// The signature is not the signer's, or of something else.
    #[error("metainfo of {digest} is not believed: it is not what {signer} signed")]
    Signature {
        /// The blob.
        digest: Digest,
        /// Who is said to have signed.
        signer: PeerId,
    },
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem`, `key.pem`, and checks that they belong together and are in their time.
    ///
    /// `ca.pem` may hold several authorities, so that a cluster can change from one to the next.
    pub fn load(config: &Config) -> Result<Self, IdentityError> {
        let read = |name| PemFile::read(&config.directory, name, files::CA_ISSUE);
        let identity = Self::assemble(NodeFiles {
            authorities: read(files::AUTHORITY_CERTIFICATE)?,
            certificate: read(files::NODE_CERTIFICATE)?,
            key: read(files::NODE_KEY)?,
        })?;
        let inner = &identity.0;
        match inner.trust.check(&inner.certificate, UnixTime::now()) {
            Ok(_) => Ok(identity),
            Err(source) => Err(inner.files.certificate.refused(source).into()),
        }
    }

    /// Puts an identity together; who signed the certificate, and for how long, is not looked at.
    pub(crate) fn assemble(files: NodeFiles) -> Result<Self, FileError> {
        let certificate = files.certificate.certificate()?;
        let refused = |source| files.certificate.refused(source);
        let cluster = trust::claimed_cluster(&certificate).map_err(refused)?;
        let authorities = files.authorities.certificates()?;
        let trust = Trust::new(&cluster, &authorities).map_err(|source| files.authorities.refused(source))?;
        let peer = trust.peer(&certificate).map_err(refused)?;

        let secret = files.key.key()?;
        // "Maybe unchecked": the first version of PKCS #8, which other tools write, has no public key inside.
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(secret.secret_pkcs8_der())
            .map_err(|_| files.key.not_a_key())?;
        if key.public_key().as_ref() != peer.id.public_key() {
            let (key, certificate) = (files.key.path.clone(), files.certificate.path.clone());
            return Err(FileError::KeyMismatch { key, certificate });
        }
        let signer = any_eddsa_type(&secret).map_err(|_| files.key.not_a_key())?;
        let shown = Arc::new(CertifiedKey::new(vec![certificate.clone()], signer).into());
        Ok(Self(Arc::new(Inner { files, peer, certificate, key, shown, trust: Arc::new(trust) })))
    }

    /// Writes them (key mode 0600, never overwrites). The directory is made if it is missing.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let NodeFiles { authorities, certificate, key } = &self.0.files;
        let files = [
            (files::AUTHORITY_CERTIFICATE, Secrecy::Public, authorities.text.as_str()),
            (files::NODE_CERTIFICATE, Secrecy::Public, certificate.text.as_str()),
            (files::NODE_KEY, Secrecy::Private, key.text.as_str()),
        ];
        Ok(files::create_all(directory, &files)?)
    }

    /// Own id.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.peer.id
    }

    /// Own role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.peer.role
    }

    /// Own name, as the operator gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.peer.name
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.0.trust.cluster
    }

    /// TLS 1.3 server that demands a client certificate of this cluster (any role), with these ALPN protocols.
    ///
    /// Who came in is for the caller to ask with [`Identity::peer`], and whether that one may do what it asks for.
    #[must_use]
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        tls::server_config(Arc::clone(&self.0.trust), self.0.shown.clone(), alpn)
    }

    /// TLS 1.3 client with own certificate; accepts only servers of this cluster with one of `roles` (names are not looked at).
    ///
    /// A caller that wants one certain node compares [`Identity::peer`] of the server's certificate with its id.
    #[must_use]
    pub fn client_config(&self, roles: &[Role], alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        tls::client_config(Arc::clone(&self.0.trust), self.0.shown.clone(), roles, alpn)
    }

    /// Who that certificate (already verified by TLS) belongs to.
    ///
    /// Refuses one that does not name a node of this cluster. Does **not** look at who signed it: never call it
    /// with a certificate that did not come out of a handshake of this crate's configurations.
    pub fn peer(&self, certificate: &CertificateDer<'_>) -> Result<Peer, IdentityError> {
        Ok(self.0.trust.peer(certificate)?)
    }

    /// Signs a metainfo (an origin's right: other roles may sign, and nobody believes them).
    ///
    /// The signature is over `"shoal metainfo v1\0"` and [`Metainfo::encode`].
    #[must_use]
    pub fn sign(&self, metainfo: &Metainfo) -> Proof {
        self.prove(&signed_message(metainfo))
    }

    /// Checks that the certificate is of this cluster, in its time, of an origin, and signed exactly this metainfo.
    ///
    /// Computes, and does not block: two Ed25519 checks, and SHA-512 over the metainfo, which is some KiB for a
    /// common blob and 2 MiB (a few milliseconds) for the largest.
    pub fn verify(&self, signed: &SignedMetainfo) -> Result<Peer, IdentityError> {
        Ok(self.verify_at(signed, UnixTime::now())?)
    }

    /// Own certificate, and the signature of exactly these bytes.
    pub(crate) fn prove(&self, bytes: &[u8]) -> Proof {
        let signature = self.0.key.sign(bytes);
        Proof {
            certificate: Bytes::copy_from_slice(&self.0.certificate),
            signature: Bytes::copy_from_slice(signature.as_ref()),
        }
    }

    /// Whom a certificate that came without a handshake names, if this cluster's authority vouches for it at `now`.
    pub(crate) fn holder(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Peer, CertificateError> {
        self.0.trust.check(certificate, now)
    }

    #[cfg(test)]
    pub(crate) fn trust(&self) -> &Arc<Trust> {
        &self.0.trust
    }

    #[cfg(test)]
    pub(crate) fn shown(&self) -> &Arc<SingleCertAndKey> {
        &self.0.shown
    }

    fn verify_at(&self, signed: &SignedMetainfo, now: UnixTime) -> Result<Peer, ProofError> {
        let SignedMetainfo { metainfo, proof } = signed;
        let digest = *metainfo.digest();
        let certificate = CertificateDer::from(proof.certificate.as_ref());
        let signer = self
            .0
            .trust
            .check(&certificate, now)
            .map_err(|source| ProofError::Certificate { digest, source: Box::new(source) })?;
        if signer.role != Role::Origin {
            return Err(ProofError::NotAnOrigin { digest, signer: signer.id, role: signer.role });
        }
        UnparsedPublicKey::new(&ED25519, signer.id.public_key())
            .verify(&signed_message(metainfo), &proof.signature)
            .map_err(|_| ProofError::Signature { digest, signer: signer.id })?;
        Ok(signer)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster())
            .field("peer", &self.0.peer)
            .finish_non_exhaustive()
    }
}

fn signed_message(metainfo: &Metainfo) -> Vec<u8> {
    [METAINFO_DOMAIN, metainfo.encode().as_ref()].concat()
}

/// A node's key also signs handshakes; what it signs in one place must mean nothing in the other.
const METAINFO_DOMAIN: &[u8] = b"shoal metainfo v1\0";

#[cfg(test)]
mod tests;
