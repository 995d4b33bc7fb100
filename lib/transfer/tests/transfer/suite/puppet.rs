//! A peer that is played by hand: it speaks the wire protocol as well or as badly as a test wants, over the transport of
//! the suite.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use futures_util::FutureExt as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, ServerConfig,
    TransportConfig,
};
use rustls::pki_types::ServerName;
use shoal_core::{Bitfield, Digest, PeerAddress, PieceIndex, Role, SignedMetainfo, Zone};
use shoal_identity::{Authority, Identity};
use shoal_swarm::Message;
use shoal_transfer::TransportChoice;
use shoal_transfer::wire::{self, CloseReason, Frame, Hello, PieceHeader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::super::TRANSPORT;

/// A played peer that waits for or makes connections.
pub(crate) struct Puppet {
    port: Port,
    identity: Identity,
}

enum Port {
    Quic(Endpoint),
    Tcp(TcpListener),
}

/// A connection of it.
pub(crate) struct Strings {
    wire: Wire,
    buffer: BytesMut,
    /// What was read while something else was looked for.
    heard: Vec<Frame>,
    closed: Option<u64>,
}

#[allow(clippy::large_enum_variant, reason = "there are a few of them")]
enum Wire {
    Quic { connection: Connection, control: Option<(SendStream, RecvStream)>, _endpoint: Endpoint },
    Tcp(TlsStream<TcpStream>),
}

/// What a request brings.
#[derive(Debug)]
pub(crate) enum Answer {
    Piece,
    Frame(Frame),
}

impl Puppet {
    pub(crate) fn new(authority: &Authority, role: Role) -> Self {
        let identity = authority.issue(role, "puppet").unwrap();
        let port = match TRANSPORT {
            TransportChoice::Tcp => {
                let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
                listener.set_nonblocking(true).unwrap();
                Port::Tcp(TcpListener::from_std(listener).unwrap())
            }
            _ => {
                let server = QuicServerConfig::try_from(identity.server_config(&[wire::ALPN])).unwrap();
                let server = ServerConfig::with_crypto(Arc::new(server));
                Port::Quic(Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap())
            }
        };
        Self { port, identity }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        let address = match &self.port {
            Port::Quic(endpoint) => endpoint.local_addr(),
            Port::Tcp(listener) => listener.local_addr(),
        };
        PeerAddress {
            id: self.identity.id(),
            role: self.identity.role(),
            addresses: vec![address.unwrap()],
            zone: Zone::default(),
        }
    }

    /// Dials without saying Hello.
    pub(crate) async fn dial(&self, address: SocketAddr) -> Strings {
        self.dial_with(address, false).await
    }

    /// Dials and says Hello; it is not answered yet.
    pub(crate) async fn call(&self, address: SocketAddr, moment: u64) -> Strings {
        let mut strings = self.dial(address).await;
        strings.say(Frame::Hello(Hello::new(moment, &Zone::default()))).await;
        strings
    }

    /// Dials and exchanges Hellos.
    pub(crate) async fn connect(&self, address: SocketAddr, moment: u64) -> Strings {
        let mut strings = self.call(address, moment).await;
        strings.expect_hello().await;
        strings
    }

    /// Dials and exchanges Hellos, and lets nobody send it more than a little that it has not read.
    pub(crate) async fn connect_narrow(&self, address: SocketAddr) -> Strings {
        let mut strings = self.dial_with(address, true).await;
        strings.say(Frame::Hello(Hello::new(1, &Zone::default()))).await;
        strings.expect_hello().await;
        strings
    }

    /// Takes the next connection and hears its Hello, and does not answer it.
    pub(crate) async fn hear(&self) -> Strings {
        let mut strings = Strings::new(match &self.port {
            Port::Quic(endpoint) => {
                let connection = endpoint.accept().await.unwrap().await.unwrap();
                let control = Some(connection.accept_bi().await.unwrap());
                Wire::Quic { connection, control, _endpoint: endpoint.clone() }
            }
            Port::Tcp(listener) => {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = TlsAcceptor::from(self.identity.server_config(&[wire::ALPN]));
                Wire::Tcp(acceptor.accept(stream).await.unwrap().into())
            }
        });
        strings.expect_hello().await;
        strings
    }

    /// Takes the next connection and exchanges Hellos.
    pub(crate) async fn accept(&self) -> Strings {
        let mut strings = self.hear().await;
        strings.say(Frame::Hello(Hello::new(1, &Zone::default()))).await;
        strings
    }

    async fn dial_with(&self, address: SocketAddr, is_narrow: bool) -> Strings {
        let client = self.identity.client_config(&[Role::Agent, Role::Origin], &[wire::ALPN]);
        Strings::new(match &self.port {
            Port::Quic(endpoint) => {
                let mut transport = TransportConfig::default();
                if is_narrow {
                    transport.stream_receive_window(1024u32.into());
                }
                let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
                client.transport_config(Arc::new(transport));
                let connection = endpoint.connect_with(client, address, "puppet").unwrap().await.unwrap();
                Wire::Quic { connection, control: None, _endpoint: endpoint.clone() }
            }
            Port::Tcp(_) => {
                let socket = TcpSocket::new_v4().unwrap();
                if is_narrow {
                    socket.set_recv_buffer_size(4096).unwrap();
                }
                let stream = socket.connect(address).await.unwrap();
                let name = ServerName::try_from("puppet").unwrap();
                Wire::Tcp(TlsConnector::from(client).connect(name, stream).await.unwrap().into())
            }
        })
    }
}

impl Strings {
    fn new(wire: Wire) -> Self {
        Self { wire, buffer: BytesMut::new(), heard: Vec::new(), closed: None }
    }

    pub(crate) async fn say(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.say_bytes(&bytes).await;
    }

    /// Writes anything where messages go. That the other side has gone by then is the point of some tests.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Quic { connection, control, .. } => {
                if control.is_none() {
                    *control = Some(connection.open_bi().await.unwrap());
                }
                let (output, _) = control.as_mut().unwrap();
                output.write_all(bytes).await.unwrap();
            }
            Wire::Tcp(stream) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
            }
        }
    }

    /// The next frame; `None` when the connection has ended. Over TCP also the head of a piece.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        if !self.heard.is_empty() {
            return Some(self.heard.remove(0));
        }
        loop {
            if let Some(frame) = self.decode().await {
                return Some(frame);
            }
            if self.closed.is_some() || !self.read().await {
                return None;
            }
        }
    }

    pub(crate) async fn expect_hello(&mut self) {
        let heard = self.hear().await;
        assert!(matches!(heard, Some(Frame::Hello(_))), "{heard:?}");
    }

    /// What comes first, a message or a piece.
    pub(crate) async fn answer(&mut self) -> Answer {
        if let Wire::Quic { connection, .. } = &self.wire {
            let connection = connection.clone();
            return tokio::select! {
                stream = connection.accept_uni() => {
                    drop(stream.unwrap());
                    Answer::Piece
                }
                frame = self.hear() => Answer::Frame(frame.unwrap()),
            };
        }
        match self.hear().await.unwrap() {
            Frame::Piece(_) => Answer::Piece,
            frame => Answer::Frame(frame),
        }
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

    /// Sends a piece: what its header claims, and the bytes that follow, of which there may be more or fewer.
    pub(crate) async fn send_piece(
        &mut self,
        digest: Digest,
        piece: PieceIndex,
        claimed: u32,
        mut bytes: Bytes,
    ) {
        let mut sent = BytesMut::new();
        let header = PieceHeader { digest, piece, length: claimed };
        Frame::Piece(header).encode(&mut sent);
        if matches!(self.wire, Wire::Quic { .. }) {
            sent.put(bytes);
            return self.send_stream(&sent).await;
        }
        let is_short = bytes.len() < claimed as usize;
        while bytes.has_remaining() {
            let chunk = bytes.split_to(bytes.len().min(wire::MAX_CHUNK_LENGTH));
            Frame::Chunk(chunk.len() as u32).encode(&mut sent);
            sent.put(chunk);
        }
        if is_short {
            Frame::Piece(header).encode(&mut sent);
        }
        self.say_bytes(&sent).await;
    }

    /// Sends any bytes on a unidirectional stream, where there are any; errors are the point of some tests.
    pub(crate) async fn send_stream(&self, bytes: &[u8]) {
        let Wire::Quic { connection, .. } = &self.wire else { panic!("only QUIC has streams") };
        if let Ok(mut stream) = connection.open_uni().await {
            let _ = stream.write_all(bytes).await;
            let _ = stream.finish();
            let _ = stream.stopped().await;
        }
    }

    /// Ends the connection with that code.
    pub(crate) async fn close(&mut self, reason: CloseReason) {
        match &self.wire {
            Wire::Quic { connection, .. } => connection.close((reason as u32).into(), b""),
            Wire::Tcp(_) => self.say(Frame::Close(reason)).await,
        }
    }

    /// Whether the other side has not ended the connection so far.
    pub(crate) async fn is_open(&mut self) -> bool {
        if let Wire::Quic { connection, .. } = &self.wire {
            return connection.close_reason().is_none();
        }
        loop {
            while let Some(frame) = self.decode().await {
                self.heard.push(frame);
            }
            match self.read().now_or_never() {
                _ if self.closed.is_some() => return false,
                Some(true) => {}
                Some(false) => return false,
                None => return true,
            }
        }
    }

    /// With which code the other side closed the connection.
    pub(crate) async fn closed(&mut self) -> u64 {
        if let Wire::Quic { connection, .. } = &self.wire {
            return match connection.closed().await {
                ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
                other => panic!("not closed by the other side: {other}"),
            };
        }
        while self.hear().await.is_some() {}
        self.closed.expect("not closed by the other side with a word")
    }

    /// Until the connection has ended, by whomever.
    pub(crate) async fn ended(&mut self) {
        if let Wire::Quic { connection, .. } = &self.wire {
            connection.closed().await;
            return;
        }
        while self.hear().await.is_some() {}
    }

    /// A frame of what was read, and what belongs to a piece left out.
    async fn decode(&mut self) -> Option<Frame> {
        loop {
            match Frame::decode(&mut self.buffer).unwrap()? {
                Frame::Close(reason) => {
                    self.closed = Some(reason as u64);
                    return None;
                }
                Frame::Chunk(length) => {
                    while self.buffer.len() < length as usize {
                        assert!(self.read().await, "cut within a chunk");
                    }
                    self.buffer.advance(length as usize);
                }
                Frame::Dropped => {}
                frame => return Some(frame),
            }
        }
    }

    /// Reads more; false at the end.
    async fn read(&mut self) -> bool {
        match &mut self.wire {
            Wire::Quic { control: Some((_, input)), .. } => match input.read_chunk(4096, true).await {
                Ok(Some(chunk)) => {
                    self.buffer.put(chunk.bytes);
                    true
                }
                _ => false,
            },
            Wire::Quic { .. } => false,
            Wire::Tcp(stream) => stream.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0),
        }
    }
}
