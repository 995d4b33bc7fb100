//! Nothing connects without a certificate of the cluster; plain ports do not wait for TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_core::Role;
use shoal_identity::{Authority, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Fixture;

/// A client that accepts any server and, perhaps, has a certificate of another cluster.
fn stranger(alpn: &[u8], with_certificate: bool) -> rustls::ClientConfig {
    let authority = Authority::generate("shoal-dev").unwrap();
    let identity = authority.issue(Role::Agent, "stranger").unwrap();
    if with_certificate {
        return with_alpn(&identity, alpn);
    }
    let mut config = trusting();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// A client without a certificate, which accepts any server.
pub(crate) fn trusting() -> rustls::ClientConfig {
    let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    config
}

/// A client with that certificate, which accepts any server.
fn with_alpn(identity: &Identity, alpn: &[u8]) -> rustls::ClientConfig {
    let roles = [Role::Agent, Role::Origin, Role::Tracker];
    let mut config = (*identity.client_config(&roles, &[])).clone();
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// Believes every server: what a stranger would do.
#[derive(Debug)]
pub(crate) struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}

/// What any node may ask an origin.
pub(crate) const QUESTION: &str = "GET /v1/tags?repository=a";

/// What an HTTP request over TLS is answered; `None` if it gets no answer at all.
pub(crate) async fn answer_over_tls(
    address: SocketAddr,
    config: rustls::ClientConfig,
    request_line: &str,
) -> Option<String> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut tls = connector.connect("shoal".try_into().unwrap(), tcp).await.ok()?;
    // In TLS 1.3 a client learns that its certificate was refused when it reads.
    let request =
        format!("{request_line} HTTP/1.1\r\nhost: shoal\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let sent = tls.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let answered = sent.is_ok() && tls.read_to_end(&mut answer).await.is_ok() && !answer.is_empty();
    answered.then(|| String::from_utf8_lossy(&answer).into_owned())
}

/// How a QUIC connection ends on which nonsense is said: every node ends it, and says why.
pub(crate) async fn end_over_quic(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> quinn::ConnectionError {
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connection = match endpoint.connect(address, "shoal").unwrap().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    // In TLS 1.3 a client learns later that its certificate was refused.
    if let Ok((mut send, _)) = connection.open_bi().await {
        let _ = send.write_all(&[0; 64]).await;
    }
    tokio::time::timeout(Duration::from_secs(10), connection.closed()).await.expect("it stayed open")
}

/// Whether the TLS handshake failed: no byte of the protocol was looked at (RFC 9001 section 4.8).
pub(crate) fn is_refused_by_tls(end: &quinn::ConnectionError) -> bool {
    match end {
        quinn::ConnectionError::ConnectionClosed(close) => {
            (0x100..0x200).contains(&u64::from(close.error_code))
        }
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_the_cluster_nothing_connects() {
    let fixture = Fixture::start(1).await;
    let cluster = &fixture.cluster;
    let tracker: SocketAddr = cluster.tracker_url().strip_prefix("https://").unwrap().parse().unwrap();
    for with_certificate in [false, true] {
        for address in [tracker, cluster.origin().api_address()] {
            let answered = answer_over_tls(address, stranger(b"http/1.1", with_certificate), QUESTION).await;
            assert!(
                answered.is_none(),
                "{address} answered, certificate of another cluster: {with_certificate}"
            );
        }
        for address in [cluster.origin().peer_address(), cluster.agent(0).peer_address()] {
            let end = end_over_quic(address, stranger(b"shoal/1", with_certificate)).await;
            assert!(is_refused_by_tls(&end), "{address}, other certificate {with_certificate}: {end:?}");
        }
    }
    fixture.shutdown().await;
}

/// The probes of the test above are answered where the certificate is right: they do show something.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_of_the_cluster_the_same_probes_get_through() {
    let fixture = Fixture::start(1).await;
    let cluster = &fixture.cluster;
    let member = |alpn| with_alpn(&cluster.identity(Role::Agent, "member").unwrap(), alpn);
    let tracker: SocketAddr = cluster.tracker_url().strip_prefix("https://").unwrap().parse().unwrap();
    for address in [tracker, cluster.origin().api_address()] {
        let answered = answer_over_tls(address, member(b"http/1.1"), QUESTION).await;
        assert!(answered.is_some(), "{address} did not answer");
    }
    for address in [cluster.origin().peer_address(), cluster.agent(0).peer_address()] {
        let end = end_over_quic(address, member(b"shoal/1")).await;
        assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{address}: {end:?}");
    }
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_hello_on_the_plain_port_is_closed_at_once() {
    let fixture = Fixture::start(1).await;
    for address in [fixture.cluster.agent(0).registry_address(), fixture.cluster.origin().registry_address()]
    {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let asked = Instant::now();
        connection.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty(), "answered {answer:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "closed after {:?}", asked.elapsed());
    }
    fixture.shutdown().await;
}
