//! The handle to the whole store: what is in it, and the operations that make or remove an entry.

use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use shoal_core::{Bitfield, Digest, Metainfo, Proof, SignedMetainfo};

use crate::blob::Blob;
use crate::config::{CacheConfig, Config};
use crate::directory::{Closed, Directory, OpenError};
use crate::disk::{self, DiskError, blocking};
use crate::eviction::{Candidate, Kind, NoRoom};
use crate::import::{Import, ImportError};
use crate::index::{Entry, IndexFull};
use crate::layout::PartialFile;
use crate::partial::Partial;
use crate::progress::{Gone, Progress};
use crate::recovery;
use crate::space::{Evictions, Refusal, Space};
use crate::usage::Usage;

/// Cheap to clone handle. The directory is free again after [`Store::close`], or when the last handle, and the last
/// [`Partial`], is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) space: Arc<Space>,
}

/// Why a partial cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It may not come in: the store, or the file system, is as full as it may be.
    #[error("no room for {digest}")]
    NoRoom {
        /// Blob.
        digest: Digest,
        /// Which limit, and what to do.
        source: NoRoom,
    },
    /// The disk has no room for the whole blob, and what could be given up was.
    #[error("no space left for the {length} bytes of {digest}: free some on the store's file system")]
    NoSpace {
        /// Blob.
        digest: Digest,
        /// How long it is.
        length: u64,
        /// What the file system said.
        source: DiskError,
    },
    /// The disk refused.
    #[error("cannot create the partial {digest}")]
    Disk {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: DiskError,
    },
    /// There are as many blobs, or as many partials that are in use, as the store takes.
    #[error("no room for {digest}: the store takes no more than {limit} of its kind")]
    Full {
        /// Blob.
        digest: Digest,
        /// How many it takes.
        limit: usize,
    },
    /// The store was closed.
    #[error("cannot create the partial {digest}: the store is closed")]
    Closed {
        /// Blob.
        digest: Digest,
    },
}

/// Why a blob cannot be deleted.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("cannot delete {digest}")]
    Disk {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: DiskError,
    },
    /// The store was closed.
    #[error("cannot delete {digest}: the store is closed")]
    Closed {
        /// Blob.
        digest: Digest,
    },
}

/// A whole blob that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleBlob {
    /// Which.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// When it was used last.
    pub last_used: SystemTime,
}

