//! Whom a node trusts: certificates under its authorities that name a node of its own cluster.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, UnixTime};
use shoal_core::{PeerId, Role};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer as _;

use crate::Peer;
use crate::spiffe::{NameError, SpiffeId};

/// A cluster's name, and the authorities that speak for it.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) cluster: String,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
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
        for authority in authorities {
            // Path building asks nothing of a trust anchor but name and key; that a node's own certificate
            // is not taken for an authority's must be seen to here.
            if !parse(authority)?.is_ca() {
                return Err(CertificateError::NotAnAuthority);
            }
            roots.add(authority.clone().into_owned()).map_err(CertificateError::Untrusted)?;
        }
        let algorithms = crate::tls::provider().signature_verification_algorithms;
        Ok(Self { cluster: cluster.to_owned(), roots: Arc::new(roots), algorithms })
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

    /// Reads whom the certificate names. Who signed it is not looked at.
    pub(crate) fn peer(&self, certificate: &CertificateDer<'_>) -> Result<Peer, CertificateError> {
        let parsed = parse(certificate)?;
        let id = key_of(&parsed)?;
        let SpiffeId { cluster, role, name } = name_of(&parsed)?;
        if cluster != self.cluster {
            return Err(CertificateError::OtherCluster { expected: self.cluster.clone(), found: cluster });
        }
        Ok(Peer { id, role, name })
    }

    /// Both checks: what a certificate that arrives without a TLS handshake needs.
    pub(crate) fn check(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Peer, CertificateError> {
        self.check_chain(certificate, &[], now).map_err(CertificateError::Untrusted)?;
        self.peer(certificate)
    }
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
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(CertificateError::NotEd25519);
    }
    let key = info.subject_public_key.data.as_ref().try_into().map_err(|_| CertificateError::NotEd25519)?;
    Ok(PeerId::from_public_key(key))
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType};

    use super::*;

    const NODE: &str = "spiffe://prod/agent/a";

    fn trust() -> Trust {
        Trust {
            cluster: "prod".into(),
            roots: Arc::new(RootCertStore::empty()),
            algorithms: crate::tls::provider().signature_verification_algorithms,
        }
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
