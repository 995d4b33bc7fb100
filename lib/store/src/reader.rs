//! In-order bytes of a blob, whole or still arriving: it waits for pieces, and holds one chunk in memory. Every byte is of a
//! whole blob or of a marked piece.
//!
//! It keeps its file open: a commit or a delete of the blob does not touch it. It pins the blob: none is evicted under it.
//! What is in the page cache is copied on the thread that asks, what is not is read on a blocking one: a change of threads
//! costs as much as the copy.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use shoal_core::{Digest, Geometry, PieceIndex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::demand::Position;
use crate::disk;
use crate::partial::Partial;
use crate::progress::{Gone, Phase, Progress};
use crate::usage::Pin;

/// In-order bytes of a range; waits for pieces of a partial.
#[derive(Debug)]
pub struct BlobReader {
    digest: Digest,
    /// What was not read yet; what is being read counts as read.
    left: Range<u64>,
    source: Source,
    from_disk: Option<JoinHandle<io::Result<Bytes>>>,
    /// `None` only where there is nothing to read.
    _pin: Option<Pin>,
}

#[derive(Debug)]
enum Source {
    Whole(Arc<File>),
    Arriving(Arriving),
    /// It could not be opened; told at the first read.
    Broken(ReadError),
    /// It came to an end, or told its error.
    Ended,
}

/// What a reader knows of the partial that it reads.
#[derive(Debug)]
struct Arriving {
    geometry: Geometry,
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    position: Position,
    /// Whether this reader would have the complete blob at its end: then it has to wait for the proof.
    is_complete: bool,
    known_failures: u64,
}

/// What a reader can do next.
enum Next {
    Read(Arc<File>, Range<u64>),
    Wait,
    End,
}

/// Why bytes do not come.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("cannot read {digest}")]
    Disk {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: io::Error,
    },
    /// The blob has fewer pieces.
    #[error("{digest} has no piece {piece}")]
    NoSuchPiece {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// The piece is not in yet.
    #[error("piece {piece} of {digest} is not here yet")]
    Missing {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// The fetch gave up before the bytes were there.
    #[error("fetching {digest} failed: {reason}")]
    FetchFailed {
        /// Blob.
        digest: Digest,
        /// What the fetch said.
        reason: Arc<str>,
    },
    /// All pieces were right, and together they were another blob: the metainfo lied. What was read is worth nothing.
    #[error("content has digest {found}, not {expected}")]
    WrongDigest {
        /// Said.
        expected: Digest,
        /// Is.
        found: Digest,
    },
    /// The blob was deleted, or the store closed, before it was read.
    #[error("{digest} is gone")]
    Gone {
        /// Blob.
        digest: Digest,
    },
}

impl BlobReader {
    pub(crate) fn of_blob(
        digest: Digest,
        range: Range<u64>,
        length: u64,
        file: Result<(File, Pin), ReadError>,
    ) -> Self {
        let (source, pin) = match file {
            Ok((file, pin)) => (Source::Whole(Arc::new(file)), Some(pin)),
            Err(error) => (Source::Broken(error), None),
        };
        Self { digest, left: clamped(range, length), source, from_disk: None, _pin: pin }
    }

    pub(crate) fn of_partial(partial: &Partial, range: Range<u64>) -> Self {
        let (digest, geometry) = (*partial.metainfo().digest(), *partial.metainfo().geometry());
        let left = clamped(range, geometry.length());
        let Some(pin) = partial.0.usage.pin() else {
            let source = Source::Broken(ReadError::Gone { digest });
            return Self { digest, left, source, from_disk: None, _pin: None };
        };
        let progress = partial.0.progress.subscribe();
        let known_failures = progress.borrow().failures();
        let source = Source::Arriving(Arriving {
            geometry,
            file: partial.0.file.clone(),
            progress,
            position: partial.demand_positions().enter(geometry.pieces_of(left.clone())),
            is_complete: left == (0..geometry.length()),
            known_failures,
        });
        Self { digest, left, source, from_disk: None, _pin: Some(pin) }
    }

    /// Whether the blob went between its look-up and this reader's making: look it up again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.source, Source::Broken(ReadError::Gone { .. }))
    }

    /// The next bytes in order (at most 256 KiB), `None` at the end of the range. Never a byte that was not verified.
    ///
    /// After an error there is nothing more. No byte is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        let next = self.try_next().await.transpose();
        if !matches!(next, Some(Ok(_))) {
            self.source = Source::Ended;
        }
        next
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
        stream::unfold(self, |mut reader| async move { reader.next().await.map(|item| (item, reader)) })
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while self.from_disk.is_none() {
            match self.source.look(self.digest, &self.left)? {
                Next::Read(file, range) => {
                    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                    let read = disk::try_read_at(&file, range.start, length);
                    let read = read.map_err(|source| ReadError::Disk { digest: self.digest, source })?;
                    if let Some(bytes) = read {
                        self.advance(range.end);
                        return Ok(Some(bytes));
                    }
                    self.start(file, range);
                }
                Next::Wait => self.source.changed(self.digest).await?,
                Next::End => return Ok(None),
            }
        }
        let Some(read) = &mut self.from_disk else { return Ok(None) };
        let read = read.await;
        self.from_disk = None;
        let bytes = read.map_err(io::Error::other).and_then(|read| read);
        let bytes = bytes.map_err(|source| ReadError::Disk { digest: self.digest, source })?;
        Ok(Some(bytes))
    }

    /// Begins a read of what has to come from the disk.
    fn start(&mut self, file: Arc<File>, range: Range<u64>) {
        self.advance(range.end);
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        self.from_disk = Some(tokio::task::spawn_blocking(move || {
            let read = disk::read_at(&file, range.start, length);
            disk::advise(&file, range.end);
            read
        }));
    }

    fn advance(&mut self, to: u64) {
        self.left.start = to;
        if let Source::Arriving(arriving) = &mut self.source {
            arriving.position.move_to(arriving.geometry.pieces_of(self.left.clone()));
        }
    }
}

