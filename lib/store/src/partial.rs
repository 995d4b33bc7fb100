//! A blob that is arriving: pieces are checked, written at their place, marked, and read, in any order and at once.
//!
//! A piece is marked after its write returned and never before; only marked pieces are read. Two writers of one piece
//! write the same bytes, since both were checked against the same hash. What becomes of it is in `progress`.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use shoal_core::{Bitfield, Digest, Metainfo, Piece, PieceHash, PieceIndex, Proof, SignedMetainfo};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::blob::{Blob, read_part};
use crate::checkpoint::Unsaved;
use crate::commit::CommitError;
use crate::config::Verify;
use crate::demand::Demand;
use crate::directory::{Directory, locked};
use crate::disk::{self, DiskError, blocking};
use crate::frontier::Frontier;
use crate::hashes::Hashes;
use crate::layout::PartialFile;
use crate::progress::{Gone, Phase, Progress};
use crate::reader::{BlobReader, ReadError};
use crate::space::Space;
use crate::usage::Usage;

/// A blob that is arriving. Cheap to clone; all clones are one partial.
#[derive(Clone, Debug)]
pub struct Partial(pub(crate) Arc<Inner>);

/// What all clones of a partial share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) directory: Arc<Directory>,
    /// Weak, because the index in it holds the partial.
    pub(crate) space: Weak<Space>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) signed: SignedMetainfo,
    pub(crate) file: Arc<File>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Those that the pieces must have: what `signed` lacks of them is learned.
    pub(crate) hashes: Hashes,
    /// Where the blob's own digest is computed, if it is.
    pub(crate) frontier: Option<Frontier>,
    pub(crate) unsaved: Unsaved,
    /// One for each piece that may be checked and written at a time.
    lanes: Arc<Semaphore>,
    /// The kernel lets one thread at a time write to a file, and those who wait for it there spin.
    writing: Mutex<()>,
    durability: Mutex<Durability>,
    demand: Arc<Demand>,
}

/// Whether the disk still has what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// As far as was asked, yes.
    Kept,
    /// A sync failed. The kernel tells that once and may then call the lost pages clean, so it is kept here.
    Lost,
}

/// What to do with a piece whose hash is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    Refuse,
    Learn,
}

/// What became of a piece that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is new and good.
    New,
    /// It was there already; nothing was written.
    Duplicate,
}

