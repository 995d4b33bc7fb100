//! Peers that mean no good: each loses its connection, and nobody else notices.

use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use shoal_core::{Digest, PieceIndex, Role, Zone};
use shoal_identity::Authority;
use shoal_swarm::Message;
use shoal_transfer::TransportChoice;
use shoal_transfer::wire::{self, Frame, Hello};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::TRANSPORT;
use super::node::{Node, authority, content, finish, read};
use super::puppet::{Puppet, Strings};

const MIB: usize = 1 << 20;

/// The close code of a peer that broke the protocol.
pub(crate) const PROTOCOL: u64 = 2;
const CORRUPT: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_a_corrupt_piece_is_banned_and_the_blob_completes() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(8 * MIB, 20);
    let metainfo = origin.hold(&content).await;
    let digest = *metainfo.metainfo.digest();
    let liar = Puppet::new(&authority, Role::Agent);

    let fetch = agent.fetch(&metainfo, [liar.address()]).await;
    let mut strings = liar.accept().await;
    let piece = strings.pose_as_seed(&metainfo).await.unwrap();
    strings.send_piece(digest, piece, MIB as u32, Bytes::from(vec![7; MIB])).await;
    assert_eq!(strings.closed().await, CORRUPT);
    fetch.add_peers(vec![origin.address()]).await;

    assert!(read(&finish(fetch).await.unwrap()).await == content);
    assert!(agent.metric("shoal_peer_bans_total") == 1.0);
}

/// A node with a blob, and a good neighbour that is connected to it.
pub(crate) struct Town {
    authority: Authority,
    victim: Node,
    neighbour: Node,
    more: shoal_core::SignedMetainfo,
}

impl Town {
    pub(crate) async fn found() -> Self {
        let authority = authority();
        let victim = Node::start(&authority, Role::Origin).await;
        let neighbour = Node::start(&authority, Role::Agent).await;
        let (first, more) = (victim.hold(&content(MIB, 21)).await, victim.hold(&content(2 * MIB, 22)).await);
        neighbour.pull(&first, [victim.address()]).await.unwrap();
        Self { authority, victim, neighbour, more }
    }

    pub(crate) async fn visit(&self) -> Strings {
        let puppet = Puppet::new(&self.authority, Role::Agent);
        puppet.connect(self.victim.transfer.local_address(), 1).await
    }

    /// The good neighbour has lost nothing: same connection, more bytes.
    pub(crate) async fn stays_well(self) {
        assert_eq!(self.neighbour.transfer.stats().connections, 1);
        self.neighbour.pull(&self.more, [self.victim.address()]).await.unwrap();
        assert!(self.neighbour.metric("shoal_peer_dials_failed_total") == 0.0);
    }
}

#[tokio::test]
async fn garbage_on_the_control_stream_closes_that_connection_only() {
    let town = Town::found().await;
    let hello = {
        let mut bytes = bytes::BytesMut::new();
        Frame::Hello(Hello::new(1, &Zone::default())).encode(&mut bytes);
        bytes.to_vec()
    };
    for garbage in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        // An over-long length, with nothing behind it.
        vec![0x02, 0xff, 0xff, 0xff, 0xff],
        // A digest of no algorithm.
        vec![0x03, 0, 0, 0, 1, 9],
        // A frame that is shorter than its fields.
        vec![0x04, 0, 0, 0, 0],
        // A second Hello.
        hello,
    ] {
        let mut strings = town.visit().await;
        strings.say_bytes(&garbage).await;
        assert_eq!(strings.closed().await, PROTOCOL, "after {garbage:?}");
    }
    town.stays_well().await;
}

#[tokio::test]
async fn a_piece_that_nobody_asked_for_closes_that_connection_only() {
    let town = Town::found().await;
    let mut strings = town.visit().await;
    strings.send_piece(Digest::sha256(b"x"), PieceIndex(0), MIB as u32, Bytes::from(vec![0; 100])).await;
    assert_eq!(strings.closed().await, PROTOCOL);
    town.stays_well().await;
}

#[tokio::test]
async fn a_caller_that_says_no_hello_is_closed() {
    let town = Town::found().await;
    let puppet = Puppet::new(&town.authority, Role::Agent);
    let mut strings = puppet.dial(town.victim.transfer.local_address()).await;
    strings.say(Frame::Message(Message::Absent { digest: Digest::sha256(b"") })).await;
    assert_eq!(strings.closed().await, PROTOCOL);
    town.stays_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_of_another_length_closes_that_connection_and_the_blob_completes() {
    for (claimed, sent) in [(MIB + 1, MIB + 1), (MIB - 1, MIB - 1), (MIB, MIB - 1), (MIB, MIB + 1)] {
        let authority = authority();
        let (origin, agent) =
            (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
        let content = content(4 * MIB, 23);
        let metainfo = origin.hold(&content).await;
        let liar = Puppet::new(&authority, Role::Agent);
        let fetch = agent.fetch(&metainfo, [liar.address()]).await;
        let mut strings = liar.accept().await;
        let piece = strings.pose_as_seed(&metainfo).await.unwrap();
        let bytes = Bytes::from(vec![0; sent]);
        strings.send_piece(*metainfo.metainfo.digest(), piece, claimed as u32, bytes).await;
        let code = strings.closed().await;
        // Whether a byte too many or the wrong hash is seen first depends on the packets.
        assert!(code == PROTOCOL || (sent > claimed && code == CORRUPT), "{claimed} {sent}: {code}");
        fetch.add_peers(vec![origin.address()]).await;
        assert!(read(&finish(fetch).await.unwrap()).await == content);
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_gets_no_connection() {
    #[derive(Debug)]
    struct Nobody;
    impl rustls::client::ResolvesClientCert for Nobody {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
    let town = Town::found().await;
    let identity = town.authority.issue(Role::Agent, "nobody").unwrap();
    let mut client = identity.client_config(&[Role::Origin], &[wire::ALPN]).as_ref().clone();
    client.client_auth_cert_resolver = Arc::new(Nobody);
    let address = town.victim.transfer.local_address();
    // In TLS 1.3 the client's side of the handshake may be over before its certificate is missed.
    if TRANSPORT == TransportChoice::Tcp {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("nobody").unwrap();
        if let Ok(mut stream) = TlsConnector::from(Arc::new(client)).connect(name, stream).await {
            let read = stream.read(&mut [0]).await;
            assert!(!matches!(read, Ok(1..)), "{read:?}");
        }
    } else {
        let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        if let Ok(connection) = endpoint.connect_with(client, address, "nobody").unwrap().await {
            let error = connection.closed().await;
            assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error}");
        }
    }
    assert_eq!(town.victim.transfer.stats().connections, 1);
    town.stays_well().await;
}
