//! TLS 1.3 between nodes: both sides show a certificate, and both check that it is of this cluster.
//!
//! Sessions are not resumed: every connection proves itself with a certificate that is in its time now.
//! Host names are not looked at: what counts is the role and the key.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible, ServerConfig,
    SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shoal_core::Role;

use crate::trust::{CertificateError, Trust};

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
pub(crate) fn server_config(
    trust: Arc<Trust>,
    own: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(ClientVerifier::new(trust)))
        .with_cert_resolver(own);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// A client that shows `own`, and talks only to nodes of the cluster with one of `roles`.
pub(crate) fn client_config(
    trust: Arc<Trust>,
    own: Arc<dyn ResolvesClientCert>,
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
    trust: Arc<Trust>,
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
        self.trust.check_chain(end_entity, intermediates, now)?;
        let peer = self.trust.peer(end_entity).map_err(refusal)?;
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
        verify_tls13_signature(message, certificate, signature, &self.trust.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// The usual check of client certificates, and then that the certificate names a node of this cluster.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust: Arc<Trust>,
}

impl ClientVerifier {
    fn new(trust: Arc<Trust>) -> Self {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&trust.roots), provider())
            .build()
            .expect("a trust has at least one authority, and no revocation list is given");
        Self { chain, trust }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.trust.peer(end_entity).map_err(refusal)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn refusal(error: CertificateError) -> rustls::Error {
    rustls::CertificateError::Other(OtherError(Arc::new(error))).into()
}

#[cfg(test)]
mod tests;
