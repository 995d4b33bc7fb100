//! Whom a node trusts: certificates under its authorities that name a node of its own cluster.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};
use shoal_core::{PeerId, Role};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::revocation::{RevocationError, Revocations};
use crate::spiffe::{NameError, SpiffeId};
use crate::{Peer, tls};

/// A cluster's name, the authorities that speak for it, and whom they let in no more.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    pub(crate) cluster: String,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    pub(crate) revocations: Option<Arc<Revocations>>,
    roots: Arc<RootCertStore>,
    /// Those authorities whose key can sign a statement.
    authorities: Vec<PeerId>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// Why a certificate is not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CertificateError {
    /// Another authority's, altered, expired, not yet valid, or for another use.
    #[error("certificate is not valid under this cluster's authority now")]
    Untrusted(#[source] rustls::Error),
    /// Not an X.509 certificate.
    #[error("certificate is not readable as X.509")]
    Unreadable,
    /// Not the certificate of an authority.
    #[error("certificate is not an authority's")]
    NotAnAuthority,
    /// The key is of another kind.
    #[error("certificate's key is not an Ed25519 key")]
    NotEd25519,
    /// None or several URI names: which one counts would be a guess.
    #[error("certificate has {found} URI names, where exactly one must say who its holder is")]
    UriCount {
        /// How many there are.
        found: usize,
    },
    /// The URI name is not of our form.
    #[error("certificate does not name a node")]
    Name(#[source] NameError),
    /// A node, and of another cluster.
    #[error("certificate is of cluster {found:?}, not of {expected:?}")]
    OtherCluster {
        /// Our own cluster.
        expected: String,
        /// The certificate's.
        found: String,
    },
    /// The authority lets it in no more.
    #[error("certificate of {id} ({role} {name:?}) is revoked")]
    Revoked {
        /// Who it is.
        id: PeerId,
        /// What it is called.
        name: String,
        /// What it might do.
        role: Role,
    },
    /// More certificates than lie between any node and its authority, or none.
    #[error("chain of {0} certificates, where 1 to {max} are expected", max = MAX_CHAIN)]
    Chain(usize),
    /// A node of this cluster whose role does not fit.
    #[error("{id} ({name:?}) is of role {role}, which is not accepted here")]
    Role {
        /// Who it is.
        id: PeerId,
        /// What it is called.
        name: String,
        /// What it may be.
        role: Role,
    },
}

impl Trust {
    /// Trusts these authorities to speak for the cluster.
    pub(crate) fn new(cluster: &str, authorities: &[CertificateDer<'_>]) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        let mut keys = Vec::new();
        for authority in authorities {
            // Path building asks nothing of a trust anchor but name and key; that a node's own certificate
            // is not taken for an authority's must be seen to here.
            let parsed = parse(authority)?;
            if !parsed.is_ca() {
                return Err(CertificateError::NotAnAuthority);
            }
            keys.extend(ed25519(parsed.public_key()));
            roots.add(authority.clone().into_owned()).map_err(CertificateError::Untrusted)?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), tls::provider())
            .build()
            .map_err(|_| CertificateError::NotAnAuthority)?;
        let algorithms = tls::provider().signature_verification_algorithms;
        let cluster = cluster.to_owned();
        Ok(Self { cluster, roots, authorities: keys, clients, algorithms, revocations: None })
    }

    /// The same, without whom that list names.
    pub(crate) fn without(&self, revocations: Arc<Revocations>) -> Self {
        Self { revocations: Some(revocations), ..self.clone() }
    }

    /// Reads a list of one of the authorities; an older one than is known is refused.
    pub(crate) fn read_revocations(&self, text: &str) -> Result<Arc<Revocations>, RevocationError> {
        let list = Revocations::read(text, &self.cluster, &self.authorities)?;
        match &self.revocations {
            Some(known) if list.number() < known.number() => {
                Err(RevocationError::Older { found: list.number(), known: known.number() })
            }
            _ => Ok(Arc::new(list)),
        }
    }

    /// Checks that an authority (or an intermediate of one) signed the certificate, that it is in its time, and
    /// that it may be used by a server; all nodes are servers.
    pub(crate) fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
    }

    /// The same for a client.
    pub(crate) fn check_client(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.clients.verify_client_cert(certificate, intermediates, now).map(drop)
    }

    /// Reads whom the certificate names, unless that node is let in no more. Who signed it is not looked at.
    pub(crate) fn peer(&self, certificate: &CertificateDer<'_>) -> Result<Peer, CertificateError> {
        let parsed = parse(certificate)?;
        let id = key_of(&parsed)?;
        let SpiffeId { cluster, role, name } = name_of(&parsed)?;
        if cluster != self.cluster {
            return Err(CertificateError::OtherCluster { expected: self.cluster.clone(), found: cluster });
        }
        if self.revocations.as_ref().is_some_and(|list| list.has(&id, parsed.raw_serial())) {
            return Err(CertificateError::Revoked { id, name, role });
        }
        Ok(Peer { id, role, name })
    }

    /// Both checks: what a chain that arrives without a TLS handshake needs. The node's certificate comes first.
    pub(crate) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Peer, CertificateError> {
        let [certificate, intermediates @ ..] = chain else { return Err(CertificateError::Chain(0)) };
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::Chain(chain.len()));
        }
        self.check_chain(certificate, intermediates, now).map_err(CertificateError::Untrusted)?;
        self.peer(certificate)
    }
}

