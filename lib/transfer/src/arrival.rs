//! One piece, from the head of its stream to the store.
//!
//! Nothing is allocated before the piece is known to be one that this peer was asked for, of the length that the
//! metainfo gives it. The store checks its hash and writes it on its own blocking threads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use quinn::RecvStream;
use shoal_core::{PieceIndex, Role};
use shoal_store::{Partial, WriteError, Written};
use shoal_swarm::{Message, PieceOutcome};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::connection::{ConnectionId, Fault, Note};
use crate::frames::FrameReader;
use crate::metrics::{Metrics, PieceResult};
use crate::quic::{Stop, is_reset, stop};
use crate::requests::{Arriving, Requests, Wanted};
use crate::wire::{Frame, PieceHeader, WireError};

/// What the pieces of one connection need on their way in.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) connection: ConnectionId,
    pub(crate) role: Role,
    pub(crate) requests: Arc<Requests>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) metrics: Metrics,
}

/// How the reading of a piece's bytes came out.
enum Body {
    Whole(Bytes),
    /// The sender gave it up.
    Reset,
    /// Nobody needs it any more, or the connection is gone.
    Abandoned,
}

impl Arrivals {
    /// Takes one stream to its end. An error is the peer's fault.
    pub(crate) async fn take(&self, stream: RecvStream) -> Result<(), Fault> {
        let mut input = FrameReader::new(stream);
        let Some(header) = read_header(&mut input).await? else { return Ok(()) };
        let (stream, start) = input.into_rest();
        match self.requests.arriving(header.digest, header.piece) {
            Arriving::Wanted(wanted) => self.take_wanted(wanted, header, stream, start).await,
            Arriving::Cancelled => {
                stop(stream, Stop::Unwanted);
                Ok(())
            }
            Arriving::Unsolicited => Err(Fault::Unsolicited { digest: header.digest, piece: header.piece }),
        }
    }

    async fn take_wanted(
        &self,
        wanted: Wanted,
        header: PieceHeader,
        stream: RecvStream,
        start: BytesMut,
    ) -> Result<(), Fault> {
        check_length(&wanted.partial, &header)?;
        let body = tokio::select! {
            biased;
            () = wanted.cancelled.cancelled() => Body::Abandoned,
            body = read_body(stream, start, &header) => body?,
        };
        let PieceHeader { digest, piece, .. } = header;
        match body {
            Body::Whole(bytes) => {
                self.metrics.received(self.role, bytes.len() as u64);
                let outcome = self.store(&wanted.partial, piece, bytes).await;
                self.requests.end(digest, piece);
                self.note(Note::Received { connection: self.connection, digest, piece, outcome }).await;
            }
            Body::Reset => {
                self.requests.end(digest, piece);
                let message = Message::Reject { digest, piece };
                self.note(Note::Message { connection: self.connection, message }).await;
            }
            Body::Abandoned => {}
        }
        Ok(())
    }

    async fn store(&self, partial: &Partial, piece: PieceIndex, bytes: Bytes) -> PieceOutcome {
        let (result, outcome) = match partial.write_piece(piece, bytes).await {
            Ok(Written::New) => (PieceResult::Good, PieceOutcome::Good),
            Ok(Written::Duplicate) => (PieceResult::Duplicate, PieceOutcome::Good),
            Err(WriteError::Corrupt { .. }) => (PieceResult::Corrupt, PieceOutcome::Corrupt),
            Err(error) => {
                let digest = partial.metainfo().digest();
                tracing::error!(%digest, %piece, error = &error as &dyn std::error::Error, "piece not stored");
                (PieceResult::NotStored, PieceOutcome::NotStored)
            }
        };
        self.metrics.piece(result);
        outcome
    }

    async fn note(&self, note: Note) {
        // The node takes no more notes when it stops, and then nobody needs this one.
        let _ = self.notes.send(note).await;
    }
}

/// The head of the stream; `None` where the sender gave it up at once, or the connection is gone.
async fn read_header(input: &mut FrameReader<RecvStream>) -> Result<Option<PieceHeader>, Fault> {
    use crate::frames::FrameError;

    match timeout(HEADER_TIMEOUT, input.next()).await {
        Err(_) => Err(Fault::NoHeader),
        Ok(Ok(Some(Frame::Piece(header)))) => Ok(Some(header)),
        Ok(Ok(Some(frame))) => Err(FrameError::from(WireError::OutOfPlace(frame.kind())).into()),
        Ok(Ok(None)) => Err(Fault::NoHeader),
        Ok(Err(FrameError::Wire(WireError::Ended))) => Err(Fault::NoHeader),
        Ok(Err(error @ FrameError::Wire(_))) => Err(error.into()),
        // The control stream tells if it is the connection.
        Ok(Err(FrameError::Stream(_))) => Ok(None),
    }
}

fn check_length(partial: &Partial, header: &PieceHeader) -> Result<(), Fault> {
    let expected = partial.metainfo().geometry().piece(header.piece).map_or(0, |piece| piece.length);
    if header.length == expected && expected > 0 {
        return Ok(());
    }
    let PieceHeader { digest, piece, length: found } = *header;
    Err(Fault::PieceLength { digest, piece, expected, found })
}

/// Reads exactly the piece, into one buffer of its length. `start` was read together with the header.
async fn read_body(mut stream: RecvStream, start: BytesMut, header: &PieceHeader) -> Result<Body, Fault> {
    let PieceHeader { digest, piece, length } = *header;
    let wrong_end = || Fault::PieceEnd { digest, piece };
    let length = length as usize;
    if start.len() > length {
        return Err(wrong_end());
    }
    let mut bytes = BytesMut::with_capacity(length);
    bytes.extend_from_slice(&start);
    let mut rest = (&mut stream).take((length - start.len()) as u64);
    while bytes.len() < length {
        match rest.read_buf(&mut bytes).await {
            Ok(0) => return Err(wrong_end()),
            Ok(_) => {}
            Err(error) if is_reset(&error) => return Ok(Body::Reset),
            Err(_) => return Ok(Body::Abandoned),
        }
    }
    // The end mostly comes with the last bytes; it is not waited for.
    let after: Option<io::Result<usize>> =
        stream.read(&mut [0]).map(|read| Ok(read?.unwrap_or(0))).now_or_never();
    if let Some(Ok(1..)) = after {
        return Err(wrong_end());
    }
    stop(stream, Stop::Done);
    Ok(Body::Whole(bytes.freeze()))
}

/// How long a stream may be open without saying which piece it carries; longer than any packet loss that the
/// connection survives.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
