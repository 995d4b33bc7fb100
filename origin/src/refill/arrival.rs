//! A blob as it comes from a source: in order, piece by piece, into the store's partial. One piece is in memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prometheus::IntCounter;
use shoal_core::{Geometry, PieceIndex};
use shoal_store::{Partial, WriteError};
use tokio::time::{Instant, timeout_at};

use super::late;
use super::memory::Guilt;
use crate::source::{Pace, SourceError};

/// What has come so far.
pub(super) struct Arrival {
    partial: Partial,
    next: PieceIndex,
    /// Whose bytes are in it, by their places; who sent the last comes last.
    sources: Vec<usize>,
    /// Whether an earlier fetch, or life, left some.
    resumed: bool,
}

/// Why no more comes.
#[derive(Debug)]
pub(super) enum Broken {
    /// The source broke off.
    Source(SourceError),
    /// What it sent contradicts what it, or another, said before.
    Lied(&'static str),
    /// The disk.
    Store(WriteError),
}

impl Arrival {
    /// Goes on behind the pieces that are there without a gap; their hashes are learned again where that is needed.
    pub(super) async fn resume(partial: Partial) -> Result<Self, shoal_store::ReadError> {
        let (have, mut next) = (partial.bitfield(), PieceIndex(0));
        while have.contains(next) {
            if partial.hashes(next).is_empty() {
                let piece = partial.read_piece(next).await?;
                // It is there: what is learned is its hash.
                let _ = partial.append_piece(next, piece).await;
            }
            next.0 += 1;
        }
        Ok(Self { partial, resumed: next.0 > 0, next, sources: Vec::new() })
    }

    pub(super) fn partial(&self) -> &Partial {
        &self.partial
    }

    /// The length that was said when it began.
    pub(super) fn length(&self) -> u64 {
        self.partial.metainfo().length()
    }

    /// Where the next piece begins; the length if there is none.
    pub(super) fn offset(&self) -> u64 {
        self.geometry().piece(self.next).map_or(self.length(), |piece| piece.offset)
    }

    /// How many are there.
    pub(super) fn pieces(&self) -> u32 {
        self.next.0
    }

    /// Who may have sent wrong bytes.
    pub(super) fn suspects(&self) -> (Guilt, Vec<usize>) {
        match self.sources.as_slice() {
            [alone] if !self.resumed => (Guilt::Proved, vec![*alone]),
            [suspects @ .., _] if !self.resumed => (Guilt::Suspected, suspects.to_vec()),
            _ => (Guilt::Suspected, Vec::new()),
        }
    }

    /// Takes what a source sends from [`Self::offset`] on, until all pieces are there.
    pub(super) async fn take(
        &mut self,
        source: usize,
        mut bytes: BoxStream<'static, Result<Bytes, SourceError>>,
        pace: Option<&Pace>,
        stall: Duration,
        count: &IntCounter,
    ) -> Result<(), Broken> {
        let mut buffer = BytesMut::new();
        let mut deadline = self.deadline(stall);
        while self.geometry().piece(self.next).is_some() {
            let patience = deadline.min(Instant::now() + stall);
            let mut part = match timeout_at(patience, bytes.next()).await {
                Err(_) => return Err(Broken::Source(late())),
                Ok(None) => return Err(Broken::Source(self.ended(buffer.len()))),
                Ok(Some(part)) => part.map_err(Broken::Source)?,
            };
            count.inc_by(part.len() as u64);
            if let Some(pace) = pace {
                let paying = Instant::now();
                pace.pay(part.len()).await;
                deadline += paying.elapsed();
            }
            while !part.is_empty() {
                let Some(piece) = self.geometry().piece(self.next) else {
                    self.is_from(source);
                    return Err(Broken::Lied("more bytes than it said"));
                };
                let room = piece.length as usize - buffer.len();
                buffer.extend_from_slice(&part.split_to(room.min(part.len())));
                if buffer.len() == piece.length as usize {
                    self.is_from(source);
                    self.append(buffer.split().freeze()).await?;
                    deadline = self.deadline(stall);
                }
            }
        }
        Ok(())
    }

    async fn append(&mut self, piece: Bytes) -> Result<(), Broken> {
        match self.partial.append_piece(self.next, piece).await {
            Ok(_) => {
                self.next.0 += 1;
                Ok(())
            }
            Err(WriteError::Corrupt { .. }) => Err(Broken::Lied("a piece that is another by its hash")),
            Err(error) => Err(Broken::Store(error)),
        }
    }

    fn is_from(&mut self, source: usize) {
        self.sources.retain(|other| *other != source);
        self.sources.push(source);
    }

    /// By when the next piece must have come: a source that sends a byte now and then holds a place that others wait for.
    fn deadline(&self, stall: Duration) -> Instant {
        let length = self.geometry().piece(self.next).map_or(0, |piece| piece.length);
        Instant::now() + stall + Duration::from_secs(u64::from(length) / LEAST_RATE)
    }

    fn ended(&self, rest: usize) -> SourceError {
        let (came, length) = (self.offset() + rest as u64, self.length());
        SourceError::Failed(format!("it ended after {came} of {length} bytes"))
    }

    fn geometry(&self) -> &Geometry {
        self.partial.metainfo().geometry()
    }
}

/// Bytes a second: a source that is slower is as good as none.
const LEAST_RATE: u64 = 8 << 10;
