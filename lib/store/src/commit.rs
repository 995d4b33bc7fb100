//! From a partial with all its pieces to a blob, in steps between any two of which the process may die.
//!
//! Prove the digest (unless the pieces are proof enough); sync the bytes; write the metainfo at the blob's place; move the file there; sync the directories;
//! remove the partial's sidecars. Until the move a crash leaves the partial (and maybe a metainfo without blob, which
//! recovery removes); after it the blob, whose bytes and metainfo were durable before. Each step may be repeated.

use std::io;
use std::sync::Arc;

use shoal_core::{Digest, Metainfo, Proof, SignedMetainfo};

use crate::blob::Blob;
use crate::directory::Closed;
use crate::disk::{self, DiskError};
use crate::index::Entry;
use crate::partial::{Inner, Partial};
use crate::progress::{Gone, Phase, Progress};

/// Why a partial did not become a blob.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Pieces are missing.
    #[error("{missing} pieces of {digest} are missing")]
    Incomplete {
        /// Blob.
        digest: Digest,
        /// How many.
        missing: u32,
    },
    /// Every piece was right, but not the blob: its metainfo lied. The partial is discarded.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// Said.
        expected: Digest,
        /// Is.
        found: Digest,
    },
    /// The disk is full. Where only the metainfo had no room, the partial stays, and another try may do.
    #[error("no space left to commit {digest}")]
    NoSpace {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: DiskError,
    },
    /// The disk refused.
    #[error("cannot commit {digest}")]
    Disk {
        /// Blob.
        digest: Digest,
        /// What the file system said.
        source: DiskError,
    },
    /// The partial was deleted or discarded meanwhile.
    #[error("the partial {digest} is gone")]
    Gone {
        /// Blob.
        digest: Digest,
    },
    /// Nobody has signed the hashes of its pieces.
    #[error("nobody signed the pieces of {digest}")]
    Unsigned {
        /// Blob.
        digest: Digest,
    },
}

/// The steps that change names, in order; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    WriteMetainfo,
    MoveBytes,
    SyncDirectories,
    RemoveSidecars,
}

impl Step {
    pub(crate) const ALL: [Self; 4] =
        [Self::WriteMetainfo, Self::MoveBytes, Self::SyncDirectories, Self::RemoveSidecars];
}

impl Inner {
    /// On a full disk others are given up, once.
    pub(crate) fn commit(self: &Arc<Self>) -> Result<Blob, CommitError> {
        let _pin = self.usage.pin().ok_or_else(|| self.gone())?;
        match self.try_commit() {
            Err(CommitError::NoSpace { .. }) if self.relieve(0) => self.try_commit(),
            other => other,
        }
    }

    /// The same for a partial whose pieces nobody has signed yet: that is done once they are proved to be the blob.
    pub(crate) fn commit_signed(
        self: &Arc<Self>,
        sign: impl FnOnce(&Metainfo) -> Proof,
    ) -> Result<Blob, CommitError> {
        let _pin = self.usage.pin().ok_or_else(|| self.gone())?;
        self.prove_and_sync()?;
        if self.hashes.signed().is_none() {
            let digest = self.digest();
            let metainfo = Metainfo::new(digest, *self.metainfo().geometry(), self.hashes.from(0));
            let metainfo = metainfo.map_err(|_| CommitError::Unsigned { digest })?;
            let proof = sign(&metainfo);
            let vouched = self.vouch(&SignedMetainfo { metainfo, proof });
            vouched.map_err(|_| CommitError::Unsigned { digest })?;
        }
        self.commit()
    }

    /// The metainfo with all hashes.
    fn signed(&self) -> Result<&SignedMetainfo, CommitError> {
        self.hashes.signed().ok_or_else(|| CommitError::Unsigned { digest: self.digest() })
    }

    fn try_commit(self: &Arc<Self>) -> Result<Blob, CommitError> {
        self.prove_and_sync()?;
        if let Some(settled) = self.settled() {
            return settled;
        }
        let signed = self.signed()?;
        let change = self.directory.change(&self.digest()).map_err(|Closed| self.gone())?;
        // Another commit, or an import, may have been first.
        if let Some(settled) = self.settled() {
            return settled;
        }
        for step in Step::ALL {
            self.take(step, signed).map_err(|source| CommitError::of_disk(self.digest(), source))?;
        }
        let blob = self.become_whole(signed);
        drop(change);
        Ok(blob)
    }

