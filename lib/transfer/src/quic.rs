//! QUIC (RFC 9000) under the wire protocol: the endpoint and its connections. The only file that tunes quinn.
//!
//! One UDP socket dials and answers. Both sides always show certificates; who they are is checked in `handshake`. A piece
//! has a stream of its own.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use shoal_core::{PeerId, Role};
use shoal_identity::Identity;
use shoal_swarm::Priority;

use crate::config::{Config, ConfigError};
use crate::endpoint::BindError;
use crate::frames::FrameReader;
use crate::limit::Limiter;
use crate::link::SendPieceError;
use crate::wire::{self, CloseReason, Frame, PieceHeader};

/// The UDP half of the peer port.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    local_address: SocketAddr,
}

/// One connection to a peer. Cheap to clone; all clones are one connection.
#[derive(Clone, Debug)]
pub(crate) struct Link(quinn::Connection);

/// A connection with its control stream.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) input: FrameReader<RecvStream>,
    pub(crate) output: SendStream,
}

impl Endpoint {
    pub(crate) fn bind(config: &Config, address: SocketAddr, identity: &Identity) -> Result<Self, BindError> {
        let transport = Arc::new(transport(config)?);
        let server = QuicServerConfig::try_from(identity.server_config(&[wire::ALPN]))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport)).max_incoming(config.max_handshakes.get());
        let client =
            QuicClientConfig::try_from(identity.client_config(&[Role::Agent, Role::Origin], &[wire::ALPN]))?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);

        let listen_error = |source| BindError::Listen { address, protocol: "udp", source };
        let endpoint = open_socket(config, address, server).map_err(listen_error)?;
        let local_address = endpoint.local_addr().map_err(listen_error)?;
        Ok(Self { endpoint, client, local_address })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Dials. The name in the handshake is the peer's id, so that TLS tickets are kept by peer; nobody checks it.
    pub(crate) fn dial(
        &self,
        address: SocketAddr,
        peer: &PeerId,
    ) -> Result<quinn::Connecting, quinn::ConnectError> {
        self.endpoint.connect_with(self.client.clone(), address, &peer.to_string())
    }

    /// The next caller; `None` once the endpoint is closed.
    pub(crate) async fn accept(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Closes everything and waits (at most so long) until the peers were told.
    pub(crate) async fn close(&self, patience: Duration) {
        let reason = CloseReason::Shutdown;
        self.endpoint.close(code(reason), reason.text().as_bytes());
        let _ = tokio::time::timeout(patience, self.endpoint.wait_idle()).await;
    }
}

impl Link {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self(connection)
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// The certificate that the peer proved to hold.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = self.0.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    /// Opens the control stream: the dialler's part.
    pub(crate) async fn open_control(self) -> Result<Line, quinn::ConnectionError> {
        let streams = self.0.open_bi().await?;
        Ok(self.with_control(streams))
    }

    /// Takes the control stream: the part of the one who was dialled.
    pub(crate) async fn accept_control(self) -> Result<Line, quinn::ConnectionError> {
        let streams = self.0.accept_bi().await?;
        Ok(self.with_control(streams))
    }

    fn with_control(self, (output, input): (SendStream, RecvStream)) -> Line {
        // Messages go before the bytes of pieces. An error means that the stream has ended, which its next use reports.
        let _ = output.set_priority(1);
        Line { link: self, input: FrameReader::new(input), output }
    }

    /// How long a packet and its answer take, as measured so far.
    pub(crate) fn round_trip(&self) -> Duration {
        self.0.rtt()
    }

    /// The next stream that carries a piece.
    pub(crate) async fn accept_piece(&self) -> Result<RecvStream, quinn::ConnectionError> {
        self.0.accept_uni().await
    }

    /// Begins a piece, on a stream of its own.
    pub(crate) async fn begin_piece(
        &self,
        header: &PieceHeader,
        priority: Priority,
        egress: &Limiter,
    ) -> Result<PieceSender, SendPieceError> {
        let mut head = BytesMut::new();
        Frame::Piece(*header).encode(&mut head);
        let stream = ResetOnDrop(self.0.open_uni().await?);
        Ok(PieceSender { stream, head: head.freeze(), priority, egress: egress.clone() })
    }

