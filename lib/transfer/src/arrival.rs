//! One piece, from its head to the store.
//!
//! Nothing is allocated before the piece is known to be one that this peer was asked for, of the length that the
//! metainfo gives it. The store checks its hash and writes it on its own blocking threads.

use std::sync::Arc;

use bytes::Bytes;
use shoal_core::{PieceIndex, Role};
use shoal_store::{Partial, WriteError, Written};
use shoal_swarm::{Message, PieceOutcome};
use tokio::sync::mpsc;

use crate::connection::{ConnectionId, Fault, Note};
use crate::limit::Limiter;
use crate::metrics::{Metrics, PieceResult};
use crate::requests::{Arriving, Requests, Wanted};
use crate::traffic::Traffic;
use crate::wire::PieceHeader;

/// What the pieces of one connection need on their way in.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) connection: ConnectionId,
    pub(crate) role: Role,
    pub(crate) requests: Arc<Requests>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) ingress: Limiter,
    pub(crate) metrics: Metrics,
    pub(crate) traffic: Arc<Traffic>,
}

impl Arrivals {
    /// A piece begins to arrive; `None` where it is not needed any more. An error is the peer's fault.
    pub(crate) fn begin(&self, header: &PieceHeader) -> Result<Option<Wanted>, Fault> {
        match self.requests.arriving(header.digest, header.piece) {
            Arriving::Wanted(wanted) => check_length(&wanted.partial, header).map(|()| Some(wanted)),
            Arriving::Cancelled => Ok(None),
            Arriving::Unsolicited => Err(Fault::Unsolicited { digest: header.digest, piece: header.piece }),
        }
    }

    /// So many of its bytes were read; the next are to wait until it is their turn.
    pub(crate) async fn pace(&self, wanted: &Wanted, read: usize) {
        self.traffic.receive(read as u64);
        let mut left = u32::try_from(read).expect("a read is at most a piece");
        while left > 0 {
            left -= self.ingress.take(wanted.priority, left).await;
        }
    }

    /// All of it is here.
    pub(crate) async fn keep(&self, wanted: Wanted, header: PieceHeader, bytes: Bytes) {
        let PieceHeader { digest, piece, .. } = header;
        self.metrics.received(self.role, bytes.len() as u64);
        let outcome = self.store(&wanted.partial, piece, bytes).await;
        self.requests.end(digest, piece);
        let Some(outcome) = outcome else {
            let message = Message::Reject { digest, piece };
            return self.note(Note::Message { connection: self.connection, message }).await;
        };
        self.note(Note::Received { connection: self.connection, digest, piece, outcome }).await;
    }

    /// The sender gave it up.
    pub(crate) async fn given_up(&self, header: PieceHeader) {
        let PieceHeader { digest, piece, .. } = header;
        self.requests.end(digest, piece);
        let message = Message::Reject { digest, piece };
        self.note(Note::Message { connection: self.connection, message }).await;
    }

    /// Nothing if the piece cannot be checked yet: it counts as not sent.
    async fn store(&self, partial: &Partial, piece: PieceIndex, bytes: Bytes) -> Option<PieceOutcome> {
        let (result, outcome) = match partial.write_piece(piece, bytes).await {
            Ok(Written::New) => (PieceResult::Good, PieceOutcome::Good),
            Ok(Written::Duplicate) => (PieceResult::Duplicate, PieceOutcome::Good),
            Err(WriteError::Corrupt { .. }) => (PieceResult::Corrupt, PieceOutcome::Corrupt),
            Err(WriteError::HashUnknown { .. }) => return None,
            Err(error) => {
                let digest = partial.metainfo().digest();
                tracing::error!(%digest, %piece, error = &error as &dyn std::error::Error, "piece not stored");
                (PieceResult::NotStored, PieceOutcome::NotStored)
            }
        };
        self.metrics.piece(result);
        Some(outcome)
    }

    async fn note(&self, note: Note) {
        // The node takes no more notes when it stops, and then nobody needs this one.
        let _ = self.notes.send(note).await;
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
