//! A finished file becomes a blob: one pass proves its digest and hashes its pieces, then it is moved into place.
//!
//! Crash story: the file stays where it was until its bytes and its metainfo are durable; the move is one rename. The
//! digest is proved even if the blob is here already: to name a digest is not to have the content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use shoal_core::{
    Digest, Digester, Geometry, GeometryError, Metainfo, MetainfoBuilder, Proof, SignedMetainfo,
};

use crate::blob::Blob;
use crate::directory::Closed;
use crate::disk::{self, DiskError};
use crate::eviction::{Kind, NoRoom};
use crate::index::{Entry, IndexFull, Reservation};
use crate::space::{Refusal, Space};
use crate::usage::Usage;

/// Why content was not taken. A file that was to be imported is where it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The content has another digest.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// Said.
        expected: Digest,
        /// Is.
        found: Digest,
    },
    /// It cannot be cut into pieces.
    #[error("{digest} cannot be cut into pieces")]
    Geometry {
        /// Blob.
        digest: Digest,
        /// Why not.
        source: GeometryError,
    },
    /// The file grew or shrank while it was read.
    #[error("the content of {digest} had {length} bytes and changed while it was read")]
    Changed {
        /// Blob.
        digest: Digest,
        /// How long it was at first.
        length: u64,
    },
    /// It may not come in: the store, or the file system, is as full as it may be.
    #[error("no room for {digest}")]
    NoRoom {
        /// Blob.
        digest: Digest,
        /// Which limit, and what to do.
        source: NoRoom,
    },
    /// The disk is full.
    #[error("no space left for {digest}: free some on the store's file system")]
    NoSpace {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: DiskError,
    },
    /// The disk refused.
    #[error("cannot import {digest}")]
    Disk {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: DiskError,
    },
    /// The index has as many blobs as it takes.
    #[error("no room for {digest}: the store has {limit} blobs already")]
    Full {
        /// Blob.
        digest: Digest,
        /// How many it takes.
        limit: usize,
    },
    /// The store was closed.
    #[error("cannot import {digest}: the store is closed")]
    Closed {
        /// Blob.
        digest: Digest,
    },
}

/// One import. All of it blocks.
pub(crate) struct Import {
    pub(crate) space: Arc<Space>,
    pub(crate) digest: Digest,
}

impl Import {
    pub(crate) fn file(
        &self,
        path: &Path,
        sign: impl FnOnce(&Metainfo) -> Proof,
    ) -> Result<Blob, ImportError> {
        let file = disk::open_file(path).map_err(|error| self.disk_error(error))?;
        let metainfo = self.cut(&file, path)?;
        if let Some(blob) = self.duplicate()? {
            return self.drop_duplicate(path, blob);
        }
        let room = self.admit(metainfo.length())?;
        disk::sync_data(&file, path).map_err(|error| self.disk_error(error))?;
        let proof = sign(&metainfo);
        let signed = SignedMetainfo { metainfo, proof };
        match self.take_in(path, &signed, &room) {
            Err(ImportError::NoSpace { .. }) if self.space.relieve(0) => self.take_in(path, &signed, &room),
            other => other,
        }
    }

    pub(crate) fn content(
        &self,
        content: &Bytes,
        sign: impl FnOnce(&Metainfo) -> Proof,
    ) -> Result<Blob, ImportError> {
        let found = Digest::of(self.digest.algorithm(), content);
        if found != self.digest {
            return Err(ImportError::DigestMismatch { expected: self.digest, found });
        }
        if let Some(blob) = self.duplicate()? {
            return Ok(blob);
        }
        let write = || {
            let temporary = self.space.directory.temporary();
            disk::write_synced(temporary.path(), content).map(|()| temporary)
        };
        let written = match write() {
            Err(error) if error.is_full() && self.space.relieve(content.len() as u64) => write(),
            other => other,
        };
        self.file(written.map_err(|error| self.disk_error(error))?.path(), sign)
    }

    fn admit(&self, length: u64) -> Result<Reservation, ImportError> {
        let digest = self.digest;
        self.space.admit(length, Kind::Blob).map_err(|refusal| match refusal {
            Refusal::NoRoom(source) => ImportError::NoRoom { digest, source },
            Refusal::Full(IndexFull { limit, .. }) => ImportError::Full { digest, limit },
            Refusal::Disk(source) => self.disk_error(source),
        })
    }

