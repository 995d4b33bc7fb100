//! TLS 1.3 over TCP under the wire protocol: the listener and its connections. The only file that tunes TCP.
//!
//! Where the path is short it carries twice what QUIC does for half of the processor time: the kernel cuts, orders and
//! acknowledges. Both sides always show certificates; who they are is checked in `handshake`. All of one direction is one
//! stream, so the pieces of a connection go one after the other, in chunks between which messages find their way.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use shoal_core::{PeerId, Role};
use shoal_identity::Identity;
use shoal_swarm::Priority;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::endpoint::BindError;
use crate::frames::{FrameReader, write_frame};
use crate::limit::Limiter;
use crate::link::SendPieceError;
use crate::wire::{self, CloseReason, Frame, PieceHeader};

/// The TCP half of the peer port. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Endpoint {
    listener: Arc<TcpListener>,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    tuning: Tuning,
}

/// What is set on each socket.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    keep_alive_interval: Duration,
    idle_timeout: Duration,
}

/// A connection that TLS protects, before anything was said on it.
pub(crate) struct Secured {
    stream: Box<TlsStream<BufReader<TcpStream>>>,
    remote_address: SocketAddr,
    round_trip: Option<Duration>,
}

/// One connection to a peer. Cheap to clone; all clones are one connection.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    remote_address: SocketAddr,
    round_trip: Option<Duration>,
    pieces: mpsc::Sender<Outgoing>,
    reason: OnceLock<CloseReason>,
    ending: CancellationToken,
}

/// A connection with both its directions.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) input: FrameReader<Input>,
    pub(crate) output: Output,
    /// What [`Link::send_piece`] was given.
    pub(crate) pieces: mpsc::Receiver<Outgoing>,
}

/// What the peer sends.
pub(crate) type Input = ReadHalf<Box<TlsStream<BufReader<TcpStream>>>>;

/// What is sent to the peer.
pub(crate) type Output = WriteHalf<Box<TlsStream<BufReader<TcpStream>>>>;

/// A piece that is to go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: PieceHeader,
    /// Its bytes. If they end early, the rest does not go.
    pub(crate) parts: mpsc::Receiver<Bytes>,
    pub(crate) priority: Priority,
    pub(crate) egress: Limiter,
    /// Closed when nobody wants it to go any more.
    pub(crate) sent: oneshot::Sender<()>,
}

/// A piece that is being sent.
#[derive(Debug)]
pub(crate) struct PieceSender {
    parts: mpsc::Sender<Bytes>,
    is_sent: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").field("remote_address", &self.remote_address).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn bind(config: &Config, address: SocketAddr, identity: &Identity) -> Result<Self, BindError> {
        let listener =
            listen(address).map_err(|source| BindError::Listen { address, protocol: "tcp", source })?;
        let client = identity.client_config(&[Role::Agent, Role::Origin], &[wire::ALPN]);
        let tuning =
            Tuning { keep_alive_interval: config.keep_alive_interval, idle_timeout: config.idle_timeout };
        Ok(Self {
            listener: Arc::new(listener),
            acceptor: TlsAcceptor::from(identity.server_config(&[wire::ALPN])),
            connector: TlsConnector::from(client),
            tuning,
        })
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Dials. The name in the handshake is the peer's id, so that TLS tickets are kept by peer; nobody checks it.
    pub(crate) async fn dial(&self, address: SocketAddr, peer: &PeerId) -> io::Result<Secured> {
        let name = ServerName::try_from(peer.to_string()).map_err(io::Error::other)?;
        let began = tokio::time::Instant::now();
        let stream = TcpStream::connect(address).await?;
        // What the kernel needs for its handshake is one round trip.
        let round_trip = Some(began.elapsed());
        self.tuning.apply(&stream, address)?;
        let stream = self.connector.connect(name, buffered(stream)).await?;
        Ok(Secured { stream: Box::new(stream.into()), remote_address: address, round_trip })
    }

    /// The next caller, before any handshake.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    /// A caller proves who it is.
    pub(crate) async fn secure(&self, stream: TcpStream, address: SocketAddr) -> io::Result<Secured> {
        self.tuning.apply(&stream, address)?;
        let stream = self.acceptor.accept(buffered(stream)).await?;
        Ok(Secured { stream: Box::new(stream.into()), remote_address: address, round_trip: None })
    }
}

