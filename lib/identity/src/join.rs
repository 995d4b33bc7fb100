//! The way of a node without a certificate to its first: it makes its key, meets a tracker whose authority the token names,
//! shows its token there, and keeps what it gets.
//!
//! The key is on disk before anything is asked, so whoever is cut off on the way comes back as the same node. It leaves the
//! node in no form.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rcgen::{KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::{ClientConfig, DigitallySignedStruct, PeerIncompatible, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shoal_core::{PeerId, Role};

use crate::config::{Config, JoinConfig};
use crate::error::IdentityError;
use crate::files::{self, FileError, PemFile, Secrecy};
use crate::node::Identity;
use crate::token::JoinToken;
use crate::trust::{self, CertificateError, Trust};
use crate::{request, tls};

/// A node on its way to its first certificate.
#[derive(Debug)]
pub struct Joining {
    config: Config,
    key: KeyPair,
    token: JoinToken,
    tracker: Arc<Pinned>,
}

/// Believes a server that shows the token's authority, and has a tracker's certificate of that.
#[derive(Debug)]
struct Pinned {
    token: JoinToken,
    /// What the token names, once a tracker has shown it.
    authority: OnceLock<CertificateDer<'static>>,
}

impl Joining {
    /// Reads the token, and the node's key; makes the key if there is none.
    pub fn begin(config: &Config, now: SystemTime) -> Result<Self, IdentityError> {
        let join = config.join.as_ref().ok_or(IdentityError::Join("is not set"))?;
        let token = JoinToken::parse(&token_text(join)?)?;
        token.check_time(now)?;
        let key = own_key(config)?;
        let tracker = Arc::new(Pinned { token: token.clone(), authority: OnceLock::new() });
        Ok(Self { config: config.clone(), key, token, tracker })
    }

    /// Who the node is going to be.
    #[must_use]
    pub fn id(&self) -> PeerId {
        let key = self.key.public_key_raw().try_into();
        PeerId::from_public_key(key.expect("an Ed25519 key has 32 bytes"))
    }

    /// The token that it holds.
    #[must_use]
    pub fn token(&self) -> &JoinToken {
        &self.token
    }

    /// What it asks for: PKCS #10, DER.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        request::make(&self.key)
            .map_err(|source| IdentityError::Issue { subject: self.id().to_string(), source })
    }

    /// TLS 1.3 without a certificate of its own, to trackers of the token's authority alone.
    #[must_use]
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&version::TLS13])
            .expect("ring has the cipher suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(self.tracker.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// Keeps the certificate (PEM) that a tracker gave, and the authority that it showed; loads all of it. Blocks.
    pub fn finish(self, certificate: &str) -> Result<Identity, IdentityError> {
        let authority = self.tracker.authority.get().ok_or(IdentityError::NoAuthority)?;
        // In place of an older one: that of another authority would be of no use with this certificate.
        let mut authorities = pem(authority);
        let directory = &self.config.directory;
        if let Ok(known) = PemFile::read(directory, files::AUTHORITY_CERTIFICATE, files::CA_ISSUE)
            && known.certificates()?.contains(authority)
        {
            authorities = known.text;
        }
        files::replace(directory, files::AUTHORITY_CERTIFICATE, Secrecy::Public, &authorities)?;
        files::replace(directory, files::NODE_CERTIFICATE, Secrecy::Public, certificate)?;
        let identity = Identity::load(&self.config)?;
        if identity.id() != self.id() {
            let path = directory.join(files::NODE_CERTIFICATE);
            let key = directory.join(files::NODE_KEY);
            return Err(FileError::KeyMismatch { key, certificate: path }.into());
        }
        Ok(identity)
    }
}

impl IdentityError {
    /// Whether a node is to join anew: it has no certificate, or one whose time is over.
    #[must_use]
    pub fn asks_to_join(&self) -> bool {
        use rustls::CertificateError::{Expired, ExpiredContext};
        match self {
            Self::File(FileError::Read { path, source, .. }) => {
                path.ends_with(files::NODE_CERTIFICATE) && source.kind() == std::io::ErrorKind::NotFound
                    || path.ends_with(files::AUTHORITY_CERTIFICATE)
                        && source.kind() == std::io::ErrorKind::NotFound
                        && !path.with_file_name(files::NODE_CERTIFICATE).exists()
            }
            Self::File(FileError::Certificate { source: CertificateError::Untrusted(error), .. }) => {
                matches!(error, rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }))
            }
            _ => false,
        }
    }

    /// Where nothing is there at all, says what can be done about it.
    #[must_use]
    pub fn explained(self, config: &Config) -> Self {
        match self {
            Self::File(source @ FileError::Read { .. })
                if config.join.is_none() && !config.directory.join(files::NODE_CERTIFICATE).exists() =>
            {
                Self::Nothing { directory: config.directory.clone(), source: Box::new(source) }
            }
            other => other,
        }
    }
}

impl Pinned {
    fn check(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        // A chain that is too long is cut: what comes later is not looked for.
        let chain = &chain[..chain.len().min(trust::MAX_CHAIN + 1)];
        let authority = chain.iter().find(|certificate| self.token.pins(certificate));
        let authority = authority.ok_or(rustls::CertificateError::UnknownIssuer)?;
        let trust =
            Trust::new(self.token.cluster(), std::slice::from_ref(authority)).map_err(tls::refusal)?;
        let (certificate, intermediates) =
            chain.split_first().ok_or(rustls::CertificateError::UnknownIssuer)?;
        trust.check_chain(certificate, intermediates, now)?;
        let peer = trust.peer(certificate).map_err(tls::refusal)?;
        if peer.role != Role::Tracker {
            let refused = CertificateError::Role { id: peer.id, name: peer.name, role: peer.role };
            return Err(tls::refusal(refused));
        }
        // The same one, if it is there already: the token names no other.
        let _ = self.authority.set(authority.clone().into_owned());
        Ok(())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        self.check(&chain, now)?;
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
        let algorithms = tls::provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

fn token_text(join: &JoinConfig) -> Result<String, IdentityError> {
    match (&join.token, &join.token_file) {
        (Some(token), None) => Ok(token.clone()),
        (None, Some(path)) => match files::read_optional(path, MAX_TOKEN_FILE)? {
            Some(text) => Ok(text),
            None => Err(IdentityError::Join("the token_file is not there")),
        },
        _ => Err(IdentityError::Join("set token or token_file, and not both")),
    }
}

/// The key in the node's directory; a new one, if there is none.
fn own_key(config: &Config) -> Result<KeyPair, IdentityError> {
    let directory = &config.directory;
    if !directory.join(files::NODE_KEY).exists() {
        let key = KeyPair::generate_for(&PKCS_ED25519)
            .map_err(|source| IdentityError::Issue { subject: "this node".to_owned(), source })?;
        files::create_all(directory, &[(files::NODE_KEY, Secrecy::Private, &key.serialize_pem())])?;
    }
    let file = PemFile::read(directory, files::NODE_KEY, files::CA_ISSUE)?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&file.key()?, &PKCS_ED25519);
    Ok(key.map_err(|_| file.not_a_key())?)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = data_encoding::BASE64.encode(certificate);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Far above a token, so that a wrong path does not fill the memory.
const MAX_TOKEN_FILE: u64 = 8192;

#[cfg(test)]
mod tests;