    /// The one pass: proves the digest, hashes the pieces.
    fn cut(&self, file: &File, path: &Path) -> Result<Metainfo, ImportError> {
        let digest = self.digest;
        let failed = |source| self.disk_error(DiskError::new("read", path, source));
        let length = file.metadata().map_err(failed)?.len();
        let geometry =
            Geometry::for_blob(length).map_err(|source| ImportError::Geometry { digest, source })?;
        let mut builder = MetainfoBuilder::new(geometry);
        let mut digester = Digester::new(digest.algorithm());
        // One byte more than it should have, to see whether it grew.
        let taken = for_each_part(file.take(length + 1), |part| {
            digester.update(part);
            builder.update(part);
        });
        if taken.map_err(failed)? != length {
            return Err(ImportError::Changed { digest, length });
        }
        let found = digester.finish();
        if found != digest {
            return Err(ImportError::DigestMismatch { expected: digest, found });
        }
        builder.finish(digest).map_err(|_| ImportError::Changed { digest, length })
    }

    /// `_room` is promised until the blob is in the index.
    fn take_in(
        &self,
        path: &Path,
        signed: &SignedMetainfo,
        _room: &Reservation,
    ) -> Result<Blob, ImportError> {
        let (digest, directory, index) = (self.digest, &self.space.directory, &self.space.index);
        let _change = directory.change(&digest).map_err(|Closed| ImportError::Closed { digest })?;
        let before = index.find(&digest);
        if let Some(Entry::Whole(blob)) = before {
            blob.touch().map_err(|error| self.disk_error(error))?;
            return self.drop_duplicate(path, blob);
        }
        let room = index.check_room_for_blob(&digest);
        room.map_err(|IndexFull { limit, .. }| ImportError::Full { digest, limit })?;
        self.move_in(path, signed).map_err(|error| self.disk_error(error))?;
        let usage = Usage::begin(&self.space.clock);
        let blob = Blob::new(signed.clone(), directory.layout(), usage);
        index.insert(digest, Entry::Whole(blob.clone()));
        if let Some(Entry::Partial(partial)) = before {
            partial.supersede(&blob);
        }
        Ok(blob)
    }

    fn move_in(&self, path: &Path, signed: &SignedMetainfo) -> Result<(), DiskError> {
        let layout = self.space.directory.layout();
        let (blob, metainfo) = (layout.blob(&self.digest), layout.metainfo(&self.digest));
        disk::create_parent(&metainfo)?;
        self.space.directory.write_durable(&metainfo, &signed.encode())?;
        disk::create_parent(&blob)?;
        match disk::rename(path, &blob) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_in(path, &blob)?,
            other => other?,
        }
        disk::sync_parent(&blob)
    }

    fn copy_in(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let temporary = self.space.directory.temporary();
        let path = temporary.path();
        let copied = std::fs::copy(from, path).and_then(|_| File::open(path)?.sync_all());
        copied.map_err(|source| DiskError::new("copy to", path, source))?;
        disk::rename(path, to)?;
        disk::remove(from).map(|_| ())
    }

    /// The blob if it is here already, made young: whoever sends it again relies on it.
    fn duplicate(&self) -> Result<Option<Blob>, ImportError> {
        let digest = self.digest;
        let _change =
            self.space.directory.change(&digest).map_err(|Closed| ImportError::Closed { digest })?;
        let Some(Entry::Whole(blob)) = self.space.index.find(&digest) else { return Ok(None) };
        blob.touch().map_err(|error| self.disk_error(error))?;
        Ok(Some(blob))
    }

    fn drop_duplicate(&self, path: &Path, blob: Blob) -> Result<Blob, ImportError> {
        disk::remove(path).map_err(|error| self.disk_error(error))?;
        Ok(blob)
    }

    fn disk_error(&self, source: DiskError) -> ImportError {
        let digest = self.digest;
        if source.is_full() {
            ImportError::NoSpace { digest, source }
        } else {
            ImportError::Disk { digest, source }
        }
    }
}

/// Reads to the end, and says how many bytes there were.
fn for_each_part(mut input: impl Read, mut visit: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; READ_LENGTH];
    let mut taken = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(taken),
            Ok(count) => {
                visit(&buffer[..count]);
                taken += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One read: two hash functions run over it while it is in a CPU's cache.
const READ_LENGTH: usize = 1 << 20;