impl Source {
    /// What can be read now. An error is given once.
    fn look(&mut self, digest: Digest, left: &Range<u64>) -> Result<Next, ReadError> {
        match self {
            Self::Ended => Ok(Next::End),
            Self::Whole(_) if left.is_empty() => Ok(Next::End),
            Self::Whole(file) => Ok(Next::Read(file.clone(), left.start..left.end.min(left.start + CHUNK))),
            Self::Arriving(arriving) => arriving.look(digest, left),
            Self::Broken(_) => match std::mem::replace(self, Self::Ended) {
                Self::Broken(error) => Err(error),
                _ => Ok(Next::End),
            },
        }
    }

    async fn changed(&mut self, digest: Digest) -> Result<(), ReadError> {
        let Self::Arriving(arriving) = self else { return Ok(()) };
        // The sender goes with the last handle and the store: then nothing more will come.
        arriving.progress.changed().await.map_err(|_| ReadError::Gone { digest })
    }
}

impl Arriving {
    fn look(&mut self, digest: Digest, left: &Range<u64>) -> Result<Next, ReadError> {
        // What is seen here is not waited for again.
        let progress = self.progress.borrow_and_update();
        let file = match progress.phase() {
            Phase::Open | Phase::Failed | Phase::Proved => &self.file,
            Phase::Whole { file, .. } => file,
            Phase::Gone(why) => return Err(ReadError::of_gone(digest, *why)),
        };
        let Some(piece) = self.geometry.piece_at(left.start).filter(|_| !left.is_empty()) else {
            let withheld = is_withheld(&progress, self.is_complete);
            return if withheld { wait(&progress, digest, self.known_failures) } else { Ok(Next::End) };
        };
        let is_last = piece.range().end >= left.end;
        let withheld = is_last && is_withheld(&progress, self.is_complete);
        if withheld || !progress.pieces().contains(piece.index) {
            return wait(&progress, digest, self.known_failures);
        }
        let end = piece.range().end.min(left.end).min(left.start + CHUNK);
        Ok(Next::Read(file.clone(), left.start..end))
    }
}

/// Whether the end of what is read has to wait for the proof: of the whole blob always, and of a part of it where nobody
/// signed its pieces.
fn is_withheld(progress: &Progress, is_complete: bool) -> bool {
    (is_complete || !progress.is_vouched_for()) && !progress.is_proved()
}

fn wait(progress: &Progress, digest: Digest, known_failures: u64) -> Result<Next, ReadError> {
    match progress.failure_since(known_failures) {
        Some(reason) => Err(ReadError::FetchFailed { digest, reason }),
        None => Ok(Next::Wait),
    }
}

impl ReadError {
    pub(crate) fn of_gone(digest: Digest, why: Gone) -> Self {
        match why {
            Gone::WrongDigest(found) => Self::WrongDigest { expected: digest, found },
            Gone::Deleted | Gone::DiskFailed | Gone::Closed => Self::Gone { digest },
        }
    }
}

fn clamped(range: Range<u64>, length: u64) -> Range<u64> {
    let end = range.end.min(length);
    range.start.min(end)..end
}

/// What one read takes: long enough to be worth a system call, short enough to stay in a processor's cache until it is sent.
const CHUNK: u64 = 256 << 10;
