//! A TLS listener with real identities, over real sockets; HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use shoal_core::Role;
use shoal_http::{ClientCertificate, Limits, RemoteAddress};
use shoal_identity::{Authority, Identity};
use support::*;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Requests = http2::SendRequest<Empty<Bytes>>;

fn identities() -> (Identity, Identity) {
    let authority = Authority::generate("test").unwrap();
    (authority.issue(Role::Tracker, "server").unwrap(), authority.issue(Role::Agent, "client").unwrap())
}

async fn connect_tls(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("shoal").unwrap();
    TlsConnector::from(config).connect(name, connect(address).await).await
}

/// Speaks HTTP/2; the task ends with the connection.
async fn http2_client(address: SocketAddr, client: &Identity) -> (Requests, JoinHandle<hyper::Result<()>>) {
    let stream = connect_tls(address, client.client_config(&[Role::Tracker], &[b"h2"])).await.unwrap();
    let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (requests, tokio::spawn(connection))
}

async fn fetch(requests: &mut Requests, path: &str) -> hyper::Result<String> {
    let request = http::Request::get(format!("https://shoal{path}")).body(Empty::new()).unwrap();
    let body = requests.send_request(request).await?.into_body().collect().await?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

/// Answers who the client is.
fn who(server: &Identity) -> Router {
    let server = server.clone();
    let name = async move |Extension(ClientCertificate(certificate)): Extension<ClientCertificate>,
                           Extension(RemoteAddress(address)): Extension<RemoteAddress>| {
        assert!(address.ip().is_loopback());
        server.peer(&certificate).unwrap().name
    };
    Router::new().route("/", get(name))
}

#[tokio::test]
async fn a_handler_sees_the_clients_certificate() {
    let (server, client) = identities();
    let tls = server.server_config(&[b"h2", b"http/1.1"]);
    let (_running, address) = serve(who(&server), Some(tls), Limits::default()).await;

    let config = client.client_config(&[Role::Tracker], &[b"http/1.1"]);
    let mut http1 = connect_tls(address, config).await.unwrap();
    send(&mut http1, GET).await;
    assert!(answer(&mut http1).await.ends_with("\r\n\r\nclient"));

    let (mut http2, _) = http2_client(address, &client).await;
    assert_eq!(fetch(&mut http2, "/").await.unwrap(), "client");
}

#[tokio::test]
async fn a_client_without_an_accepted_certificate_is_refused() {
    let (server, _) = identities();
    let (_, stranger) = identities();
    let (_running, address) =
        serve(who(&server), Some(server.server_config(&[b"http/1.1"])), Limits::default()).await;
    // It finds out by itself that the server is of another cluster.
    let config = stranger.client_config(&[Role::Tracker], &[b"http/1.1"]);
    assert!(connect_tls(address, config.clone()).await.is_err());

    // It does not care who the server is, and shows nothing.
    let mut nameless = rustls::ClientConfig::builder_with_provider(config.crypto_provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    nameless.alpn_protocols = vec![b"http/1.1".to_vec()];
    // With TLS 1.3 the client learns of it only after its own part of the handshake.
    let mut stream = connect_tls(address, Arc::new(nameless)).await.unwrap();
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, GET).await;
    let (bytes, ended) = rest(&mut stream).await;
    assert!(bytes.is_empty() && ended.is_err(), "{bytes:?} {ended:?}");
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_closed_in_time() {
    let (server, _) = identities();
    let limits = Limits { tls_handshake_timeout: Duration::from_millis(50), ..Limits::default() };
    let (_running, address) = serve(who(&server), Some(server.server_config(&[b"http/1.1"])), limits).await;
    let mut silent = connect(address).await;
    assert_eq!(rest(&mut silent).await.0, b"");
    let mut half = connect(address).await;
    send(&mut half, b"\x16\x03\x01\x02\x00\x01").await;
    assert_eq!(rest(&mut half).await.0, b"");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_not_answered() {
    let (server, _) = identities();
    let tls = server.server_config(&[b"http/1.1"]);
    let (_running, address) = serve(who(&server), Some(tls), Limits::default()).await;
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    assert!(!rest(&mut client).await.0.starts_with(b"HTTP"));
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_and_a_busy_one_is_not() {
    let (server, client) = identities();
    let gate = Gate::new();
    let limits = Limits { http2_idle_timeout: Duration::from_millis(100), ..Limits::default() };
    let (_running, address) = serve(router(&gate), Some(server.server_config(&[b"h2"])), limits).await;
    let (mut busy, _) = http2_client(address, &client).await;
    let waiting = tokio::spawn(async move { fetch(&mut busy, "/slow").await });
    gate.arrival().await;

    let (_idle, connection) = http2_client(address, &client).await;
    timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
    gate.open.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "slow");
}

#[tokio::test]
async fn shutdown_lets_requests_of_http2_end() {
    let (server, client) = identities();
    let gate = Gate::new();
    let (running, address) =
        serve(router(&gate), Some(server.server_config(&[b"h2"])), Limits::default()).await;
    let (mut requests, connection) = http2_client(address, &client).await;
    let mut later = requests.clone();
    let waiting = tokio::spawn(async move { fetch(&mut requests, "/slow").await });
    gate.arrival().await;

    let shutdown = tokio::spawn(running.shutdown(PATIENCE));
    // Once the goodbye has arrived, no new request is taken.
    let told = async { while fetch(&mut later, "/").await.is_ok() {} };
    timeout(PATIENCE, told).await.unwrap();
    gate.open.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "slow");
    timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_ends_requests_of_http2_after_the_grace() {
    let (server, client) = identities();
    let gate = Gate::new();
    let (running, address) =
        serve(router(&gate), Some(server.server_config(&[b"h2"])), Limits::default()).await;
    let (mut requests, _) = http2_client(address, &client).await;
    let waiting = tokio::spawn(async move { fetch(&mut requests, "/slow").await });
    gate.arrival().await;
    timeout(PATIENCE, running.shutdown(Duration::from_millis(50))).await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    // The handler is gone too: nobody but this test holds the gate.
    assert_eq!(Arc::strong_count(&gate.open), 1);
}

#[tokio::test]
async fn http2_on_a_plain_port_is_understood() {
    let (_running, address) = serve(router(&Gate::new()), None, Limits::default()).await;
    let io = TokioIo::new(connect(address).await);
    let (mut requests, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(fetch(&mut requests, "/").await.unwrap(), "hello");
}

/// A client that checks nothing.
#[derive(Debug)]
struct AnyServer;

mod any_server {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    impl ServerCertVerifier for super::AnyServer {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    }
}
