//! A directory that this process owns: the lock on it, and order among the changes to one digest's files.
//!
//! Every change of names (create, commit, import, delete, a checkpoint's bitfield) runs under [`Directory::change`];
//! reads and piece writes do not. The guard lives within one blocking call, never across an await; the index's
//! lock is the only one taken inside it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use shoal_core::Digest;

use crate::config::Percent;
use crate::disk::{self, DiskError};
use crate::layout::{Layout, PartialFile};

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    layout: Layout,
    /// Holds the lock until it is closed.
    lock: File,
    changes: [Mutex<()>; CHANGES],
    closed: AtomicBool,
    temporaries: AtomicU64,
}

/// The store was closed; its directory may be another's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// A name in `incoming/` for one file; what is there under it goes when this does.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store of this one) has it.
    #[error("store {} is in use by process {holder}: stop that process, or choose another directory", directory.display())]
    Locked {
        /// The store's directory.
        directory: PathBuf,
        /// Process id, as that process wrote it into the lock file.
        holder: String,
    },
    /// The watermarks are the wrong way round.
    #[error(
        "store.low_watermark is {low} and store.high_watermark {high}: the low one must not be above the high one"
    )]
    Watermarks {
        /// Where eviction ends.
        low: Percent,
        /// Where it begins.
        high: Percent,
    },
    /// The file system refused.
    #[error("cannot open store {}", directory.display())]
    Disk {
        /// The store's directory.
        directory: PathBuf,
        /// Why.
        source: DiskError,
    },
}

impl Directory {
    /// Takes the directory, which is made where it is missing. A holder that is just going is waited for.
    pub(crate) async fn open(root: PathBuf) -> Result<Self, OpenError> {
        let mut waited = Duration::ZERO;
        loop {
            let path = root.clone();
            match disk::blocking(move || Self::try_open(path)).await {
                Err(OpenError::Locked { .. }) if waited < LOCK_WAIT => {
                    tokio::time::sleep(LOCK_POLL).await;
                    waited += LOCK_POLL;
                }
                other => return other,
            }
        }
    }

    fn try_open(root: PathBuf) -> Result<Self, OpenError> {
        let layout = Layout::new(root);
        let failed = |source| OpenError::Disk { directory: layout.root().to_owned(), source };
        disk::create_directories(layout.root()).map_err(failed)?;
        let lock = take_lock(&layout)?;
        for path in layout.directories() {
            disk::create_directories(&path).and_then(|()| disk::sync_parent(&path)).map_err(failed)?;
        }
        Ok(Self {
            lock,
            changes: [const { Mutex::new(()) }; CHANGES],
            closed: AtomicBool::new(false),
            temporaries: AtomicU64::new(0),
            layout,
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Waits until nobody else changes the files of this digest; holds others off while the guard lives.
    pub(crate) fn change(&self, digest: &Digest) -> Result<MutexGuard<'_, ()>, Closed> {
        let bytes = digest.as_bytes();
        let guard = locked(&self.changes[usize::from(bytes[bytes.len() - 1]) % CHANGES]);
        if self.closed.load(Ordering::Acquire) { Err(Closed) } else { Ok(guard) }
    }

    /// Ends all changes, waits for those under way, and gives the directory free.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for change in &self.changes {
            drop(locked(change));
        }
        if let Err(error) = flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(directory = %self.layout.root().display(), %error, "cannot unlock the store");
        }
    }

    pub(crate) fn temporary(&self) -> Temporary {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        Temporary(self.layout.incoming().join(number.to_string()))
    }

    /// Puts a file with this content there, in place of what was there. After a loss of power it may be anything.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let temporary = self.temporary();
        disk::write_new(temporary.path(), content)?;
        disk::rename(temporary.path(), path)
    }

    /// Puts a file with this content there, whole and durable, in place of what was there.
    pub(crate) fn write_durable(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let temporary = self.temporary();
        disk::write_synced(temporary.path(), content)?;
        disk::rename(temporary.path(), path)?;
        disk::sync_parent(path)
    }

    /// Removes a partial's files, durably. The bitfield goes first, so that it never vouches for later bytes.
    pub(crate) fn remove_partial(&self, digest: &Digest) -> Result<(), DiskError> {
        let mut removed = false;
        for file in PartialFile::ALL {
            removed |= disk::remove(&self.layout.partial(digest, file))?;
        }
        if removed { disk::sync_directory(&self.layout.partials()) } else { Ok(()) }
    }

    /// Removes a whole blob. After a loss of power it may be there again, as good as it was.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<(), DiskError> {
        disk::remove(&self.layout.blob(digest))?;
        disk::remove(&self.layout.metainfo(digest)).map(drop)
    }

    /// Removes whatever there is of a digest, durably. A metainfo outlives its blob, never the other way round.
    pub(crate) fn remove_all(&self, digest: &Digest) -> Result<(), DiskError> {
        let blob = self.layout.blob(digest);
        if disk::remove(&blob)? {
            disk::sync_parent(&blob)?;
        }
        disk::remove(&self.layout.metainfo(digest))?;
        self.remove_partial(digest)
    }
}

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = disk::remove(&self.0) {
            tracing::warn!(path = %self.0.display(), error = error.describe(), "a temporary file stays until the next start");
        }
    }
}

/// A lock that a panic elsewhere does not poison: what it guards is right between any two statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_lock(layout: &Layout) -> Result<File, OpenError> {
    let directory = || layout.root().to_owned();
    let path = layout.lock();
    let failed = |source| OpenError::Disk {
        directory: layout.root().to_owned(),
        source: DiskError::new("lock", &path, source),
    };
    // Not emptied before the lock is ours: the holder's process id is in it.
    let mut options = File::options();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(OpenError::Locked { directory: directory(), holder: read_holder(&file) });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(file)
}

fn read_holder(file: &File) -> String {
    let mut text = String::new();
    // Ten digits are the longest process id.
    let read = file.take(10).read_to_string(&mut text);
    if read.is_ok() && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text
    } else {
        "(unknown)".into()
    }
}

/// Changes to one digest's files are one after another; by chance one in 64 pairs of digests waits for each other too.
const CHANGES: usize = 64;
/// A process that is being replaced needs a moment to end; longer than this and it is not ending.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// How often the lock is tried meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(20);
