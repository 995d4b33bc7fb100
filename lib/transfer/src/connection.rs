//! An established connection: messages in, messages out, pieces in. One task runs it; it ends as a whole.
//!
//! What the peer says becomes a [`Note`] to the node, in order, and the last note is `Closed`. Nothing that the peer
//! sends has an effect beyond this connection. How messages and pieces share a connection is the transport's: `streams`
//! of QUIC, `chunks` of TCP. Pieces out are in `upload`.

mod chunks;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Digest, PeerId, PieceIndex};
use shoal_store::Arrived;
use shoal_swarm::{Message, PieceOutcome};
use tokio::sync::mpsc;

use crate::arrival::Arrivals;
use crate::frames::FrameError;
use crate::link::{Line, Lost};
use crate::wire::{CloseReason, Frame, WireError};

/// Which connection: the peer, and a number that no other connection of this node ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId {
    pub(crate) peer: PeerId,
    pub(crate) number: u64,
}

/// What tasks tell the node.
#[derive(Debug)]
pub(crate) enum Note {
    /// The peer said this.
    Message { connection: ConnectionId, message: Message },
    /// A piece that the peer was asked for arrived.
    Received { connection: ConnectionId, digest: Digest, piece: PieceIndex, outcome: PieceOutcome },
    /// The connection has ended; its last note.
    Closed { connection: ConnectionId, fault: Fault },
    /// The readers of a blob that is fetched moved.
    Demand { digest: Digest, fetch: u64 },
    /// A blob that is served, and that something else receives, has more pieces, or has come to an end.
    Grew { digest: Digest, arrived: Arrived },
    /// More hashes are known of a blob that is fetched while its origin receives it.
    Learned { digest: Digest, fetch: u64 },
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a piece stream does not say which piece it carries")]
    NoHeader,
    #[error("piece {piece} of {digest} was sent without being asked for")]
    Unsolicited { digest: Digest, piece: PieceIndex },
    #[error("piece {piece} of {digest} was announced with {found} bytes and has {expected}")]
    PieceLength { digest: Digest, piece: PieceIndex, expected: u32, found: u32 },
    #[error("piece {piece} of {digest} ended at another byte than was announced")]
    PieceEnd { digest: Digest, piece: PieceIndex },
    #[error("peer takes nothing for {0:?}")]
    Slow(Duration),
    #[error("let go by this node")]
    LetGo,
}

/// An established connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) line: Line,
    pub(crate) messages: mpsc::Receiver<Frame>,
    pub(crate) arrivals: Arc<Arrivals>,
    /// How long the peer may take nothing, where the transport does not see to it.
    pub(crate) patience: Duration,
}

impl Connection {
    /// Runs until the connection ends, for whatever reason.
    pub(crate) async fn run(self) {
        let Self { line, messages, arrivals, patience } = self;
        let fault = match line {
            Line::Quic(line) => streams::run(line, messages, &arrivals).await,
            Line::Tcp(line) => chunks::run(line, messages, &arrivals, patience).await,
        };
        let connection = arrivals.connection;
        // An error means that the node has stopped.
        let _ = arrivals.notes.send(Note::Closed { connection, fault }).await;
    }
}

impl Fault {
    /// Whether the peer did what no honest one does.
    pub(crate) fn is_violation(&self) -> bool {
        match self {
            Self::Lost(_)
            | Self::LetGo
            | Self::Slow(_)
            | Self::Frame(FrameError::Stream(_) | FrameError::Wire(WireError::Ended)) => false,
            Self::Frame(FrameError::Wire(_))
            | Self::NoHeader
            | Self::Unsolicited { .. }
            | Self::PieceLength { .. }
            | Self::PieceEnd { .. } => true,
        }
    }

    fn reason(&self) -> CloseReason {
        match self {
            Self::Slow(_) => CloseReason::TooSlow,
            fault if fault.is_violation() => CloseReason::Protocol,
            _ => CloseReason::Idle,
        }
    }
}

/// The peer said something. An error means that the node has stopped.
async fn hear(arrivals: &Arrivals, message: Message) -> Result<(), Fault> {
    let note = Note::Message { connection: arrivals.connection, message };
    arrivals.notes.send(note).await.map_err(|_| Fault::LetGo)
}

/// Messages that wait are written together, up to about this many bytes.
const WRITE_LENGTH: usize = 16 << 10;
