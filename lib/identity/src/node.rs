//! A node's identity: its key and certificate, and what it does with them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use shoal_core::{Digest, Metainfo, PeerId, Proof, Role, SignedMetainfo};

use crate::error::IdentityError;
use crate::files::{self, FileError, PemFile, Secrecy};
use crate::standing::{Current, Standing};
use crate::trust::{self, CertificateError, Trust};
use crate::{Config, Peer, tls};

mod upkeep;

pub use upkeep::Refresh;

/// Who this node is: key, certificate, the CA that it trusts. Shared by all its connections; cheap to clone.
///
/// Who it is never changes. Its certificate and whom it trusts do: all clones, and all TLS configurations that were made,
/// use the latest.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    peer: Peer,
    cluster: String,
    key: Ed25519KeyPair,
    standing: Arc<Standing>,
    home: Option<upkeep::Home>,
}

/// What a node's directory holds.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles {
    pub(crate) authorities: PemFile,
    /// Its own, and intermediates after it.
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
    /// Reads `ca.pem`, `cert.pem`, `key.pem` (and `revoked.list`, if it is there), and checks that they belong together and
    /// are in their time.
    ///
    /// `ca.pem` may hold several authorities, so that a cluster can change from one to the next; `cert.pem` the
    /// intermediates between the node and its authority, after its own certificate.
    pub fn load(config: &Config) -> Result<Self, IdentityError> {
        let home = upkeep::Home::new(&config.directory);
        let current = home.read()?;
        Ok(Self::of(current.checked(UnixTime::now())?, Some(home))?)
    }

    /// Puts an identity together; who signed the certificate, and for how long, is not looked at.
    pub(crate) fn assemble(files: NodeFiles) -> Result<Self, FileError> {
        Self::of(Current::assemble(files)?, None)
    }

    fn of(current: Current, home: Option<upkeep::Home>) -> Result<Self, FileError> {
        let peer = current.peer()?;
        let key = current.files.secret()?;
        let cluster = current.trust.cluster.clone();
        Ok(Self(Arc::new(Inner { peer, cluster, key, standing: Arc::new(Standing::new(current)), home })))
    }

    /// Writes them (key mode 0600, never overwrites). The directory is made if it is missing.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let current = self.0.standing.current();
        let NodeFiles { authorities, certificate, key } = &current.files;
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
        &self.0.cluster
    }

    /// Who this node is, as others see it.
    #[must_use]
    pub fn own(&self) -> Peer {
        self.0.peer.clone()
    }

    /// TLS 1.3 server that demands a client certificate of this cluster (any role), with these ALPN protocols.
    ///
    /// Who came in is for the caller to ask with [`Identity::peer`], and whether that one may do what it asks for.
    #[must_use]
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        tls::server_config(Arc::clone(&self.0.standing), Arc::clone(&self.0.standing), alpn)
    }

    /// TLS 1.3 client with own certificate; accepts only servers of this cluster with one of `roles` (names are not looked at).
    ///
    /// A caller that wants one certain node compares [`Identity::peer`] of the server's certificate with its id.
    #[must_use]
    pub fn client_config(&self, roles: &[Role], alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        tls::client_config(Arc::clone(&self.0.standing), Arc::clone(&self.0.standing), roles, alpn)
    }

    /// TLS 1.3 server for nodes that have no certificate yet: it shows `authority` too, and asks for nothing.
    ///
    /// Refused where this node's own certificate is not of that authority: no node that joins would believe it.
    pub fn enrolment_config(
        &self,
        authority: &CertificateDer<'static>,
        alpn: &[&[u8]],
    ) -> Result<Arc<rustls::ServerConfig>, IdentityError> {
        let alone = Trust::new(self.cluster(), std::slice::from_ref(authority))?;
        alone.check(&self.0.standing.current().chain, UnixTime::now())?;
        Ok(tls::enrolment_config(Arc::clone(&self.0.standing), authority.clone(), alpn))
    }

    /// Who that certificate (already verified by TLS) belongs to.
    ///
    /// Refuses one that does not name a node of this cluster, or one that was revoked since. Does **not** look at who signed it: never call it
    /// with a certificate that did not come out of a handshake of this crate's configurations.
    pub fn peer(&self, certificate: &CertificateDer<'_>) -> Result<Peer, IdentityError> {
        Ok(self.0.standing.trust().peer(certificate)?)
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
        let current = self.0.standing.current();
        Proof {
            certificate: current.chain.iter().map(AsRef::<[u8]>::as_ref).collect::<Vec<_>>().concat().into(),
            signature: Bytes::copy_from_slice(signature.as_ref()),
        }
    }

    /// Whom the certificates of a proof name, if this cluster's authority vouches for them at `now`.
    pub(crate) fn holder(&self, proof: &Proof, now: UnixTime) -> Result<Peer, CertificateError> {
        self.0.standing.trust().check(&trust::split_chain(&proof.certificate)?, now)
    }

    #[cfg(test)]
    pub(crate) fn trust(&self) -> Arc<Trust> {
        self.0.standing.trust()
    }

    #[cfg(test)]
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.0.standing
    }

    #[cfg(test)]
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.standing.current().chain[0].clone()
    }

    fn verify_at(&self, signed: &SignedMetainfo, now: UnixTime) -> Result<Peer, ProofError> {
        let SignedMetainfo { metainfo, proof } = signed;
        let digest = *metainfo.digest();
        let signer = self
            .holder(proof, now)
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

impl Current {
    pub(crate) fn assemble(files: NodeFiles) -> Result<Self, FileError> {
        let chain = files.certificate.certificates()?;
        let refused = |source| files.certificate.refused(source);
        if chain.len() > trust::MAX_CHAIN
            || chain.iter().map(|one| one.len()).sum::<usize>() > Proof::MAX_LENGTH
        {
            return Err(refused(CertificateError::Chain(chain.len())));
        }
        let cluster = trust::claimed_cluster(&chain[0]).map_err(refused)?;
        let authorities = files.authorities.certificates()?;
        let trust = Trust::new(&cluster, &authorities).map_err(|source| files.authorities.refused(source))?;
        let signer = any_eddsa_type(&files.key.key()?).map_err(|_| files.key.not_a_key())?;
        let shown = Arc::new(CertifiedKey::new(chain.clone(), signer));
        let current = Self { files, chain, shown, trust: Arc::new(trust) };
        if current.files.secret()?.public_key().as_ref() != current.peer()?.id.public_key() {
            let (key, certificate) = (current.files.key.path.clone(), current.files.certificate.path.clone());
            return Err(FileError::KeyMismatch { key, certificate });
        }
        Ok(current)
    }

    fn peer(&self) -> Result<Peer, FileError> {
        self.trust.peer(&self.chain[0]).map_err(|source| self.files.certificate.refused(source))
    }

    fn checked(self, now: UnixTime) -> Result<Self, FileError> {
        match self.trust.check(&self.chain, now) {
            Ok(_) => Ok(self),
            Err(source) => Err(self.files.certificate.refused(source)),
        }
    }
}

impl NodeFiles {
    /// "Maybe unchecked": the first version of PKCS #8, which other tools write, has no public key inside.
    fn secret(&self) -> Result<Ed25519KeyPair, FileError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(self.key.key()?.secret_pkcs8_der())
            .map_err(|_| self.key.not_a_key())
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
