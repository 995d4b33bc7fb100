//! The way of the overlay's bytes: TCP to plausible addresses, counted; the pre-shared key; the gate; many streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{AsyncRead, AsyncWrite, TryFutureExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{Multiaddr, PeerId, Transport, tcp, yamux};
use prometheus::IntCounter;

use crate::overlay::addresses::Belief;
use crate::overlay::gate::Gate;

/// How long a connection may take to be proved: some round trips around the world.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one peer may have open at once: each of our protocols has a few.
const MAX_STREAMS: usize = 64;

/// Counts what goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) received: IntCounter,
    pub(crate) sent: IntCounter,
}

pub(crate) fn build(
    belief: Belief,
    meter: Meter,
    key: PreSharedKey,
    gate: Gate,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(MAX_STREAMS);
    Guarded { inner: tcp, belief }
        .map(move |stream, _| Counted { stream, meter })
        .and_then(move |stream, _| PnetConfig::new(key).handshake(stream).map_err(io::Error::other))
        .upgrade(Version::V1)
        .authenticate(gate)
        .multiplex(streams)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed()
}

/// TCP that goes nowhere but to plausible addresses, whoever named them.
struct Guarded {
    inner: tcp::tokio::Transport,
    belief: Belief,
}

impl Transport for Guarded {
    type Output = <tcp::tokio::Transport as Transport>::Output;
    type Error = <tcp::tokio::Transport as Transport>::Error;
    type ListenerUpgrade = <tcp::tokio::Transport as Transport>::ListenerUpgrade;
    type Dial = <tcp::tokio::Transport as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if self.belief.dialable(&address).is_none() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

/// A connection whose bytes are counted.
struct Counted<S> {
    stream: S,
    meter: Meter,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(count)) = &read {
            self.meter.received.inc_by(*count as u64);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.meter.sent.inc_by(*count as u64);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
