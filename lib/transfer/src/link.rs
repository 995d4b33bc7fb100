//! What the rest of the data plane knows of a connection, whichever transport carries it.
//!
//! The seam is small: messages in order, pieces out, pieces in, an end with a reason. [`Line`] is a connection during
//! the handshake, and what an established one is run on; [`Link`] is the handle by which others send pieces and end it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use shoal_swarm::Priority;

use crate::frames::FrameError;
use crate::limit::Limiter;
use crate::wire::{CloseReason, Frame, PieceHeader};
use crate::{quic, tcp};

/// What carries the wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// TLS 1.3 over TCP.
    Tcp,
}

/// One connection to a peer. Cheap to clone; all clones are one connection.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    Quic(quic::Link),
    Tcp(tcp::Link),
}

/// A connection and all of its ends that are not shared.
#[derive(Debug)]
pub(crate) enum Line {
    Quic(quic::Line),
    Tcp(tcp::Line),
}

/// A piece that is being sent. When dropped before it is finished, the peer is told that the rest does not come: a piece
/// never ends early in silence.
#[derive(Debug)]
pub(crate) enum PieceSender {
    Quic(quic::PieceSender),
    Tcp(tcp::PieceSender),
}

/// The peer ended the connection, or it broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error(transparent)]
    Quic(#[from] quinn::ConnectionError),
    #[error("closed by peer: {}", .0.text())]
    Closed(CloseReason),
}

/// A piece was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendPieceError {
    /// The connection is gone.
    #[error("connection lost")]
    Lost,
    /// The stream broke.
    #[error("stream broke")]
    Stream(#[from] quinn::WriteError),
    /// The peer wants it no more.
    #[error("peer stopped the piece")]
    Stopped,
}

impl From<quinn::ConnectionError> for SendPieceError {
    /// The connection itself says why, once.
    fn from(_: quinn::ConnectionError) -> Self {
        Self::Lost
    }
}

impl Link {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(link) => link.remote_address(),
            Self::Tcp(link) => link.remote_address(),
        }
    }

    /// How long a packet and its answer take, as far as it was measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Quic(link) => Some(link.round_trip()),
            Self::Tcp(link) => link.round_trip(),
        }
    }

    /// Begins a piece.
    pub(crate) async fn begin_piece(
        &self,
        header: PieceHeader,
        priority: Priority,
        egress: &Limiter,
    ) -> Result<PieceSender, SendPieceError> {
        Ok(match self {
            Self::Quic(link) => PieceSender::Quic(link.begin_piece(&header, priority, egress).await?),
            Self::Tcp(link) => PieceSender::Tcp(link.begin_piece(header, priority, egress).await?),
        })
    }

    /// Ends the connection, in both directions. Only the first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        match self {
            Self::Quic(link) => link.close(reason),
            Self::Tcp(link) => link.close(reason),
        }
    }
}

impl PieceSender {
    /// The next bytes of it, without a copy. Waits as long as there is no room for them.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<(), SendPieceError> {
        match self {
            Self::Quic(sender) => sender.send(bytes).await,
            Self::Tcp(sender) => sender.send(bytes).await,
        }
    }

    /// All of it was sent. Over QUIC it waits until the peer has it, over TCP until the system has taken it.
    pub(crate) async fn finish(self) -> Result<(), SendPieceError> {
        match self {
            Self::Quic(sender) => sender.finish().await,
            Self::Tcp(sender) => sender.finish().await,
        }
    }
}

impl Line {
    pub(crate) fn link(&self) -> Link {
        match self {
            Self::Quic(line) => Link::Quic(line.link.clone()),
            Self::Tcp(line) => Link::Tcp(line.link.clone()),
        }
    }

    /// The next frame; `None` where the peer ended its direction between two frames.
    pub(crate) async fn hear(&mut self) -> Result<Option<Frame>, FrameError> {
        match self {
            Self::Quic(line) => line.input.next().await,
            Self::Tcp(line) => line.input.next().await,
        }
    }

    pub(crate) async fn say(&mut self, frame: &Frame) -> Result<(), FrameError> {
        Ok(match self {
            Self::Quic(line) => crate::frames::write_frame(&mut line.output, frame).await,
            Self::Tcp(line) => crate::frames::write_frame(&mut line.output, frame).await,
        }?)
    }

    /// Ends a connection that nothing runs.
    pub(crate) fn turn_away(self, reason: CloseReason) {
        match self {
            Self::Quic(line) => line.link.close(reason),
            Self::Tcp(line) => {
                // It takes a moment that is bounded, and nobody has to wait for it.
                tokio::spawn(line.end(reason));
            }
        }
    }
}
