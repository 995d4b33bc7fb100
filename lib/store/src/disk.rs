//! What the store asks of a file system, each call with the path in its error. All of it blocks but `try_read_at`: call it
//! on blocking threads.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr};
use shoal_core::Buffer;

/// The file system refused something.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct DiskError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl DiskError {
    pub(crate) fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether there is no room (or no quota) left.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    pub(crate) fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What and why, in one line for a log.
    pub(crate) fn describe(&self) -> String {
        format!("{self}: {}", self.source)
    }

    pub(crate) fn into_source(self) -> io::Error {
        self.source
    }
}

/// How much a file system holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) size: u64,
    /// Free for this user.
    pub(crate) available: u64,
}

/// Runs disk work or long hashing off the async threads. Once started it runs to its end, even if nobody waits any more.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and never started the work: nobody will be polled again.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Makes a directory and those above it, for this user only.
pub(crate) fn create_directories(path: &Path) -> Result<(), DiskError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DiskError::new("create directory", path, source))
}

/// Makes the directory of `path` and makes its name durable, whoever made it.
pub(crate) fn create_parent(path: &Path) -> Result<(), DiskError> {
    let directory = parent(path);
    create_directories(directory)?;
    sync_directory(parent(directory))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), DiskError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| DiskError::new("sync directory", path, source))
}

pub(crate) fn sync_parent(path: &Path) -> Result<(), DiskError> {
    sync_directory(parent(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("every file of the store is below its root")
}

/// A new, empty file, readable and writable by this user only; what was there under that name is emptied.
pub(crate) fn create_file(path: &Path) -> Result<File, DiskError> {
    let mut options = OpenOptions::new();
    let created = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    created.map_err(|source| DiskError::new("create", path, source))
}

pub(crate) fn open_file(path: &Path) -> Result<File, DiskError> {
    File::open(path).map_err(|source| DiskError::new("open", path, source))
}

/// For reading and writing on.
pub(crate) fn open_to_resume(path: &Path) -> Result<File, DiskError> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map_err(|source| DiskError::new("open", path, source))
}

/// Gives an empty file its length and, where the file system can, its room: a full disk shows now, not half way.
pub(crate) fn allocate(file: &File, path: &Path, length: u64) -> Result<(), DiskError> {
    if length == 0 {
        return Ok(());
    }
    let reserved = match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(length),
        other => other.map_err(io::Error::from),
    };
    reserved.map_err(|source| DiskError::new("allocate", path, source))
}

pub(crate) fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
    file.write_all_at(bytes, offset).map_err(|source| DiskError::new("write", path, source))
}

/// Exactly `length` bytes from `offset` on.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::with_capacity(length);
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        if retry_on_intr(|| pread(file, spare_capacity(&mut *buffer), at))? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // The allocator may have given more room than was asked for, and that was read too.
    buffer.truncate(length);
    Ok(buffer.freeze())
}

/// The same where nothing of it has to come from the disk, so on any thread; nothing where it has to, or where the file system
/// cannot tell.
pub(crate) fn try_read_at(file: &File, offset: u64, length: usize) -> io::Result<Option<Bytes>> {
    let mut buffer = Buffer::of_length(length);
    let mut read = 0;
    while read < length {
        let at = offset + read as u64;
        let rest = &mut [IoSliceMut::new(&mut buffer[read..])];
        match retry_on_intr(|| preadv2(file, rest, at, ReadWriteFlags::NOWAIT)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(buffer.freeze()))
}

/// Asks the kernel for what is likely read next. It is only advice: an error means that it is not taken.
pub(crate) fn advise(file: &File, offset: u64) {
    let _ = fadvise(file, offset, NonZeroU64::new(AHEAD), Advice::WillNeed);
}

/// What a disk is to be busy with while a reader takes what it has: a few milliseconds of a fast one.
const AHEAD: u64 = 1 << 20;

/// A small file as a whole; one longer than `limit` is refused before it is read.
pub(crate) fn read_small(path: &Path, limit: usize) -> Result<Bytes, DiskError> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut content));
    match read {
        Ok(_) if content.len() > limit => Err(DiskError::new("read", path, io::ErrorKind::FileTooLarge)),
        Ok(_) => Ok(content.into()),
        Err(source) => Err(DiskError::new("read", path, source)),
    }
}

/// Makes a file's bytes (and its length) durable.
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<(), DiskError> {
    file.sync_data().map_err(|source| DiskError::new("sync", path, source))
}

/// Writes a whole new file.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<File, DiskError> {
    let mut file = create_file(path)?;
    file.write_all(content).map_err(|source| DiskError::new("write", path, source))?;
    Ok(file)
}

/// Writes a whole new file and makes its bytes durable, though not yet its name.
pub(crate) fn write_synced(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    sync_data(&write_new(path, content)?, path)
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    std::fs::rename(from, to).map_err(|source| DiskError::new("move a file to", to, source))
}

/// Says of a file when it was written. One that is not there any more is fine.
pub(crate) fn set_modified(path: &Path, time: SystemTime) -> Result<(), DiskError> {
    match File::open(path).and_then(|file| file.set_modified(time)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DiskError::new("set the time of", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes bytes and times of a file durable.
pub(crate) fn sync_all(path: &Path) -> Result<(), DiskError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| DiskError::new("sync", path, source))
}

/// How full the file system is that has this path.
pub(crate) fn file_system(path: &Path) -> Result<FileSystem, DiskError> {
    let found = statvfs(path).map_err(|error| DiskError::new("measure the file system of", path, error))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(FileSystem { size: bytes(found.f_blocks), available: bytes(found.f_bavail) })
}

/// Removes a file; one that is not there is fine. Says whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, DiskError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DiskError::new("remove", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let error = |errno: Errno| DiskError::new("write", Path::new("/x"), errno);
        assert!(error(Errno::NOSPC).is_full());
        assert!(error(Errno::DQUOT).is_full());
        assert!(!error(Errno::IO).is_full());
    }

    #[test]
    fn reading_beyond_the_end_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(read_at(&file, 3, 4).unwrap(), b"3456"[..]);
        assert_eq!(read_at(&file, 8, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
