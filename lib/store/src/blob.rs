//! A whole blob: its metainfo in memory, its bytes in an immutable file that is opened when somebody reads.
//!
//! A reader holds its own descriptor, so a delete does not cut it, and it pins the blob, so that none is evicted under it.
//! A piece for a peer opens the file anew: that takes a microsecond beside some hundred for the copy of a MiB, and no table
//! of open files needs a limit. The kernel gets no advice on what is read next: measured, it made no difference.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use shoal_core::{Digest, Metainfo, PieceIndex, SignedMetainfo};

use crate::disk::{self, blocking};
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
        let blob = self.clone();
        blocking(move || blob.read_part_blocking(piece, part)).await
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

    fn modified_blocking(&self) -> Result<SystemTime, ReadError> {
        let file = self.0.path.symlink_metadata().map_err(|error| self.unreadable(error))?;
        // A rename into the store keeps the time of the last write; only the time of change tells of it.
        let changed = Duration::new(file.ctime().try_into().unwrap_or(0), file.ctime_nsec() as u32);
        let written = file.modified().map_err(|error| self.unreadable(error))?;
        Ok(written.max(SystemTime::UNIX_EPOCH + changed))
    }

    fn unreadable(&self, source: io::Error) -> ReadError {
        match source.kind() {
            io::ErrorKind::NotFound => ReadError::Gone { digest: self.digest() },
            _ => ReadError::Disk { digest: self.digest(), source },
        }
    }

    fn read_part_blocking(&self, index: PieceIndex, part: Range<u32>) -> Result<Bytes, ReadError> {
        let digest = self.digest();
        let piece = self.metainfo().geometry().piece(index);
        let piece = piece.ok_or(ReadError::NoSuchPiece { digest, piece: index })?;
        let _pin = self.pin()?;
        let file = self.open()?;
        if let Some(used) = self.0.usage.save_due() {
            self.save_usage(used);
        }
        disk::read_part(&file, &piece, part).map_err(|source| ReadError::Disk { digest, source })
    }
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