    /// The part that takes long and changes no name: done before others are held off, and harmless if done twice.
    pub(crate) fn prove_and_sync(&self) -> Result<(), CommitError> {
        if let Some(settled) = self.settled() {
            return settled.map(|_| ());
        }
        self.prove()?;
        self.sync().map_err(|source| CommitError::of_disk(self.digest(), source))
    }

    fn prove(&self) -> Result<(), CommitError> {
        let digest = self.digest();
        let missing = {
            let progress = self.progress.borrow();
            progress.pieces().len() - progress.pieces().count()
        };
        if missing > 0 {
            return Err(CommitError::Incomplete { digest, missing });
        }
        if let Some(frontier) = &self.frontier {
            let found = frontier.finish(&self.file, self.metainfo().geometry()).map_err(|source| {
                CommitError::Disk { digest, source: DiskError::new("read back", &self.path(), source) }
            })?;
            if found != digest {
                self.discard(Gone::WrongDigest(found));
                return Err(CommitError::DigestMismatch { expected: digest, found });
            }
        }
        self.progress.send_if_modified(Progress::prove);
        Ok(())
    }

    pub(crate) fn take(&self, step: Step, signed: &SignedMetainfo) -> Result<(), DiskError> {
        let digest = self.digest();
        let layout = self.directory.layout();
        let (from, to) = (self.path(), layout.blob(&digest));
        match step {
            Step::WriteMetainfo => {
                let path = layout.metainfo(&digest);
                disk::create_parent(&path)?;
                self.directory.write_durable(&path, &signed.encode())
            }
            Step::MoveBytes => {
                disk::create_parent(&to)?;
                match disk::rename(&from, &to) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
                    other => other,
                }
            }
            Step::SyncDirectories => {
                disk::sync_parent(&to)?;
                disk::sync_parent(&from)
            }
            Step::RemoveSidecars => self.directory.remove_partial(&digest),
        }
    }

    fn become_whole(self: &Arc<Self>, signed: &SignedMetainfo) -> Blob {
        let digest = self.digest();
        let blob = Blob::new(signed.clone(), self.directory.layout(), self.usage.clone());
        if let Some(space) = self.space.upgrade() {
            space.index.insert(digest, Entry::Whole(blob.clone()));
        }
        self.progress.send_if_modified(|progress| progress.complete(blob.clone(), self.file.clone()));
        blob
    }

    /// The result, if there is one already.
    fn settled(&self) -> Option<Result<Blob, CommitError>> {
        let expected = self.digest();
        match self.progress.borrow().phase() {
            Phase::Open | Phase::Failed | Phase::Proved => None,
            Phase::Whole { blob, .. } => Some(Ok(blob.clone())),
            Phase::Gone(Gone::WrongDigest(found)) => {
                Some(Err(CommitError::DigestMismatch { expected, found: *found }))
            }
            Phase::Gone(Gone::Deleted | Gone::DiskFailed | Gone::Closed) => Some(Err(self.gone())),
        }
    }

    fn gone(&self) -> CommitError {
        CommitError::Gone { digest: self.digest() }
    }
}

impl Partial {
    /// The blob came another way: readers go on in its file. Call under the digest's change.
    pub(crate) fn supersede(&self, blob: &Blob) {
        let was = &self.0;
        let same_length = blob.metainfo().length() == was.metainfo().length();
        let file = blob.open();
        was.progress.send_if_modified(|progress| match file {
            Ok(file) if same_length => progress.complete(blob.clone(), Arc::new(file)),
            _ => progress.end(Gone::Deleted),
        });
        let digest = was.digest();
        if let Err(error) = was.directory.remove_partial(&digest) {
            tracing::warn!(%digest, error = error.describe(), "files of a superseded partial stay until the next start");
        }
    }
}

impl CommitError {
    fn of_disk(digest: Digest, source: DiskError) -> Self {
        if source.is_full() { Self::NoSpace { digest, source } } else { Self::Disk { digest, source } }
    }
}
