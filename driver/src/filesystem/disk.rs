//! What the filesystem driver does on disk: plain blocking calls.
//!
//! Crash story: bytes are synced before the rename that makes them visible, and the directory after it; new directories
//! are made elsewhere and moved in with the file for which they are made, so that none is seen empty. Deleting is a
//! rename into `temporary/`, so a tree goes away at one instant, and a crash leaves it to be emptied at the next start.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, OFlags, Stat};
use uuid::Uuid;

use super::place::{Durability, NodeKind, Place, Spot};
use crate::driver::{FileInfo, WriteMode};
use crate::path::DriverPath;

/// The directory of one driver.
#[derive(Debug)]
pub(super) struct Disk {
    tree: Place,
    pending: Place,
    temporary: Place,
    /// Whether the three are there.
    prepared: Mutex<bool>,
    /// Held while `pending` changes its shape, so that a file that is opened is still the one under its name, and no
    /// directory is pruned between its making and its first file.
    pending_shape: Mutex<()>,
    /// How many bytes of the file system stay free of uncommitted content.
    reserve: u64,
}

/// Why the disk did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// There is nothing under that path.
    #[error("missing")]
    Missing,
    /// Another writer has it open.
    #[error("busy")]
    Busy,
    /// There is room, but none that writers may use.
    #[error("the last {reserve} bytes are reserved")]
    Reserved { reserve: u64 },
    /// The content is longer than its reader takes.
    #[error("too long")]
    TooLong,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Disk {
    pub(super) fn new(root: &Path, reserve: u64) -> Self {
        Self {
            tree: Place::new(root.join("tree"), Durability::Synced),
            pending: Place::new(root.join("pending"), Durability::Unsynced),
            temporary: Place::new(root.join("temporary"), Durability::Unsynced),
            prepared: Mutex::new(false),
            pending_shape: Mutex::new(()),
            reserve,
        }
    }

    pub(super) fn file_of(&self, path: &DriverPath) -> PathBuf {
        self.tree.path().join(&path.as_str()[1..])
    }

    /// The content of a file of at most `limit` bytes.
    pub(super) fn read(&self, path: &DriverPath, limit: u64) -> Result<Bytes, DiskError> {
        let (file, length) = self.open(path)?;
        if length > limit {
            return Err(DiskError::TooLong);
        }
        let mut content = Vec::with_capacity(length as usize);
        file.take(limit).read_to_end(&mut content)?;
        Ok(content.into())
    }

    /// Opens a committed file; with its length.
    pub(super) fn open(&self, path: &DriverPath) -> Result<(File, u64), DiskError> {
        self.prepare()?;
        let file = self.tree.spot(path).and_then(|spot| spot.open(OFlags::RDONLY)).map_err(seen)?;
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok((file, metadata.size())) } else { Err(DiskError::Missing) }
    }

    /// Replaces the content of a file. Directories that it needs appear with it, at the same instant: what is listed has
    /// the content that it was made for.
    pub(super) fn put(&self, path: &DriverPath, content: &[u8]) -> Result<(), DiskError> {
        self.prepare()?;
        let mut retries = 0..MAX_PUT_RETRIES;
        loop {
            match self.try_put(path, content) {
                Err(error) if is_changed_tree(&error) && retries.next().is_some() => {}
                other => return Ok(other?),
            }
        }
    }

    fn try_put(&self, path: &DriverPath, content: &[u8]) -> io::Result<()> {
        let top = self.tree.topmost_missing(path)?;
        if top == *path {
            self.replace(path, content)
        } else {
            self.put_with_directories(path, &top, content)
        }
    }

    fn replace(&self, path: &DriverPath, content: &[u8]) -> io::Result<()> {
        let temporary = temporary_path();
        let new = self.temporary.spot(&temporary)?;
        let write = || {
            new.write_new(content)?;
            let spot = self.tree.spot(path)?;
            new.move_to(&spot)?;
            spot.sync()
        };
        // What is left is removed at the next start too.
        write().inspect_err(|_| _ = new.unlink())
    }

    /// Makes `top`, which lies above `path` and is missing, with all that is below, and moves it into the tree.
    fn put_with_directories(&self, path: &DriverPath, top: &DriverPath, content: &[u8]) -> io::Result<()> {
        let above = top.parts().count() - 1;
        let below = |count| -> String {
            path.parts().skip(above).take(count).map(|part| format!("/{part}")).collect()
        };
        let (first, whole) = (DriverPath::from_valid(&below(1)), DriverPath::from_valid(&below(usize::MAX)));
        let staging = self.temporary.path().join(&temporary_path().as_str()[1..]);
        let staging = Place::new(staging, Durability::Synced);
        let write = || {
            make_directories(staging.path())?;
            let file = staging.make_spot(&whole)?;
            file.write_new(content)?;
            file.sync()?;
            let spot = self.tree.spot(top)?;
            staging.spot(&first)?.move_to(&spot)?;
            spot.sync()
        };
        let written = write();
        // What is left is removed at the next start too.
        let _ = fs::remove_dir_all(staging.path());
        written
    }

    pub(super) fn stat(&self, path: &DriverPath) -> Result<FileInfo, DiskError> {
        self.prepare()?;
        let stat = if path.is_root() {
            rustix::fs::fstat(self.tree.directory(path)?).map_err(io::Error::from)?
        } else {
            self.tree.spot(path).and_then(|spot| spot.stat()).map_err(seen)?
        };
        let kind = NodeKind::of(&stat).ok_or(DiskError::Missing)?;
        Ok(FileInfo {
            path: path.clone(),
            size: if kind == NodeKind::File { stat.st_size as u64 } else { 0 },
            modified: modified(&stat),
            is_directory: kind == NodeKind::Directory,
        })
    }

    /// The files and directories in a directory.
    pub(super) fn list(&self, path: &DriverPath) -> Result<Vec<DriverPath>, DiskError> {
        self.prepare()?;
        let directory = self.tree.directory(path).map_err(seen)?;
        let mut children = Vec::new();
        for entry in Dir::read_from(&directory).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            // What somebody else put there under a name that no path has, or a link, is not ours to show.
            let Some(child) = entry.file_name().to_str().ok().and_then(|name| path.child(name).ok()) else {
                continue;
            };
            match rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if NodeKind::of(&stat).is_some() => children.push(child),
                _ => {}
            }
        }
        Ok(children)
    }

    pub(super) fn rename(&self, from: &DriverPath, to: &DriverPath) -> Result<(), DiskError> {
        self.prepare()?;
        let source = self.tree.spot(from).map_err(seen)?;
        NodeKind::of(&source.stat().map_err(seen)?).ok_or(DiskError::Missing)?;
        if from != to && to.is_within(from) {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{to} lies under {from}")).into());
        }
        let destination = self.tree.make_spot(to)?;
        source.move_to(&destination)?;
        destination.sync()?;
        Ok(source.sync()?)
    }

    /// Removes the path, and what is pending there, with everything below.
    pub(super) fn delete(&self, path: &DriverPath) -> Result<(), DiskError> {
        self.prepare()?;
        match (self.discard_pending(path), self.discard(&self.tree, path)) {
            (Ok(()), Err(DiskError::Missing)) | (Err(DiskError::Missing), Ok(())) => Ok(()),
            (pending, visible) => visible.and(pending),
        }
    }

    /// Opens the uncommitted content of a path, locked against other writers; with its length.
    pub(super) fn open_pending(&self, path: &DriverPath, mode: WriteMode) -> Result<(File, u64), DiskError> {
        self.prepare()?;
        let _shape = self.lock_pending();
        if self.kind(path)? == Some(NodeKind::Directory) {
            return Err(io::Error::from(ErrorKind::IsADirectory).into());
        }
        if mode == WriteMode::Create {
            self.ensure_room(1)?;
        }
        let file = match mode {
            WriteMode::Create => self.pending.make_spot(path)?.open(OFlags::RDWR | OFlags::CREATE)?,
            WriteMode::Append => self.take_up(path)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::Busy),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if mode == WriteMode::Create {
            file.set_len(0)?;
        }
        let length = file.metadata()?.size();
        Ok((file, length))
    }

    /// How many bytes writers may still write.
    pub(super) fn room(&self) -> Result<u64, DiskError> {
        self.prepare()?;
        let disk = rustix::fs::statvfs(self.pending.path()).map_err(io::Error::from)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(self.reserve))
    }

    /// Refuses to write so many bytes where only the reserve has room for them.
    pub(super) fn ensure_room(&self, length: u64) -> Result<(), DiskError> {
        // Without a reserve it is for the file system to say.
        if self.reserve == 0 || length <= self.room()? {
            return Ok(());
        }
        Err(DiskError::Reserved { reserve: self.reserve })
    }

    /// Makes the uncommitted content visible. It is in `file`, whose bytes have been synced.
    pub(super) fn commit_pending(&self, path: &DriverPath, file: &File) -> Result<(), DiskError> {
        let visible = self.tree.make_spot(path)?;
        let shape = self.lock_pending();
        self.pending_spot(path, file)?.move_to(&visible)?;
        self.pending.prune_above(path)?;
        drop(shape);
        Ok(visible.sync()?)
    }

    /// Discards the uncommitted content, which is in `file`.
    pub(super) fn cancel_pending(&self, path: &DriverPath, file: &File) -> Result<(), DiskError> {
        let _shape = self.lock_pending();
        match self.pending_spot(path, file) {
            Ok(spot) => spot.unlink().and_then(|()| self.pending.prune_above(path)).map_err(DiskError::from),
            // Deleted already, with its directory.
            Err(DiskError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where `file` lies in `pending`, if it was not deleted while its writer had it open: another file may be there now.
    fn pending_spot<'a>(&self, path: &'a DriverPath, file: &File) -> Result<Spot<'a>, DiskError> {
        let spot = self.pending.spot(path).map_err(seen)?;
        let (there, mine) = (spot.stat().map_err(seen)?, file.metadata()?);
        let is_mine = there.st_ino == mine.ino() && there.st_dev == mine.dev();
        if is_mine { Ok(spot) } else { Err(DiskError::Missing) }
    }

    /// Opens what was written before. Committed content is out of sight from here to its next commit.
    fn take_up(&self, path: &DriverPath) -> Result<File, DiskError> {
        let open = |spot: Spot<'_>| spot.open(OFlags::RDWR);
        match self.pending.spot(path).and_then(open).map_err(seen) {
            Err(DiskError::Missing) => {}
            other => return other,
        }
        if self.kind(path)? != Some(NodeKind::File) {
            return Err(DiskError::Missing);
        }
        let pending = self.pending.make_spot(path)?;
        self.tree.spot(path)?.move_to(&pending)?;
        Ok(open(pending)?)
    }

    /// What the tree has under a path.
    fn kind(&self, path: &DriverPath) -> Result<Option<NodeKind>, DiskError> {
        match self.tree.spot(path).and_then(|spot| spot.stat()).map_err(seen) {
            Ok(stat) => Ok(NodeKind::of(&stat)),
            Err(DiskError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a path out of a place at one instant, then removes it at leisure.
    fn discard(&self, place: &Place, path: &DriverPath) -> Result<(), DiskError> {
        let spot = place.spot(path).map_err(seen)?;
        let kind = NodeKind::of(&spot.stat().map_err(seen)?);
        let temporary = temporary_path();
        let grave = self.temporary.spot(&temporary)?;
        spot.move_to(&grave).map_err(seen)?;
        spot.sync()?;
        let buried = self.temporary.path().join(grave.name);
        match kind {
            Some(NodeKind::Directory) => fs::remove_dir_all(buried)?,
            _ => fs::remove_file(buried)?,
        }
        Ok(())
    }

    fn discard_pending(&self, path: &DriverPath) -> Result<(), DiskError> {
        let _shape = self.lock_pending();
        self.discard(&self.pending, path)?;
        Ok(self.pending.prune_above(path)?)
    }

    fn lock_pending(&self) -> MutexGuard<'_, ()> {
        self.pending_shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the directories, and empties `temporary/`, once.
    fn prepare(&self) -> Result<(), DiskError> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            self.tree.make_root()?;
            make_directories(self.pending.path())?;
            match fs::remove_dir_all(self.temporary.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => make_directories(self.temporary.path())?,
            }
            *prepared = true;
        }
        Ok(())
    }
}

/// What a failed look at a path means: no such name, a file where a directory was meant, a link that is not followed.
fn seen(error: io::Error) -> DiskError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => DiskError::Missing,
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => DiskError::Missing,
        _ => DiskError::Failed(error),
    }
}

/// Whether others made, or deleted, the directories meanwhile: a directory was to be moved to where one is by now, or into
/// one that is gone.
fn is_changed_tree(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotFound)
}

fn temporary_path() -> DriverPath {
    DriverPath::from_valid(&format!("/{}", Uuid::new_v4().simple()))
}

fn make_directories(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The time of the last change; a time before 1970, which no file of ours has, is the epoch.
fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

/// How often a put starts over because the directories above it changed. Whoever was first has made them, so once or
/// twice is what it takes; more means that they are deleted as fast as they are made.
const MAX_PUT_RETRIES: usize = 16;
