//! Real handshakes between nodes, and with those that are none.

use std::io;

use rustls::RootCertStore;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::authority::Validity;
use crate::{Authority, Identity};

const ALPN: &[&[u8]] = &[b"shoal/test"];
const ALL: &[Role] = &[Role::Agent, Role::Origin, Role::Tracker];

type ServerStream = server::TlsStream<DuplexStream>;
type ClientStream = client::TlsStream<DuplexStream>;

/// Both ends shake hands and pass one byte each way: with TLS 1.3 a client learns only then that it was refused.
async fn meet(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (io::Result<ServerStream>, io::Result<ClientStream>) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serve = async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"s").await?;
        stream.read_u8().await?;
        io::Result::Ok(stream)
    };
    let connect = async move {
        let name = ServerName::try_from("shoal").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.read_u8().await?;
        stream.write_all(b"c").await?;
        io::Result::Ok(stream)
    };
    tokio::join!(serve, connect)
}

/// The server of one meets the client of the other.
async fn meet_nodes(server: &Identity, client: &Identity, roles: &[Role]) -> (bool, bool) {
    let (served, connected) = meet(server.server_config(ALPN), client.client_config(roles, ALPN)).await;
    (served.is_ok(), connected.is_ok())
}

fn pair(authority: &Authority) -> (Identity, Identity) {
    (authority.issue(Role::Tracker, "server").unwrap(), authority.issue(Role::Agent, "client").unwrap())
}

#[tokio::test]
async fn nodes_of_a_cluster_know_each_other_after_the_handshake() {
    let (server, client) = pair(&Authority::generate("prod").unwrap());
    let (served, connected) =
        meet(server.server_config(ALPN), client.client_config(&[Role::Tracker], ALPN)).await;
    let (served, connected) = (served.unwrap(), connected.unwrap());

    let seen = server.peer(&served.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!((seen.id, seen.role, seen.name.as_str()), (client.id(), Role::Agent, "client"));
    let seen = client.peer(&connected.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!((seen.id, seen.role, seen.name.as_str()), (server.id(), Role::Tracker, "server"));
    assert_eq!(connected.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connected.get_ref().1.alpn_protocol(), Some(ALPN[0]));
}

#[tokio::test]
async fn a_server_of_another_role_is_refused() {
    let (server, client) = pair(&Authority::generate("prod").unwrap());
    assert_eq!(meet_nodes(&server, &client, &[Role::Tracker]).await, (true, true));
    assert_eq!(meet_nodes(&server, &client, &[Role::Origin, Role::Agent]).await, (false, false));
    assert_eq!(meet_nodes(&server, &client, &[]).await, (false, false));
}

#[tokio::test]
async fn nodes_of_another_authority_are_refused_on_both_sides() {
    let (ours, theirs) = (Authority::generate("prod").unwrap(), Authority::generate("prod").unwrap());
    let (server, _) = pair(&ours);
    let (_, client) = pair(&theirs);
    // The client refuses first.
    assert_eq!(meet_nodes(&server, &client, ALL).await, (false, false));
    // A client that takes any server is refused by the server.
    let careless = client_config(Arc::clone(server.standing()), client.standing().clone(), ALL, ALPN);
    let (served, connected) = meet(server.server_config(ALPN), careless).await;
    assert!(served.is_err() && connected.is_err());
}

#[tokio::test]
async fn another_cluster_under_the_same_authority_is_refused() {
    let authority = Authority::generate("prod").unwrap();
    let (server, client) = pair(&authority);
    let (other_server, other_client) = pair(&authority.renamed("staging"));
    assert_eq!(meet_nodes(&server, &client, ALL).await, (true, true));
    assert_eq!(meet_nodes(&other_server, &client, ALL).await, (false, false));
    let careless = client_config(Arc::clone(client.standing()), other_client.standing().clone(), ALL, ALPN);
    let (served, connected) = meet(server.server_config(ALPN), careless).await;
    assert!(served.is_err() && connected.is_err());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (server, client) = pair(&Authority::generate("prod").unwrap());
    let verifier = ServerVerifier { trust: Arc::clone(client.standing()), roles: ALL.to_vec() };
    let mut nameless = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    nameless.alpn_protocols = vec![ALPN[0].to_vec()];
    let (served, connected) = meet(server.server_config(ALPN), Arc::new(nameless)).await;
    assert!(served.is_err() && connected.is_err());
}

#[tokio::test]
async fn a_server_that_asks_for_no_certificate_still_has_to_show_its_own() {
    let authority = Authority::generate("prod").unwrap();
    let (_, client) = pair(&authority);
    let stranger = Authority::generate("prod").unwrap().issue(Role::Origin, "o").unwrap();
    let mut open = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(stranger.standing().clone());
    open.alpn_protocols = vec![ALPN[0].to_vec()];
    let (served, connected) = meet(Arc::new(open), client.client_config(ALL, ALPN)).await;
    assert!(served.is_err() && connected.is_err());
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let authority = Authority::generate("prod").unwrap();
    let (server, client) = pair(&authority);
    let now = OffsetDateTime::now_utc();
    let past = Validity { not_before: now - Duration::hours(2), not_after: now - Duration::hours(1) };
    let expired = authority.issue_valid(Role::Tracker, "late", past).unwrap();
    assert_eq!(meet_nodes(&expired, &client, ALL).await, (false, false));
    assert_eq!(meet_nodes(&server, &expired, ALL).await, (false, false));
}

#[tokio::test]
async fn a_client_of_the_public_web_is_refused_by_the_alpn_or_the_certificate() {
    let (server, _) = pair(&Authority::generate("prod").unwrap());
    let web = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let (served, connected) = meet(server.server_config(ALPN), Arc::new(web)).await;
    assert!(served.is_err() && connected.is_err());
}

#[test]
fn the_crypto_provider_may_be_installed_again() {
    install_crypto_provider();
    install_crypto_provider();
    assert!(CryptoProvider::get_default().is_some());
}
