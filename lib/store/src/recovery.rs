//! What a directory holds, found at start without reading a blob's bytes.
//!
//! Names are parsed strictly; what is not ours is left alone. A blob needs a metainfo of its digest and length (a commit
//! writes it first); one without was damaged from outside and is set aside, not lost (a cache just removes it). A partial needs a metainfo and its
//! full length; a bitfield that does not check out means no pieces. Leftovers of interrupted changes are removed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_core::{Algorithm, Bitfield, Digest, SignedMetainfo};

use crate::blob::Blob;
use crate::checkpoint;
use crate::directory::Directory;
use crate::disk::{self, DiskError};
use crate::eviction::Kind;
use crate::index::{Entry, Index};
use crate::layout::{Layout, PartialFile, parse_partial, parse_sharded};
use crate::partial::Partial;
use crate::progress::Progress;
use crate::space::Space;
use crate::usage::{Moment, Usage};

/// Fills the index. An entry was last used when its metainfo (or a partial's bitfield) was last written.
pub(crate) fn recover(space: &Arc<Space>) -> Result<(), DiskError> {
    let recovery = Recovery { space, directory: &space.directory, index: &space.index };
    recovery.empty_incoming()?;
    for algorithm in Layout::ALGORITHMS {
        recovery.find_blobs(algorithm)?;
        recovery.drop_orphaned_metainfo(algorithm)?;
    }
    recovery.find_partials()
}

struct Recovery<'a> {
    space: &'a Arc<Space>,
    directory: &'a Directory,
    index: &'a Index,
}

