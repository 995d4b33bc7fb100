//! An established connection: messages in, messages out, pieces in. One task runs it; it ends as a whole.
//!
//! What the peer says becomes a [`Note`] to the node, in order, and the last note is `Closed`. Nothing that the peer
//! sends has an effect beyond this connection. Pieces out are in `upload`.

use std::sync::Arc;

use bytes::BytesMut;
use quinn::{RecvStream, SendStream};
use shoal_core::{Digest, PeerId, PieceIndex};
use shoal_swarm::{Message, PieceOutcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::arrival::Arrivals;
use crate::frames::{FrameError, FrameReader};
use crate::quic::{CloseReason, Link};
use crate::wire::{Frame, WireError};

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
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Lost(#[from] quinn::ConnectionError),
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
    #[error("let go by this node")]
    LetGo,
}

/// The streams of an established connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) link: Link,
    pub(crate) input: FrameReader<RecvStream>,
    pub(crate) output: SendStream,
    pub(crate) messages: mpsc::Receiver<Frame>,
    pub(crate) arrivals: Arc<Arrivals>,
}

impl Connection {
    /// Runs until the connection ends, for whatever reason.
    pub(crate) async fn run(self) {
        let Self { link, input, output, messages, arrivals } = self;
        let mut pieces = JoinSet::new();
        let fault = tokio::select! {
            fault = read(input, &arrivals) => fault,
            fault = write(output, messages) => fault,
            fault = accept(&link, &arrivals, &mut pieces) => fault,
        };
        // What a stream reports is often only that the connection is gone; the connection says why.
        let fault = link.end().map_or(fault, Fault::Lost);
        link.close(fault.reason());
        // Pieces that are here in full are still stored and noted; the others end with the link.
        while pieces.join_next().await.is_some() {}
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
            | Self::Frame(FrameError::Stream(_) | FrameError::Wire(WireError::Ended)) => false,
            Self::Frame(FrameError::Wire(_))
            | Self::NoHeader
            | Self::Unsolicited { .. }
            | Self::PieceLength { .. }
            | Self::PieceEnd { .. } => true,
        }
    }

    fn reason(&self) -> CloseReason {
        if self.is_violation() { CloseReason::Protocol } else { CloseReason::Idle }
    }
}

async fn read(mut input: FrameReader<RecvStream>, arrivals: &Arrivals) -> Fault {
    let connection = arrivals.connection;
    loop {
        let message = match input.next().await {
            Ok(Some(Frame::Message(message))) => message,
            Ok(Some(frame)) => return FrameError::from(WireError::OutOfPlace(frame.kind())).into(),
            Ok(None) => return FrameError::from(WireError::Ended).into(),
            Err(error) => return error.into(),
        };
        if arrivals.notes.send(Note::Message { connection, message }).await.is_err() {
            return Fault::LetGo;
        }
    }
}

async fn write(mut output: SendStream, mut messages: mpsc::Receiver<Frame>) -> Fault {
    let mut bytes = BytesMut::new();
    while let Some(frame) = messages.recv().await {
        frame.encode(&mut bytes);
        while bytes.len() < WRITE_LENGTH
            && let Ok(frame) = messages.try_recv()
        {
            frame.encode(&mut bytes);
        }
        if let Err(error) = output.write_all(&bytes).await {
            return FrameError::Stream(error.into()).into();
        }
        bytes.clear();
    }
    Fault::LetGo
}

async fn accept(link: &Link, arrivals: &Arc<Arrivals>, pieces: &mut JoinSet<Result<(), Fault>>) -> Fault {
    loop {
        tokio::select! {
            stream = link.accept_piece() => match stream {
                Ok(stream) => {
                    let arrivals = Arc::clone(arrivals);
                    pieces.spawn(async move { arrivals.take(stream).await });
                }
                Err(error) => return error.into(),
            },
            Some(taken) = pieces.join_next() => match taken {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return fault,
                Err(error) => tracing::error!(%error, peer = %arrivals.connection.peer, "piece task failed"),
            },
        }
    }
}

/// Messages that wait are written together, up to about this many bytes.
const WRITE_LENGTH: usize = 16 << 10;
