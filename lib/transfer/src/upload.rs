//! One piece, from the store to a peer.

use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Digest, PeerId, PieceIndex};
use shoal_store::{Entry, ReadError};
use shoal_swarm::Priority;
use tokio_util::sync::CancellationToken;

use crate::limit::Limiter;
use crate::link::{Link, SendPieceError};
use crate::metrics::Metrics;
use crate::traffic::Traffic;
use crate::wire::PieceHeader;

/// Names an upload; there is at most one of a piece to a peer.
pub(crate) type UploadKey = (PeerId, Digest, PieceIndex);

/// A piece that a peer is to get.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) key: UploadKey,
    /// How urgent the peer said it is.
    pub(crate) priority: Priority,
    pub(crate) egress: Limiter,
    pub(crate) entry: Entry,
    pub(crate) link: Link,
    pub(crate) cancelled: CancellationToken,
    pub(crate) timeout: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) traffic: Arc<Traffic>,
}

/// Why a peer did not get a piece.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("cannot read the piece")]
    Read(#[from] ReadError),
    #[error("cannot send the piece")]
    Send(#[from] SendPieceError),
    #[error("peer takes longer than {0:?}")]
    Slow(Duration),
    #[error("peer cancelled")]
    Cancelled,
}

impl Upload {
    /// Sends the piece. Gives the upload's name back whatever comes of it, and whether the peer has it.
    pub(crate) async fn run(self) -> (UploadKey, bool) {
        let sent = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(UploadError::Cancelled),
            () = tokio::time::sleep(self.timeout) => Err(UploadError::Slow(self.timeout)),
            sent = self.send() => sent,
        };
        let (peer, digest, piece) = self.key;
        match &sent {
            Ok(()) | Err(UploadError::Cancelled | UploadError::Send(SendPieceError::Stopped)) => {}
            Err(error) => {
                tracing::debug!(%peer, %digest, %piece, error = error as &dyn std::error::Error, "piece not sent");
            }
        }
        (self.key, sent.is_ok())
    }

    async fn send(&self) -> Result<(), UploadError> {
        let (_, digest, piece) = self.key;
        let length = self.entry.metainfo().geometry().piece(piece).map_or(0, |piece| piece.length);
        let header = PieceHeader { digest, piece, length };
        let mut sender = self.link.begin_piece(header, self.priority, &self.egress).await?;
        let mut sent = 0;
        while sent < length {
            let part = self.entry.read_part(piece, sent..sent + PART).await?;
            let length = part.len() as u32;
            sender.send(part).await?;
            sent += length;
            self.traffic.send(length.into());
        }
        sender.finish().await?;
        self.metrics.bytes_sent.inc_by(length.into());
        Ok(())
    }
}

/// How much of a piece is read at once: what stays in a processor's cache until it is encrypted. Pieces have up to 16 MiB, and
/// dozens may be on their way out at a time; of each no more than three parts are in memory.
const PART: u32 = 256 << 10;