/// Certificates that lie one after the other, as a proof has them: each says how long it is.
pub(crate) fn split_chain(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'_>>, CertificateError> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        if chain.len() == MAX_CHAIN {
            return Err(CertificateError::Chain(MAX_CHAIN + 1));
        }
        let (rest, _) = X509Certificate::from_der(bytes).map_err(|_| CertificateError::Unreadable)?;
        chain.push(CertificateDer::from(&bytes[..bytes.len() - rest.len()]));
        bytes = rest;
    }
    Ok(chain)
}

/// From when to when a certificate counts, in seconds since 1970.
pub(crate) fn validity_of(certificate: &CertificateDer<'_>) -> Result<(i64, i64), CertificateError> {
    let parsed = parse(certificate)?;
    let validity = parsed.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// The cluster that a node's certificate claims to be of.
pub(crate) fn claimed_cluster(certificate: &CertificateDer<'_>) -> Result<String, CertificateError> {
    Ok(name_of(&parse(certificate)?)?.cluster)
}

pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CertificateError::Unreadable),
    }
}

/// The Ed25519 key of a certificate (RFC 8410, section 4: the key is the bit string, there are no parameters).
pub(crate) fn key_of(certificate: &X509Certificate<'_>) -> Result<PeerId, CertificateError> {
    ed25519(certificate.public_key()).ok_or(CertificateError::NotEd25519)
}

/// The key, if it is of that kind.
pub(crate) fn ed25519(info: &SubjectPublicKeyInfo<'_>) -> Option<PeerId> {
    let key = info.subject_public_key.data.as_ref().try_into().ok()?;
    (info.algorithm.algorithm == OID_SIG_ED25519).then(|| PeerId::from_public_key(key))
}

/// X509-SVID section 2: exactly one URI name. Names of other kinds (DNS, address) say nothing here.
fn name_of(certificate: &X509Certificate<'_>) -> Result<SpiffeId, CertificateError> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Unreadable)?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => SpiffeId::parse(uri).map_err(CertificateError::Name),
        (None, _) => Err(CertificateError::UriCount { found: 0 }),
        (Some(_), more) => Err(CertificateError::UriCount { found: 1 + more }),
    }
}

/// A node's certificate and three intermediates: more stands in no public web chain either.
pub(crate) const MAX_CHAIN: usize = 4;

#[cfg(test)]
pub(crate) fn serial_of(certificate: &CertificateDer<'_>) -> Option<crate::Serial> {
    crate::Serial::parse(&parse(certificate).ok()?.raw_serial_as_string()).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType};

    use super::*;

    const NODE: &str = "spiffe://prod/agent/a";

    fn trust() -> Trust {
        let directory = tempfile::tempdir().unwrap();
        crate::Authority::generate("prod").unwrap().save(directory.path()).unwrap();
        let text = std::fs::read_to_string(directory.path().join("ca.pem")).unwrap();
        Trust::new("prod", &[crate::files::first_certificate(&text).unwrap()]).unwrap()
    }

    /// What a foreign issuer (cert-manager, SPIFFE) might put into a certificate.
    fn certificate(uris: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::new(vec!["host.example".into(), "10.0.0.1".into()]).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        parameters.subject_alt_names.extend(uris);
        parameters.self_signed(&KeyPair::generate_for(algorithm).unwrap()).unwrap().into()
    }

    #[test]
    fn names_of_other_kinds_do_not_matter() {
        let peer = trust().peer(&certificate(&[NODE], &PKCS_ED25519)).unwrap();
        assert_eq!((peer.role, peer.name.as_str()), (Role::Agent, "a"));
    }

    #[test]
    fn none_or_several_uri_names_are_refused() {
        for uris in [&[][..], &[NODE, NODE], &[NODE, "spiffe://prod/origin/a"], &[NODE, "https://example"]] {
            let found = trust().peer(&certificate(uris, &PKCS_ED25519));
            assert!(
                matches!(found, Err(CertificateError::UriCount { found }) if found == uris.len()),
                "{uris:?}: {found:?}"
            );
        }
    }

    #[test]
    fn a_uri_of_another_form_or_cluster_is_refused() {
        let found = trust().peer(&certificate(&["https://prod/agent/a"], &PKCS_ED25519));
        assert!(matches!(found, Err(CertificateError::Name(_))), "{found:?}");
        let found = trust().peer(&certificate(&["spiffe://staging/agent/a"], &PKCS_ED25519));
        assert!(matches!(found, Err(CertificateError::OtherCluster { .. })), "{found:?}");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let found = trust().peer(&certificate(&[NODE], &PKCS_ECDSA_P256_SHA256));
        assert!(matches!(found, Err(CertificateError::NotEd25519)), "{found:?}");
    }

    #[test]
    fn stray_bytes_after_a_certificate_are_refused() {
        let mut longer = certificate(&[NODE], &PKCS_ED25519).to_vec();
        longer.push(0);
        assert!(matches!(trust().peer(&longer.into()), Err(CertificateError::Unreadable)));
    }
}