    /// Ends the connection at once, in both directions.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.0.close(code(reason), reason.text().as_bytes());
    }

    /// Why the connection ended, if it has.
    pub(crate) fn end(&self) -> Option<quinn::ConnectionError> {
        self.0.close_reason()
    }
}

impl PieceSender {
    pub(crate) async fn send(&mut self, mut bytes: Bytes) -> Result<(), SendPieceError> {
        while !bytes.is_empty() {
            let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let length = self.egress.take(self.priority, wanted).await as usize;
            let head = std::mem::take(&mut self.head);
            self.stream.0.write_all_chunks(&mut [head, bytes.split_to(length)]).await?;
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<(), SendPieceError> {
        // Both are about a stream that the peer stopped: `stopped` says so.
        let _ = self.stream.0.finish();
        match self.stream.0.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) if code == STREAM_DONE => Ok(()),
            Ok(Some(_)) | Err(quinn::StoppedError::ZeroRttRejected) => Err(SendPieceError::Stopped),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
        }
    }
}

fn code(reason: CloseReason) -> VarInt {
    VarInt::from_u32(reason as u32)
}

/// Whether a peer ended a stream by itself, and not the connection.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

/// Says that a piece is not wanted, or that it is complete; the sender's stream ends.
pub(crate) fn stop(mut stream: RecvStream, wanted: Stop) {
    // An error means that the stream has ended already.
    let _ = stream.stop(match wanted {
        Stop::Done => STREAM_DONE,
        Stop::Unwanted => STREAM_UNWANTED,
    });
}

/// Why a stream is not read on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// All of the piece is here.
    Done,
    /// Nobody needs it any more.
    Unwanted,
}

/// A piece that is being sent.
#[derive(Debug)]
pub(crate) struct PieceSender {
    stream: ResetOnDrop,
    /// Goes with the first bytes.
    head: Bytes,
    priority: Priority,
    egress: Limiter,
}

/// quinn finishes a stream that is dropped, as if it were whole; a piece that is given up must not look so.
#[derive(Debug)]
struct ResetOnDrop(SendStream);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        // An error means that all of it has arrived, or that the peer stopped it.
        let _ = self.0.reset(STREAM_UNWANTED);
    }
}

fn transport(config: &Config) -> Result<TransportConfig, ConfigError> {
    config.check()?;
    let window = |size: bytesize::ByteSize| {
        VarInt::from_u64(size.as_u64()).expect("at most 1 GiB, checked in Config::check")
    };
    let idle_timeout =
        IdleTimeout::try_from(config.idle_timeout).expect("at most a day, checked in Config::check");
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.max_udp_payload);

    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(config.piece_streams.get()))
        .stream_receive_window(window(config.stream_window))
        .receive_window(window(config.connection_window))
        .send_window(config.connection_window.as_u64())
        // One piece after the other: the first can be passed on while the second is still on its way.
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(config.keep_alive_interval))
        .max_idle_timeout(Some(idle_timeout))
        .mtu_discovery_config(Some(discovery));
    Ok(transport)
}

fn open_socket(
    config: &Config,
    address: SocketAddr,
    server: quinn::ServerConfig,
) -> io::Result<quinn::Endpoint> {
    let socket = UdpSocket::bind(address)?;
    let state = quinn::udp::UdpSocketState::new((&socket).into())?;
    // The system may give less; that costs speed, nothing else.
    let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
    let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);

    let mut endpoint = quinn::EndpointConfig::default();
    endpoint
        .max_udp_payload_size(config.max_udp_payload.max(ETHERNET_PAYLOAD))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    quinn::Endpoint::new(endpoint, Some(server), socket, Arc::new(quinn::TokioRuntime))
}

/// What quinn says for a stream that is dropped unread.
const STREAM_UNWANTED: VarInt = VarInt::from_u32(0);
const STREAM_DONE: VarInt = VarInt::from_u32(1);

/// What any peer may send, whatever is configured here.
const ETHERNET_PAYLOAD: u16 = 1472;

/// More was measured to bring nothing.
const SOCKET_BUFFER: usize = 1 << 20;
