//! TLS 1.3 between nodes: both sides show a certificate, and both check that it is of this cluster.
//!
//! Sessions are not resumed: every connection proves itself with a certificate that is in its time now. What is shown and
//! whom is trusted is asked anew at each handshake, so a configuration lives through renewals and revocations.
//! Host names are not looked at: what counts is the role and the key.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible, ServerConfig,
    SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shoal_core::{Role, causes};

use crate::standing::Standing;
use crate::trust::CertificateError;

/// Makes ring the process's crypto provider; first thing in `main` and in tests. May be called again.
///
/// Configurations of this crate use ring whatever the process's provider is; libraries that ask for it need it.
pub fn install_crypto_provider() {
    // An error says that a provider is there already, most likely from the last call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server that shows `own`, and lets in any node of the cluster.
pub(crate) fn server_config(trust: Arc<Standing>, own: Arc<Standing>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(ClientVerifier(trust)))
        .with_cert_resolver(own);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// A server that shows `own` and its authority, and lets in anybody: nodes that have no certificate yet.
pub(crate) fn enrolment_config(
    own: Arc<Standing>,
    authority: CertificateDer<'static>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(WithAuthority { own, authority }));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Shows the authority's certificate after the node's own, for whoever knows only its hash.
#[derive(Debug)]
struct WithAuthority {
    own: Arc<Standing>,
    authority: CertificateDer<'static>,
}

impl ResolvesServerCert for WithAuthority {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut shown = CertifiedKey::clone(&self.own.current().shown);
        shown.cert.push(self.authority.clone());
        Some(Arc::new(shown))
    }
}

/// A client that shows `own`, and talks only to nodes of the cluster with one of `roles`.
pub(crate) fn client_config(
    trust: Arc<Standing>,
    own: Arc<Standing>,
    roles: &[Role],
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let verifier = ServerVerifier { trust, roles: roles.to_vec() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(own);
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Accepts servers of the cluster by their role, whatever their address is called.
#[derive(Debug)]
struct ServerVerifier {
    trust: Arc<Standing>,
    roles: Vec<Role>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let trust = self.trust.trust();
        trust.check_chain(end_entity, intermediates, now)?;
        let peer = trust.peer(end_entity).map_err(refusal)?;
        if !self.roles.contains(&peer.role) {
            return Err(refusal(CertificateError::Role { id: peer.id, name: peer.name, role: peer.role }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The usual check of client certificates, and then that the certificate names a node of this cluster.
#[derive(Debug)]
struct ClientVerifier(Arc<Standing>);

impl ClientCertVerifier for ClientVerifier {
    /// No hints: a node has one certificate to show, and authorities may change while this lives.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let trust = self.0.trust();
        trust.check_client(end_entity, intermediates, now)?;
        trust.peer(end_entity).map_err(refusal)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A refusal of ours inside of rustls' error. rustls prints what it does not know by `Debug`, so that says it in words.
#[derive(thiserror::Error)]
#[error("{}", causes(.0))]
struct Refused(CertificateError);

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn refusal(error: CertificateError) -> rustls::Error {
    rustls::CertificateError::Other(OtherError(Arc::new(Refused(error)))).into()
}

#[cfg(test)]
mod tests;
