//! A whole blob: its metainfo in memory, its bytes in an immutable file that is opened when somebody reads.
//!
//! A reader holds its own descriptor, so a delete does not cut it, and it pins the blob, so that none is evicted under it.
//! A piece for a peer opens the file anew: that takes a microsecond beside some hundred for the copy of a MiB, and no table
//! of open files needs a limit.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use shoal_core::{Digest, Metainfo, Piece, PieceIndex, SignedMetainfo};

use crate::disk::{self, DiskError, blocking};
use crate::layout::Layout;
use crate::reader::{BlobReader, ReadError};
use crate::usage::{Moment, Pin, Usage};

/// A blob that is whole: immutable bytes and its signed metainfo. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blob(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    signed: SignedMetainfo,
    path: PathBuf,
    /// Its own time is that of the blob's last use.
    metainfo_path: PathBuf,
    usage: Arc<Usage>,
}

impl Blob {
    pub(crate) fn new(signed: SignedMetainfo, layout: &Layout, usage: Arc<Usage>) -> Self {
        let digest = signed.metainfo.digest();
        let (path, metainfo_path) = (layout.blob(digest), layout.metainfo(digest));
        Self(Arc::new(Inner { signed, path, metainfo_path, usage }))
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
    ///
    /// See [`BlobReader::is_gone`] for a blob that was evicted since it was looked up.
    #[must_use]
    pub fn reader(&self, range: Range<u64>) -> BlobReader {
        let file = self.pin().and_then(|pin| {
            // On this thread, though it may block for microseconds: from here on the reader holds the bytes.
            let file = self.open()?;
            self.save_usage_soon();
            Ok((file, pin))
        });
        BlobReader::of_blob(self.digest(), range, self.metainfo().length(), file)
    }

    /// The bytes of one piece, for a peer.
    pub async fn read_piece(&self, piece: PieceIndex) -> Result<Bytes, ReadError> {
        self.read_part(piece, 0..u32::MAX).await
    }

    /// Some of them (clamped), by their place in the piece.
    pub async fn read_part(&self, piece: PieceIndex, part: Range<u32>) -> Result<Bytes, ReadError> {
        let digest = self.digest();
        let whole = self.metainfo().geometry().piece(piece);
        let whole = whole.ok_or(ReadError::NoSuchPiece { digest, piece })?;
        let pin = self.pin()?;
        let file = self.open()?;
        self.save_usage_soon();
        read_part(file.into(), pin, whole, part).await.map_err(|source| ReadError::Disk { digest, source })
    }

    /// When its file last changed, in bytes or in place: not before the blob entered the store, so that whoever collects
    /// garbage by age spares what a slow upload has just become.
    pub async fn modified(&self) -> Result<SystemTime, ReadError> {
        let blob = self.clone();
        blocking(move || blob.modified_blocking()).await
    }

    pub(crate) fn digest(&self) -> Digest {
        *self.metainfo().digest()
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.0.usage
    }

    fn pin(&self) -> Result<Pin, ReadError> {
        self.0.usage.pin().ok_or_else(|| ReadError::Gone { digest: self.digest() })
    }

    fn save_usage_soon(&self) {
        if let Some(used) = self.0.usage.save_due() {
            let blob = self.clone();
            tokio::task::spawn_blocking(move || blob.save_usage(used));
        }
    }

    fn save_usage(&self, used: Moment) {
        if let Err(error) = disk::set_modified(&self.0.metainfo_path, used.time()) {
            let digest = self.digest();
            tracing::debug!(%digest, error = error.describe(), "a restart will take the blob for less used than it is");
        }
    }

    pub(crate) fn open(&self) -> Result<File, ReadError> {
        disk::open_file(&self.0.path).map_err(|error| self.unreadable(error.into_source()))
    }

    pub(crate) fn modified_blocking(&self) -> Result<SystemTime, ReadError> {
        let file = self.0.path.symlink_metadata().map_err(|error| self.unreadable(error))?;
        // A rename into the store keeps the time of the last write; only the time of change tells of it.
        let changed = Duration::new(file.ctime().try_into().unwrap_or(0), file.ctime_nsec() as u32);
        let written = file.modified().map_err(|error| self.unreadable(error))?;
        Ok(written.max(SystemTime::UNIX_EPOCH + changed))
    }

    /// Makes it young, durably. Call under its digest's change.
    pub(crate) fn touch(&self) -> Result<(), DiskError> {
        disk::set_modified(&self.0.path, SystemTime::now())?;
        disk::sync_all(&self.0.path)
    }

    fn unreadable(&self, source: io::Error) -> ReadError {
        match source.kind() {
            io::ErrorKind::NotFound => ReadError::Gone { digest: self.digest() },
            _ => ReadError::Disk { digest: self.digest(), source },
        }
    }
}

/// Some bytes of a piece, by their place in it; what is beyond its end is left out. What has to come from the disk is read on
/// a thread that may wait for it.
pub(crate) async fn read_part(
    file: Arc<File>,
    pin: Pin,
    piece: Piece,
    part: Range<u32>,
) -> io::Result<Bytes> {
    let (start, end) = (part.start.min(piece.length), part.end.min(piece.length));
    let (offset, length) = (piece.offset + u64::from(start), end.saturating_sub(start) as usize);
    if let Some(bytes) = disk::try_read_at(&file, offset, length)? {
        return Ok(bytes);
    }
    let read = move || {
        let _pin = pin;
        let read = disk::read_at(&file, offset, length);
        disk::advise(&file, offset + length as u64);
        read
    };
    blocking(read).await
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use shoal_core::Digest;

    use crate::ReadError;
    use crate::testing::{Scene, proof};

    #[tokio::test]
    async fn an_old_file_is_as_young_as_its_blob() {
        let scene = Scene::open().await;
        let file = scene.directory.path().join("upload");
        fs::write(&file, "content").unwrap();
        let entered = File::open(&file).unwrap().metadata().unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(entered - Duration::from_secs(7 * 24 * 3600))
            .unwrap();
        let digest = Digest::sha256(b"content");
        let blob = scene.store.import(&file, &digest, |_| proof()).await.unwrap();
        let modified = blob.modified().await.unwrap();
        assert!(modified >= entered && modified <= SystemTime::now() + Duration::from_secs(1));

        scene.store.delete(&digest).await.unwrap();
        assert!(matches!(blob.modified().await, Err(ReadError::Gone { .. })));
    }
}
