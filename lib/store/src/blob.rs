//! A whole blob: its metainfo in memory, its bytes in an immutable file that is opened when somebody reads.
//!
//! A reader holds its own descriptor, so a delete does not cut it. A piece for a peer opens the file anew: that takes
//! microseconds beside the copy of a MiB, and no table of open files needs a limit.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use shoal_core::{Digest, Metainfo, PieceIndex, SignedMetainfo};

use crate::disk::{self, blocking};
use crate::reader::{BlobReader, ReadError};

/// A blob that is whole: immutable bytes and its signed metainfo. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blob(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    signed: SignedMetainfo,
    path: PathBuf,
}

impl Blob {
    pub(crate) fn new(signed: SignedMetainfo, path: PathBuf) -> Self {
        Self(Arc::new(Inner { signed, path }))
    }

    /// Its metainfo.
    #[must_use]
    pub fn metainfo(&self) -> &Metainfo {
        &self.0.signed.metainfo
    }

    /// With proof, for passing on.
    #[must_use]
    pub fn signed(&self) -> SignedMetainfo {
        self.0.signed.clone()
    }

    /// In-order reader of a byte range (clamped to the length). A delete after this call does not touch it.
    #[must_use]
    pub fn reader(&self, range: Range<u64>) -> BlobReader {
        // On this thread, though it may block for microseconds: from here on the reader holds the bytes.
        BlobReader::of_blob(self.digest(), range, self.metainfo().length(), self.open())
    }

    /// The bytes of one piece, for a peer.
    pub async fn read_piece(&self, piece: PieceIndex) -> Result<Bytes, ReadError> {
        let blob = self.clone();
        blocking(move || blob.read_piece_blocking(piece)).await
    }

    pub(crate) fn digest(&self) -> Digest {
        *self.metainfo().digest()
    }

    pub(crate) fn open(&self) -> Result<File, ReadError> {
        disk::open_file(&self.0.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ReadError::Gone { digest: self.digest() },
            _ => ReadError::Disk { digest: self.digest(), source: error.into_source() },
        })
    }

    fn read_piece_blocking(&self, index: PieceIndex) -> Result<Bytes, ReadError> {
        let digest = self.digest();
        let piece = self.metainfo().geometry().piece(index);
        let piece = piece.ok_or(ReadError::NoSuchPiece { digest, piece: index })?;
        let file = self.open()?;
        disk::read_at(&file, piece.offset, piece.length as usize)
            .map_err(|source| ReadError::Disk { digest, source })
    }
}