/// Why a piece was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The bytes have another hash, or another length than the piece: whoever sent them is broken or hostile.
    #[error("piece {piece} of {digest} is corrupt")]
    Corrupt {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// The blob has fewer pieces.
    #[error("{digest} has no piece {piece}")]
    NoSuchPiece {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// The disk is full; the pieces that are in stay.
    #[error("no space left for piece {piece} of {digest}")]
    NoSpace {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
        /// What the file system said.
        source: DiskError,
    },
    /// The disk refused; the piece is not marked.
    #[error("cannot store piece {piece} of {digest}")]
    Disk {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
        /// What the file system said.
        source: DiskError,
    },
    /// Nobody has said yet which hash the piece must have.
    #[error("the hash of piece {piece} of {digest} is not known yet")]
    HashUnknown {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// The partial was deleted or discarded; `Store::create` begins anew.
    #[error("the partial {digest} is gone")]
    Gone {
        /// Blob.
        digest: Digest,
    },
}

impl Partial {
    /// A partial whose file has its full length already, and the pieces that `progress` says.
    pub(crate) fn new(
        space: &Arc<Space>,
        usage: Arc<Usage>,
        signed: SignedMetainfo,
        file: File,
        progress: Progress,
    ) -> Self {
        let is_vouched_for = signed.metainfo.is_complete();
        let progress = if is_vouched_for { progress } else { progress.not_vouched_for() };
        let frontier = match space.verify {
            // Nobody whose word counts has seen the blob whole.
            Verify::Pieces if is_vouched_for => None,
            Verify::Full | Verify::Pieces => Some(Frontier::new(signed.metainfo.digest().algorithm())),
        };
        Self(Arc::new(Inner {
            directory: space.directory.clone(),
            space: Arc::downgrade(space),
            usage,
            frontier,
            hashes: Hashes::new(&signed),
            signed,
            file: Arc::new(file),
            progress: watch::Sender::new(progress),
            unsaved: Unsaved::default(),
            lanes: Arc::new(Semaphore::new(LANES)),
            writing: Mutex::default(),
            durability: Mutex::new(Durability::Kept),
            demand: Arc::default(),
        }))
    }

    /// Its metainfo, as it was when the partial was made: of one that is still arriving at an origin an outline.
    #[must_use]
    pub fn metainfo(&self) -> &Metainfo {
        self.0.metainfo()
    }

    /// Which pieces are in (a snapshot).
    #[must_use]
    pub fn bitfield(&self) -> Bitfield {
        self.0.progress.borrow().pieces().clone()
    }

    /// Checks the BLAKE3 hash, writes at its place, marks it, wakes readers. Never marks a wrong piece.
    ///
    /// Once begun it goes on even if the future is dropped. Two pieces of a blob are at it at a time; more wait.
    pub async fn write_piece(&self, piece: PieceIndex, bytes: Bytes) -> Result<Written, WriteError> {
        self.take_piece(piece, bytes, Unknown::Refuse).await
    }

    /// The same for who receives a blob that nobody has cut yet, piece after piece: the hash of one that is new is learned from
    /// it. Whether all of them are the blob turns out at the end, by [`Self::commit_signed`].
    pub async fn append_piece(&self, piece: PieceIndex, bytes: Bytes) -> Result<Written, WriteError> {
        self.take_piece(piece, bytes, Unknown::Learn).await
    }

    async fn take_piece(
        &self,
        piece: PieceIndex,
        bytes: Bytes,
        unknown: Unknown,
    ) -> Result<Written, WriteError> {
        let (answer, answered) = oneshot::channel();
        let partial = self.0.clone();
        let digest = partial.digest();
        let lane = partial.lanes.clone().acquire_owned().await.expect("nobody closes it");
        tokio::task::spawn_blocking(move || {
            let written = partial.write(piece, &bytes, unknown);
            drop((bytes, lane));
            let is_new = matches!(written, Ok(Written::New));
            // The answer comes before the hashing, which may have far to go and is nobody's to wait for. Whoever
            // waited may have gone; the piece stays all the same.
            let _ = answer.send(written);
            if is_new {
                partial.advance_frontier();
            }
        });
        // No answer: the runtime is going down.
        answered.await.unwrap_or(Err(WriteError::Gone { digest }))
    }

    /// The bytes of one piece that is in, for a peer.
    pub async fn read_piece(&self, index: PieceIndex) -> Result<Bytes, ReadError> {
        self.read_part(index, 0..u32::MAX).await
    }

    /// Some of them (clamped), by their place in the piece.
    pub async fn read_part(&self, index: PieceIndex, part: Range<u32>) -> Result<Bytes, ReadError> {
        let digest = self.0.digest();
        let piece = self.0.piece(index).ok_or(ReadError::NoSuchPiece { digest, piece: index })?;
        if !self.0.progress.borrow().pieces().contains(index) {
            return Err(ReadError::Missing { digest, piece: index });
        }
        let file = self.0.readable().map_err(|why| ReadError::of_gone(digest, why))?;
        let pin = self.0.usage.pin().ok_or(ReadError::Gone { digest })?;
        read_part(file, pin, piece, part).await.map_err(|source| ReadError::Disk { digest, source })
    }

    /// In-order reader of a byte range (clamped); waits for pieces. Goes on across commit.
    ///
    /// Where the range is the whole blob, its last piece is withheld until the blob's own digest was checked: nobody
    /// ever has a complete body that is wrong.
    #[must_use]
    pub fn reader(&self, range: Range<u64>) -> BlobReader {
        BlobReader::of_partial(self, range)
    }

    /// All pieces in: whole digest proved, fsync, rename, directory fsync. Wrong digest: partial is discarded, readers fail.
    ///
    /// May be called by several at once and again: all get the same result. Goes on even if the future is dropped. Where nobody
    /// has vouched for the pieces yet it waits for that, or for the end of the fetch.
    pub async fn commit(&self) -> Result<Blob, CommitError> {
        let mut progress = self.0.progress.subscribe();
        let vouched =
            |progress: &Progress| progress.is_vouched_for() || !matches!(progress.phase(), Phase::Open);
        // The sender is here as long as this is.
        let _ = progress.wait_for(vouched).await;
        let partial = self.0.clone();
        blocking(move || partial.commit()).await
    }

    /// The same for a blob that came by [`Self::append_piece`]: once its digest is proved, `sign` says so.
    pub async fn commit_signed(
        &self,
        sign: impl FnOnce(&Metainfo) -> Proof + Send + 'static,
    ) -> Result<Blob, CommitError> {
        let partial = self.0.clone();
        blocking(move || partial.commit_signed(sign)).await
    }

    /// Ends the waiting of all readers with an error (the fetch gave up). Pieces stay. A later `create` makes it readable again.
    pub fn fail(&self, reason: &str) {
        self.0.progress.send_if_modified(|progress| progress.fail(reason));
        self.0.unsaved.hurry();
    }

    /// Which pieces the readers wait for or come to next: one range per open reader (next piece .. end of its range), changes announced by `demand_changed`.
    #[must_use]
    pub fn demand(&self) -> Vec<Range<u32>> {
        self.0.demand.pieces()
    }

    /// Completes when `demand` changed since the last call on this handle or clone (coalesced is fine).
    ///
    /// A change wakes one of those who wait: the fetch of this blob, of which there is one.
    pub async fn demand_changed(&self) {
        self.0.demand.changed().await;
    }

    /// Whether pieces are arriving, or are about to.
    pub(crate) fn is_fetched(&self) -> bool {
        matches!(self.0.progress.borrow().phase(), Phase::Open)
    }

    pub(crate) fn demand_positions(&self) -> &Arc<Demand> {
        &self.0.demand
    }
}

impl Inner {
    pub(crate) fn metainfo(&self) -> &Metainfo {
        &self.signed.metainfo
    }

    pub(crate) fn digest(&self) -> Digest {
        *self.metainfo().digest()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.layout().partial(&self.digest(), PartialFile::Bytes)
    }

    fn piece(&self, index: PieceIndex) -> Option<Piece> {
        self.metainfo().geometry().piece(index)
    }

    /// The file whose marked pieces are right.
    fn readable(&self) -> Result<Arc<File>, Gone> {
        match self.progress.borrow().phase() {
            Phase::Open | Phase::Failed | Phase::Proved => Ok(self.file.clone()),
            Phase::Whole { file, .. } => Ok(file.clone()),
            Phase::Gone(why) => Err(*why),
        }
    }

    fn check(&self, piece: Piece, bytes: &[u8], unknown: Unknown) -> Result<(), WriteError> {
        let (digest, index) = (self.digest(), piece.index);
        let corrupt = || WriteError::Corrupt { digest, piece: index };
        if bytes.len() != piece.length as usize {
            return Err(corrupt());
        }
        let found = PieceHash::of(bytes);
        match (self.hashes.of(index), unknown) {
            (Some(hash), _) if hash == found => Ok(()),
            (Some(_), _) => Err(corrupt()),
            (None, Unknown::Refuse) => Err(WriteError::HashUnknown { digest, piece: index }),
            // Another that was quicker said otherwise.
            (None, Unknown::Learn) => self.hashes.learn(index.0, &[found]).map_err(|_| corrupt()),
        }
    }

    fn write(
        self: &Arc<Self>,
        index: PieceIndex,
        bytes: &[u8],
        unknown: Unknown,
    ) -> Result<Written, WriteError> {
        let digest = self.digest();
        let piece = self.piece(index).ok_or(WriteError::NoSuchPiece { digest, piece: index })?;
        self.check(piece, bytes, unknown)?;
        if self.readable().is_err() {
            return Err(WriteError::Gone { digest });
        }
        if self.progress.borrow().pieces().contains(index) {
            return Ok(Written::Duplicate);
        }
        let writing = locked(&self.writing);
        let written = self.write_or_make_room(bytes, piece.offset);
        drop(writing);
        written.map_err(|source| WriteError::of_disk(digest, index, source))?;
        Ok(self.mark(piece))
    }

    /// Where the file system could not reserve the partial's room, it may be full by now.
    fn write_or_make_room(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let write = || disk::write_at(&self.file, &self.path(), bytes, offset);
        match write() {
            Err(error) if error.is_full() && self.relieve(bytes.len() as u64) => write(),
            other => other,
        }
    }

    /// Gives others up for a full disk. Says whether that is worth another try.
    pub(crate) fn relieve(&self, length: u64) -> bool {
        self.space.upgrade().is_some_and(|space| space.relieve(length))
    }

    fn mark(self: &Arc<Self>, piece: Piece) -> Written {
        if !self.progress.send_if_modified(|progress| progress.insert(piece.index)) {
            return Written::Duplicate;
        }
        self.unsaved.add(piece.length, self);
        Written::New
    }

    fn advance_frontier(&self) {
        let Some(frontier) = &self.frontier else { return };
        let is_in = |piece| self.progress.borrow().pieces().contains(piece);
        let advanced = frontier.advance(&self.file, self.metainfo().geometry(), is_in);
        if let Err(error) = advanced {
            // `commit` reads the same bytes again, and reports.
            tracing::warn!(digest = %self.digest(), %error, "cannot read back a piece");
        }
    }

    /// Makes all bytes written so far durable. After a failure nothing here can be trusted: the partial is discarded.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        let synced = {
            let mut durability = locked(&self.durability);
            let synced = match *durability {
                Durability::Kept => disk::sync_data(&self.file, &self.path()),
                Durability::Lost => Err(DiskError::new("sync", &self.path(), rustix::io::Errno::IO)),
            };
            if synced.is_err() {
                *durability = Durability::Lost;
            }
            synced
        };
        if let Err(error) = &synced {
            let (digest, error) = (self.digest(), error.describe());
            tracing::error!(%digest, error, "the disk lost pieces: the partial is discarded");
            self.discard(Gone::DiskFailed);
        }
        synced
    }

    /// Ends the partial for everybody and removes what is on disk of it.
    pub(crate) fn discard(&self, why: Gone) {
        let digest = self.digest();
        let Ok(_change) = self.directory.change(&digest) else { return };
        if !self.progress.send_if_modified(|progress| progress.end(why)) {
            return;
        }
        if let Some(space) = self.space.upgrade() {
            space.index.remove(&digest);
        }
        if let Err(error) = self.directory.remove_all(&digest) {
            tracing::warn!(%digest, error = error.describe(), "files of a discarded partial stay until they are written anew");
        }
    }
}

/// While one is written, another is hashed.
const LANES: usize = 2;

impl WriteError {
    fn of_disk(digest: Digest, piece: PieceIndex, source: DiskError) -> Self {
        if source.is_full() {
            Self::NoSpace { digest, piece, source }
        } else {
            Self::Disk { digest, piece, source }
        }
    }
}
