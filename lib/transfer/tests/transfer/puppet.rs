//! A peer that is played by hand: it speaks the wire protocol as well or as badly as a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, ServerConfig,
    TransportConfig,
};
use shoal_core::{Bitfield, Digest, PeerAddress, PieceIndex, Role, SignedMetainfo, Zone};
use shoal_identity::{Authority, Identity};
use shoal_swarm::Message;
use shoal_transfer::wire::{self, Frame, Hello, PieceHeader};

/// A played peer that waits for or makes connections.
pub(crate) struct Puppet {
    endpoint: Endpoint,
    identity: Identity,
}

/// A connection of it, past the Hellos.
pub(crate) struct Strings {
    pub(crate) connection: Connection,
    output: SendStream,
    input: RecvStream,
    buffer: BytesMut,
    _endpoint: Endpoint,
}

impl Puppet {
    pub(crate) fn new(authority: &Authority, role: Role) -> Self {
        let identity = authority.issue(role, "puppet").unwrap();
        let server = QuicServerConfig::try_from(identity.server_config(&[wire::ALPN])).unwrap();
        let server = ServerConfig::with_crypto(Arc::new(server));
        let endpoint = Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
        Self { endpoint, identity }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress {
            id: self.identity.id(),
            role: self.identity.role(),
            addresses: vec![self.endpoint.local_addr().unwrap()],
            zone: Zone::default(),
        }
    }

    /// Dials without saying Hello.
    pub(crate) async fn dial(&self, address: SocketAddr) -> Connection {
        self.dial_with(address, TransportConfig::default()).await
    }

    /// Dials and says Hello; it is not answered yet.
    pub(crate) async fn call(&self, address: SocketAddr, moment: u64) -> Strings {
        self.greet(self.dial(address).await, moment).await
    }

    /// Dials and exchanges Hellos.
    pub(crate) async fn connect(&self, address: SocketAddr, moment: u64) -> Strings {
        let mut strings = self.call(address, moment).await;
        strings.expect_hello().await;
        strings
    }

    /// Dials and exchanges Hellos, and lets nobody send it more than a few bytes that it has not read.
    pub(crate) async fn connect_narrow(&self, address: SocketAddr) -> Strings {
        let mut narrow = TransportConfig::default();
        narrow.stream_receive_window(1024u32.into());
        let mut strings = self.greet(self.dial_with(address, narrow).await, 1).await;
        strings.expect_hello().await;
        strings
    }

    /// Takes the next connection and hears its Hello, and does not answer it.
    pub(crate) async fn hear(&self) -> Strings {
        let connection = self.endpoint.accept().await.unwrap().await.unwrap();
        let (output, input) = connection.accept_bi().await.unwrap();
        let mut strings = self.strings(connection, output, input);
        strings.expect_hello().await;
        strings
    }

    /// Takes the next connection and exchanges Hellos.
    pub(crate) async fn accept(&self) -> Strings {
        let mut strings = self.hear().await;
        strings.say(Frame::Hello(Hello::new(1, &Zone::default()))).await;
        strings
    }

    async fn dial_with(&self, address: SocketAddr, transport: TransportConfig) -> Connection {
        let client = self.identity.client_config(&[Role::Agent, Role::Origin], &[wire::ALPN]);
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        client.transport_config(Arc::new(transport));
        self.endpoint.connect_with(client, address, "puppet").unwrap().await.unwrap()
    }

    async fn greet(&self, connection: Connection, moment: u64) -> Strings {
        let (output, input) = connection.open_bi().await.unwrap();
        let mut strings = self.strings(connection, output, input);
        strings.say(Frame::Hello(Hello::new(moment, &Zone::default()))).await;
        strings
    }

    fn strings(&self, connection: Connection, output: SendStream, input: RecvStream) -> Strings {
        Strings { connection, output, input, buffer: BytesMut::new(), _endpoint: self.endpoint.clone() }
    }
}

impl Strings {
    pub(crate) async fn say(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.say_bytes(&bytes).await;
    }

    /// Writes anything to the control stream.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.output.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let chunk = self.input.read_chunk(4096, true).await.ok()??;
            self.buffer.put(chunk.bytes);
        }
    }

    pub(crate) async fn expect_hello(&mut self) {
        assert!(matches!(self.hear().await, Some(Frame::Hello(_))));
    }

    /// Says to have all of a blob whenever it is asked, until a piece is requested of it.
    pub(crate) async fn pose_as_seed(&mut self, metainfo: &SignedMetainfo) -> Option<PieceIndex> {
        let digest = *metainfo.metainfo.digest();
        loop {
            match self.hear().await? {
                Frame::Message(Message::Join { .. }) => {
                    let have = Bitfield::full(metainfo.metainfo.geometry().piece_count());
                    self.say(Frame::Message(Message::Join { digest, have })).await;
                }
                Frame::Message(Message::Request { piece, .. }) => return Some(piece),
                _ => {}
            }
        }
    }

    /// Sends a piece stream: what its header claims, and the bytes that follow.
    pub(crate) async fn send_piece(&self, digest: Digest, piece: PieceIndex, claimed: u32, bytes: Bytes) {
        let mut head = BytesMut::new();
        Frame::Piece(PieceHeader { digest, piece, length: claimed }).encode(&mut head);
        self.send_stream(&[head.freeze(), bytes].concat()).await;
    }

    /// Sends any bytes on a unidirectional stream; errors are the point of some tests.
    pub(crate) async fn send_stream(&self, bytes: &[u8]) {
        if let Ok(mut stream) = self.connection.open_uni().await {
            let _ = stream.write_all(bytes).await;
            let _ = stream.finish();
            let _ = stream.stopped().await;
        }
    }

    /// With which code the other side closed the connection.
    pub(crate) async fn closed(&self) -> u64 {
        close_code(&self.connection).await
    }
}

/// With which code the other side closes the connection.
pub(crate) async fn close_code(connection: &Connection) -> u64 {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("not closed by the other side: {other}"),
    }
}