impl Recovery<'_> {
    fn layout(&self) -> &Layout {
        self.directory.layout()
    }

    fn empty_incoming(&self) -> Result<(), DiskError> {
        for entry in list(&self.layout().incoming())? {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| DiskError::new("remove", &path, source))?;
        }
        Ok(())
    }

    fn find_blobs(&self, algorithm: Algorithm) -> Result<(), DiskError> {
        for_each_sharded(&self.layout().blobs(algorithm), algorithm, |digest, entry| {
            match self.whole(digest, entry) {
                Ok(blob) => self.keep(digest, blob),
                Err(Misfit::Damaged(reason)) => self.set_aside(digest, &reason),
                Err(Misfit::Unreadable(error)) => return Err(error),
            }
            Ok(())
        })
    }

    fn keep(&self, digest: &Digest, blob: Blob) {
        if let Err(full) = self.index.check_room_for_blob(digest) {
            tracing::warn!(%digest, limit = full.limit, "more blobs on disk than the index takes: left alone");
            return;
        }
        self.index.insert(*digest, Entry::Whole(blob));
    }

    fn whole(&self, digest: &Digest, entry: &DirEntry) -> Result<Blob, Misfit> {
        let path = self.layout().metainfo(digest);
        let signed = read_metainfo(&path, digest)?;
        let found = entry.metadata().map_err(|source| DiskError::new("stat", &entry.path(), source))?;
        check_length(found.len(), &signed)?;
        if !signed.metainfo.is_complete() {
            return Err(Misfit::Damaged("its metainfo lacks hashes".into()));
        }
        Ok(Blob::new(signed, self.layout(), self.usage(&[path])))
    }

    /// Of the entry that has these files.
    fn usage(&self, files: &[PathBuf]) -> Arc<Usage> {
        let written =
            files.iter().filter_map(|file| fs::metadata(file).and_then(|found| found.modified()).ok());
        Usage::resume(&self.space.clock, written.map(Moment::of).max().unwrap_or_default())
    }

    fn set_aside(&self, digest: &Digest, reason: &str) {
        if self.space.is_cache() {
            tracing::warn!(%digest, reason, "a blob does not fit its metainfo: removed");
            if let Err(error) = self.directory.remove_blob(digest) {
                tracing::warn!(%digest, error = error.describe(), "it stays where it is, and is not served");
            }
            return;
        }
        let aside = self.layout().set_aside(digest);
        tracing::warn!(%digest, reason, to = %aside.display(), "a blob does not fit its metainfo: set aside");
        if let Err(error) = disk::rename(&self.layout().blob(digest), &aside) {
            tracing::warn!(%digest, error = error.describe(), "it stays where it is, and is not served");
        }
    }

    fn drop_orphaned_metainfo(&self, algorithm: Algorithm) -> Result<(), DiskError> {
        for_each_sharded(&self.layout().metainfos(algorithm), algorithm, |digest, entry| {
            if !self.layout().blob(digest).exists() {
                disk::remove(&entry.path())?;
            }
            Ok(())
        })
    }

    fn find_partials(&self) -> Result<(), DiskError> {
        let partials = self.layout().partials();
        let mut digests = BTreeSet::new();
        for entry in list(&partials)? {
            match parse_partial(&entry.file_name()) {
                Some((digest, _)) if is_file(&entry) => _ = digests.insert(digest),
                _ => left_alone(&entry),
            }
        }
        for digest in digests {
            match self.resume(&digest) {
                Ok(partial) => _ = self.index.insert(digest, Entry::Partial(partial)),
                Err(Misfit::Damaged(reason)) => self.remove_partial(&digest, &reason),
                Err(Misfit::Unreadable(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_partial(&self, digest: &Digest, reason: &str) {
        tracing::info!(%digest, reason, "a partial cannot be resumed: removed");
        if let Err(error) = self.directory.remove_partial(digest) {
            tracing::warn!(%digest, error = error.describe(), "it stays where it is");
        }
    }

    fn resume(&self, digest: &Digest) -> Result<Partial, Misfit> {
        if self.index.find(digest).is_some() {
            return Err(Misfit::Damaged("the blob is whole".into()));
        }
        let room = self.index.check_room(Kind::Partial);
        room.map_err(|full| Misfit::Damaged(format!("only {} are kept", full.limit)))?;
        let signed = read_metainfo(&self.layout().partial(digest, PartialFile::Metainfo), digest)?;
        let path = self.layout().partial(digest, PartialFile::Bytes);
        let found = fs::symlink_metadata(&path).map_err(|source| DiskError::new("stat", &path, source))?;
        if !found.is_file() {
            return Err(Misfit::Damaged("its bytes are no regular file".into()));
        }
        check_length(found.len(), &signed)?;
        let file = disk::open_to_resume(&path)?;
        let pieces = self.read_bitfield(&signed);
        tracing::info!(%digest, ?pieces, "a partial is resumed");
        let sidecars = [PartialFile::Metainfo, PartialFile::Bitfield];
        let usage = self.usage(&sidecars.map(|file| self.layout().partial(digest, file)));
        Ok(Partial::new(self.space, usage, signed, file, Progress::found(pieces)))
    }

    fn read_bitfield(&self, signed: &SignedMetainfo) -> Bitfield {
        let metainfo = &signed.metainfo;
        let path = self.layout().partial(metainfo.digest(), PartialFile::Bitfield);
        let content = disk::read_small(&path, checkpoint::encoded_length(metainfo));
        let pieces = content.ok().and_then(|content| checkpoint::decode(&content, metainfo));
        pieces.unwrap_or_else(|| Bitfield::empty(metainfo.geometry().piece_count()))
    }
}

/// Why an entry is not taken up.
enum Misfit {
    /// Its files do not fit together.
    Damaged(String),
    /// The disk does not say: nothing may be concluded from that, and nothing removed.
    Unreadable(DiskError),
}

impl From<DiskError> for Misfit {
    fn from(error: DiskError) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge | io::ErrorKind::IsADirectory => {
                Self::Damaged(error.describe())
            }
            _ => Self::Unreadable(error),
        }
    }
}

fn read_metainfo(path: &Path, digest: &Digest) -> Result<SignedMetainfo, Misfit> {
    let content = disk::read_small(path, SignedMetainfo::MAX_ENCODED_LENGTH)?;
    let signed = SignedMetainfo::decode(content).map_err(|error| Misfit::Damaged(error.to_string()))?;
    let found = signed.metainfo.digest();
    if found == digest { Ok(signed) } else { Err(Misfit::Damaged(format!("its metainfo is of {found}"))) }
}

fn check_length(found: u64, signed: &SignedMetainfo) -> Result<(), Misfit> {
    let length = signed.metainfo.length();
    if found == length {
        return Ok(());
    }
    Err(Misfit::Damaged(format!("it has {found} bytes, and by its metainfo {length}")))
}

fn for_each_sharded(
    tree: &Path,
    algorithm: Algorithm,
    mut visit: impl FnMut(&Digest, &DirEntry) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    for shard in list(tree)? {
        if !shard.file_type().is_ok_and(|kind| kind.is_dir()) {
            left_alone(&shard);
            continue;
        }
        for entry in list(&shard.path())? {
            match ours(algorithm, &shard.file_name(), &entry) {
                Some(digest) => visit(&digest, &entry)?,
                None => left_alone(&entry),
            }
        }
    }
    Ok(())
}

fn ours(algorithm: Algorithm, shard: &OsStr, entry: &DirEntry) -> Option<Digest> {
    parse_sharded(algorithm, shard, &entry.file_name()).filter(|_| is_file(entry))
}

fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file())
}

fn left_alone(entry: &DirEntry) {
    tracing::warn!(path = %entry.path().display(), "not a file of the store: left alone");
}

/// One folder's names; a folder of the store has some thousands at most.
fn list(directory: &Path) -> Result<Vec<DirEntry>, DiskError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect);
    entries.map_err(|source| DiskError::new("list", directory, source))
}
