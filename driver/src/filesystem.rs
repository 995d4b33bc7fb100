//! Files under one directory: metadata of the peer-to-peer drivers, and a registry without a swarm.
//!
//! `tree/` holds what is visible, `pending/` what is written and not committed (under the same paths, so that it survives
//! a restart), `temporary/` what nobody needs after a crash; it is emptied at the first use. Content enters the tree
//! by one rename, after its bytes are on disk: it is old or new at every instant, and a put brings along the directories
//! that it needs. Disk work runs off the async threads, a bounded number at a time. One process owns the directory.

mod disk;
mod place;
mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use crate::driver::{
    ByteRange, ByteStream, Context, FileInfo, FileWriter, MAX_CONTENT_LENGTH, StorageDriver, WriteMode,
};
use crate::error::{DriverError, Errors};
use crate::path::DriverPath;
use crate::request::Operation;

use disk::{Disk, DiskError};
use writer::FilesystemWriter;

/// Files under one directory: metadata of the peer-to-peer drivers, and a registry without a swarm. Clones are one driver.
#[derive(Clone, Debug)]
pub struct FilesystemDriver {
    disk: Arc<Disk>,
    work: Work,
}

/// Runs disk work off the async threads, and gives its errors their names.
#[derive(Clone, Debug)]
struct Work {
    errors: Errors,
    permits: Arc<Semaphore>,
}

/// How many disk operations run at a time: enough to keep a disk's queue full, far below the runtime's 512 blocking
/// threads, which others need too.
const MAX_DISK_OPERATIONS: usize = 64;
/// How much of a file a stream reads at a time: large against the cost of a hop between threads, small against memory.
const READ_CHUNK: u64 = 256 * 1024;

impl FilesystemDriver {
    /// A driver over the directory `root`, which is made when it is first needed.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_DISK_OPERATIONS));
        let disk = Arc::new(Disk::new(&root.into(), 0));
        Self { disk, work: Work { errors: Errors("filesystem"), permits } }
    }

    /// A driver like [`FilesystemDriver::new`] whose writers leave `reserve` bytes of the file system free: they are for
    /// what is put whole (links, tags, manifests), so that what was uploaded can still be made use of.
    #[must_use]
    pub fn with_reserve(root: impl Into<PathBuf>, reserve: u64) -> Self {
        let driver = Self::new(PathBuf::new());
        Self { disk: Arc::new(Disk::new(&root.into(), reserve)), ..driver }
    }

    /// Where the committed content of a path is on disk, if there is any.
    #[must_use]
    pub fn file_of(&self, path: &DriverPath) -> PathBuf {
        self.disk.file_of(path)
    }

    /// The same files, under the name of the driver that stands on them.
    pub(crate) fn named(mut self, errors: Errors) -> Self {
        self.work.errors = errors;
        self
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &DriverPath,
        work: impl FnOnce(&Disk, &DriverPath) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let (disk, target) = (Arc::clone(&self.disk), path.clone());
        self.work.run(operation, path, move || work(&disk, &target)).await
    }

    fn refuse_root(&self, path: &DriverPath) -> Result<(), DriverError> {
        if path.is_root() { Err(self.work.errors.invalid_path(path)) } else { Ok(()) }
    }
}

impl Work {
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &DriverPath,
        work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work, not by its caller, who may go away before it is done.
            let _permit = permit;
            work()
        });
        let failed = |source| self.errors.caused(format!("{operation} {path}"), source);
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(DiskError::Missing)) => Err(self.errors.not_found(path)),
            Ok(Err(DiskError::Busy)) => {
                Err(self.errors.unavailable(format!("{path} is being written by another writer")))
            }
            Ok(Err(DiskError::TooLong)) => Err(self.errors.too_long(path)),
            Ok(Err(DiskError::Reserved { reserve })) => {
                let detail =
                    format!("{operation} {path}: the last {reserve} bytes of the disk are not for uploads");
                Err(self.errors.no_space(detail))
            }
            Ok(Err(DiskError::Failed(source))) if is_full(&source) => {
                Err(self.errors.no_space(format!("{operation} {path}: {source}")))
            }
            Ok(Err(DiskError::Failed(source))) => Err(failed(source)),
            Err(ended) => Err(failed(std::io::Error::other(ended))),
        }
    }
}

#[async_trait]
impl StorageDriver for FilesystemDriver {
    fn name(&self) -> &'static str {
        self.work.errors.0
    }

    async fn get_content(&self, _context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.refuse_root(path)?;
        self.run(Operation::GetContent, path, |disk, path| disk.read(path, MAX_CONTENT_LENGTH)).await
    }

    async fn put_content(
        &self,
        _context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError> {
        self.refuse_root(path)?;
        self.run(Operation::PutContent, path, move |disk, path| disk.put(path, &content)).await
    }

    async fn reader(
        &self,
        _context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        self.refuse_root(path)?;
        let (file, length) = self.run(Operation::Reader, path, Disk::open).await?;
        let range = range.within(length);
        let reading = Reading {
            work: self.work.clone(),
            path: path.clone(),
            file: Arc::new(file),
            at: range.start,
            end: range.end,
        };
        Ok(stream::unfold(reading, Reading::next).boxed())
    }

    async fn writer(
        &self,
        _context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        self.refuse_root(path)?;
        let (file, size) =
            self.run(Operation::Writer, path, move |disk, path| disk.open_pending(path, mode)).await?;
        Ok(Box::new(FilesystemWriter::new(self.clone(), path.clone(), file, size)))
    }

    async fn stat(&self, _context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        self.run(Operation::Stat, path, Disk::stat).await
    }

    async fn list(&self, _context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        self.run(Operation::List, path, Disk::list).await
    }

    async fn rename(
        &self,
        _context: &Context,
        from: &DriverPath,
        to: &DriverPath,
    ) -> Result<(), DriverError> {
        self.refuse_root(from)?;
        self.refuse_root(to)?;
        let to = to.clone();
        self.run(Operation::RenameFrom, from, move |disk, from| disk.rename(from, &to)).await
    }

    async fn delete(&self, _context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        self.refuse_root(path)?;
        self.run(Operation::Delete, path, Disk::delete).await
    }

    async fn room(&self) -> Result<Option<u64>, DriverError> {
        let root = DriverPath::root();
        self.run(Operation::Writer, &root, |disk, _| Ok(Some(disk.room()?))).await
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// A file being streamed. It stays readable when its name goes away.
struct Reading {
    work: Work,
    path: DriverPath,
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Bytes, DriverError>, Self)> {
        if self.at == self.end {
            return None;
        }
        let (file, at) = (Arc::clone(&self.file), self.at);
        let length = (self.end - self.at).min(READ_CHUNK) as usize;
        let read = self.work.run(Operation::Reader, &self.path, move || {
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at)?;
            Ok(Bytes::from(chunk))
        });
        let chunk = read.await;
        // After an error there is nothing more.
        self.at = if chunk.is_ok() { at + length as u64 } else { self.end };
        Some((chunk, self))
    }
}