impl Store {
    /// Opens (creates) the directory and finds what is in it. Needs a tokio runtime for as long as it lives.
    ///
    /// No whole blob is ever given up.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let directory = Directory::open(config.directory).await?;
        Self::recover(Space::unlimited(Arc::new(directory))).await
    }

    /// The same for a store that gives blobs up where room is short, and says which.
    pub async fn open_cache(config: CacheConfig) -> Result<(Self, Evictions), OpenError> {
        let (low, high) = (config.low_watermark, config.high_watermark);
        if low > high {
            return Err(OpenError::Watermarks { low, high });
        }
        let directory = Directory::open(config.directory.clone()).await?;
        let (space, evictions) = Space::limited(Arc::new(directory), &config);
        let store = Self::recover(space).await?;
        store.space.keep();
        Ok((store, evictions))
    }

    async fn recover(space: Space) -> Result<Self, OpenError> {
        let space = Arc::new(space);
        blocking(move || {
            recovery::recover(&space).map_err(|source| OpenError::Disk {
                directory: space.directory.layout().root().to_owned(),
                source,
            })?;
            Ok(Self { space })
        })
        .await
    }

    /// What there is of a blob.
    #[must_use]
    pub fn entry(&self, digest: &Digest) -> Option<Entry> {
        self.space.index.find(digest)
    }

    /// The whole blob if it is whole.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Blob> {
        match self.entry(digest)? {
            Entry::Whole(blob) => Some(blob),
            Entry::Partial(_) => None,
        }
    }

    /// Every digest in the store, with whether it is whole.
    #[must_use]
    pub fn digests(&self) -> Vec<(Digest, bool)> {
        self.space.index.digests()
    }

    /// How many blobs are whole, and how many are not.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.space.index.counts()
    }

    /// Bytes on disk (whole blobs + partials, which take their full length from the start).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.space.index.bytes()
    }

    /// How many bytes it may have; `None` where there is no limit.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.space.capacity()
    }

    /// Whole blobs that nobody uses now, the least recently used first.
    #[must_use]
    pub fn idle(&self) -> Vec<IdleBlob> {
        let candidates = self.space.index.candidates().into_iter();
        let whole = candidates.filter(|candidate| candidate.kind == Kind::Blob);
        let mut idle: Vec<_> = whole
            .map(|Candidate { digest, length, last_used, .. }| IdleBlob {
                digest,
                length,
                last_used: last_used.time(),
            })
            .collect();
        idle.sort_unstable_by_key(|blob| (blob.last_used, blob.digest));
        idle
    }

    /// Gives a blob up that can be had again from elsewhere, unless somebody uses it; says how many bytes went.
    pub async fn evict(&self, digest: &Digest) -> u64 {
        let (space, digest) = (self.space.clone(), *digest);
        blocking(move || match space.index.find(&digest) {
            Some(Entry::Whole(_)) => space.evict(&digest),
            _ => 0,
        })
        .await
    }

    /// How much the file system has, and how much of that is free, in bytes.
    pub async fn file_system(&self) -> Result<(u64, u64), DiskError> {
        let space = self.space.clone();
        blocking(move || {
            let found = disk::file_system(space.directory.layout().root())?;
            Ok((found.size, found.available))
        })
        .await
    }

    /// Makes (or takes up) the partial; `Entry::Whole` if it is whole already. It counts as being fetched, and is not
    /// evicted, until it is whole or [`Partial::fail`] was called.
    ///
    /// One that is there keeps its own metainfo, which may cut the blob differently: use that of the entry. Where that lacks
    /// hashes it takes those that it is told of here; if they contradict each other, what came so far is thrown away.
    pub async fn create(&self, metainfo: &SignedMetainfo) -> Result<Entry, CreateError> {
        if let Some(blob) = self.blob(metainfo.metainfo.digest()) {
            return Ok(Entry::Whole(blob));
        }
        let (store, signed) = (self.clone(), metainfo.clone());
        blocking(move || store.create_blocking(&signed)).await
    }

    /// Whether a blob of that length would come in now, others given up for it if need be. Another may be quicker.
    pub async fn has_room(&self, length: u64) -> bool {
        let space = self.space.clone();
        blocking(move || space.has_room(length)).await
    }

    /// Takes a finished file into the store (moves it): SHA checked and pieces hashed in one pass, metainfo signed by `sign`.
    /// If the blob is whole already the file is removed and the blob returned. On any error the file stays where it is.
    ///
    /// Nobody may write to the file any more. It should be on the store's file system; if not, it is copied.
    pub async fn import(
        &self,
        file: &Path,
        digest: &Digest,
        sign: impl FnOnce(&Metainfo) -> Proof + Send + 'static,
    ) -> Result<Blob, ImportError> {
        let (import, file) = (self.import_of(digest), file.to_owned());
        blocking(move || import.file(&file, sign)).await
    }

    /// The same for small content in memory.
    pub async fn put(
        &self,
        content: Bytes,
        digest: &Digest,
        sign: impl FnOnce(&Metainfo) -> Proof + Send + 'static,
    ) -> Result<Blob, ImportError> {
        let import = self.import_of(digest);
        blocking(move || import.content(&content, sign)).await
    }

    /// Deletes a blob or partial; open readers of a whole blob go on to the end. Says whether there was one.
    pub async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || store.delete_blocking(digest)).await
    }

    /// Saves what every partial has, ends them, and gives the directory free, whoever still holds a handle.
    ///
    /// Whole blobs can be read on; nothing can be changed any more.
    pub async fn close(&self) {
        let store = self.clone();
        blocking(move || {
            for Partial(partial) in store.space.index.partials() {
                partial.checkpoint();
            }
            store.space.directory.close();
            for Partial(partial) in store.space.index.partials() {
                partial.progress.send_if_modified(|progress| progress.end(Gone::Closed));
            }
        })
        .await;
    }

    fn import_of(&self, digest: &Digest) -> Import {
        Import { space: self.space.clone(), digest: *digest }
    }

    fn create_blocking(&self, signed: &SignedMetainfo) -> Result<Entry, CreateError> {
        let (digest, length) = (*signed.metainfo.digest(), signed.metainfo.length());
        {
            let _change = self.change(&digest)?;
            if let Some(entry) = self.take_up(signed) {
                return Ok(entry);
            }
        }
        let _room = self.space.admit(length, Kind::Partial).map_err(|refusal| match refusal {
            Refusal::NoRoom(source) => CreateError::NoRoom { digest, source },
            Refusal::Full(IndexFull { limit, .. }) => CreateError::Full { digest, limit },
            Refusal::Disk(source) => CreateError::Disk { digest, source },
        })?;
        match self.take_up_or_create(signed) {
            Err(CreateError::NoSpace { .. }) if self.space.relieve(length) => self.take_up_or_create(signed),
            other => other,
        }
    }

    fn change(&self, digest: &Digest) -> Result<MutexGuard<'_, ()>, CreateError> {
        self.space.directory.change(digest).map_err(|Closed| CreateError::Closed { digest: *digest })
    }

    /// What is there, to be fetched on. Call under the digest's change.
    fn take_up(&self, signed: &SignedMetainfo) -> Option<Entry> {
        let digest = signed.metainfo.digest();
        let entry = self.space.index.find(digest)?;
        if let Entry::Partial(partial) = &entry {
            let lacks_hashes = partial.0.hashes.signed().is_none();
            if lacks_hashes && signed.metainfo.is_complete() && partial.vouch(signed).is_err() {
                tracing::warn!(%digest, "a partial is thrown away: an origin signed other pieces");
                self.space.index.remove(digest);
                partial.0.progress.send_if_modified(|progress| progress.end(Gone::Deleted));
                return None;
            }
            partial.0.progress.send_if_modified(Progress::revive);
        }
        Some(entry)
    }

    /// Call with room for it.
    fn take_up_or_create(&self, signed: &SignedMetainfo) -> Result<Entry, CreateError> {
        let digest = *signed.metainfo.digest();
        let _change = self.change(&digest)?;
        if let Some(entry) = self.take_up(signed) {
            return Ok(entry);
        }
        let entry = Entry::Partial(self.create_partial(signed.clone())?);
        self.space.index.insert(digest, entry.clone());
        Ok(entry)
    }

    fn create_partial(&self, signed: SignedMetainfo) -> Result<Partial, CreateError> {
        let (digest, length) = (*signed.metainfo.digest(), signed.metainfo.length());
        let file = self.create_files(&signed).map_err(|source| {
            // Half a partial is of no use; what cannot be removed now is at the next start.
            let _ = self.space.directory.remove_partial(&digest);
            if source.is_full() {
                CreateError::NoSpace { digest, length, source }
            } else {
                CreateError::Disk { digest, source }
            }
        })?;
        let none = Bitfield::empty(signed.metainfo.geometry().piece_count());
        let usage = Usage::begin(&self.space.clock);
        Ok(Partial::new(&self.space, usage, signed, file, Progress::new(none)))
    }

    /// An old bitfield must be gone for good before there is a new file that it could vouch for. Nothing new is made
    /// durable here: somebody waits for the first byte, and until the first checkpoint there is nothing to lose.
    fn create_files(&self, signed: &SignedMetainfo) -> Result<std::fs::File, DiskError> {
        let digest = signed.metainfo.digest();
        let directory = &self.space.directory;
        let layout = directory.layout();
        directory.remove_partial(digest)?;
        let sidecar = layout.partial(digest, PartialFile::Metainfo);
        directory.write(&sidecar, &signed.encode())?;
        let path = layout.partial(digest, PartialFile::Bytes);
        let file = disk::create_file(&path)?;
        disk::allocate(&file, &path, signed.metainfo.length())?;
        Ok(file)
    }

    fn delete_blocking(&self, digest: Digest) -> Result<bool, StoreError> {
        let _change = self.space.directory.change(&digest).map_err(|Closed| StoreError::Closed { digest })?;
        self.remove_blocking(digest)
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// Call under the digest's change.
    pub(crate) fn remove_blocking(&self, digest: Digest) -> Result<bool, StoreError> {
        let Space { directory, index, .. } = &*self.space;
        let Some(entry) = index.remove(&digest) else { return Ok(false) };
        if let Entry::Partial(Partial(partial)) = entry {
            partial.progress.send_if_modified(|progress| progress.end(Gone::Deleted));
        }
        let removed = directory.remove_all(&digest);
        removed.map_err(|source| StoreError::Disk { digest, source })?;
        Ok(true)
    }
}