impl Tuning {
    /// A peer that is gone without a word is found like over QUIC: by probes when nothing is under way, and by what is
    /// not acknowledged.
    fn apply(self, stream: &TcpStream, address: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        let interval = self.keep_alive_interval;
        let probes = self.idle_timeout.as_secs_f64() / interval.as_secs_f64().max(1.0);
        let keepalive = TcpKeepalive::new()
            .with_time(interval)
            .with_interval(interval)
            .with_retries((probes as u32).clamp(1, MAX_PROBES));
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(self.idle_timeout))?;
        // What waits in the kernel cannot be overtaken by a message.
        socket.set_tcp_notsent_lowat(UNSENT)?;
        if address.ip().to_canonical().is_loopback() {
            // A pacing default (BBR) halves what loopback carries. An error means that the kernel has no other.
            let _ = socket.set_tcp_congestion(b"cubic");
        }
        Ok(())
    }
}

impl Secured {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.remote_address
    }

    /// The certificate that the peer proved to hold.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let (_, session) = self.stream.get_ref();
        session.peer_certificates()?.first().cloned().map(CertificateDer::into_owned)
    }

    pub(crate) fn into_line(self) -> Line {
        let (sender, pieces) = mpsc::channel(PIECES);
        let link = Link(Arc::new(Shared {
            remote_address: self.remote_address,
            round_trip: self.round_trip,
            pieces: sender,
            reason: OnceLock::new(),
            ending: CancellationToken::new(),
        }));
        let (input, output) = tokio::io::split(self.stream);
        Line { link, input: FrameReader::new(input), output, pieces }
    }
}

impl Link {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.remote_address
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.0.round_trip
    }

    /// Begins a piece; it goes when those before it have gone.
    pub(crate) async fn begin_piece(
        &self,
        header: PieceHeader,
        priority: Priority,
        egress: &Limiter,
    ) -> Result<PieceSender, SendPieceError> {
        let (parts, outgoing_parts) = mpsc::channel(PARTS);
        let (sent, is_sent) = oneshot::channel();
        let outgoing = Outgoing { header, parts: outgoing_parts, priority, egress: egress.clone(), sent };
        self.0.pieces.send(outgoing).await.map_err(|_| SendPieceError::Lost)?;
        Ok(PieceSender { parts, is_sent })
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        // An error means that it is being closed already.
        let _ = self.0.reason.set(reason);
        self.0.ending.cancel();
    }

    /// Why this side ends the connection, if it does.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.0.reason.get().copied()
    }

    /// Until this side ends the connection.
    pub(crate) async fn ending(&self) {
        self.0.ending.cancelled().await;
    }
}

impl PieceSender {
    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<(), SendPieceError> {
        self.parts.send(bytes).await.map_err(|_| SendPieceError::Lost)
    }

    pub(crate) async fn finish(self) -> Result<(), SendPieceError> {
        self.is_sent.await.map_err(|_| SendPieceError::Lost)
    }
}

impl Line {
    /// Says why, and hangs up.
    pub(crate) async fn end(self, reason: CloseReason) {
        let Self { input, mut output, .. } = self;
        hang_up(input, async {
            write_frame(&mut output, &Frame::Close(reason)).await?;
            output.shutdown().await
        })
        .await;
    }
}

/// Lets the last words go out, and reads what is still on its way: the kernel would take the words back if it were left.
pub(crate) async fn hang_up<E>(input: FrameReader<Input>, words: impl Future<Output = Result<(), E>>) {
    let hanging_up = async {
        if words.await.is_ok() {
            let (input, _) = input.into_rest();
            // An error means that the peer has gone, as it was told to.
            let _ = tokio::io::copy(&mut input.take(MAX_DRAINED), &mut tokio::io::sink()).await;
        }
    };
    // The peer has had its time, whether it used it or not.
    let _ = timeout(LAST_WORDS, hanging_up).await;
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// rustls asks for 4 KiB at a time; the kernel is asked for more.
fn buffered(stream: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ_BUFFER, stream)
}

/// A read of four TLS records; a thousand connections have 64 MiB of it.
const READ_BUFFER: usize = 64 << 10;

/// Bytes that the kernel holds of a connection and has not sent: as much as a fast path sends until it is woken for more.
const UNSENT: u32 = 256 << 10;

/// Pieces that wait for their turn: the next one is there when the last has gone.
const PIECES: usize = 1;

/// Parts of one piece that wait: the next one is there when the last has gone.
const PARTS: usize = 1;

/// More probes than that find nothing out.
const MAX_PROBES: u32 = 16;

/// How long a peer may take to hear why it is let go.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a peer that is let go may still have sent: the buffers of both kernels.
const MAX_DRAINED: u64 = 16 << 20;
