//! How far a partial is: its pieces and its phase, and every step from one phase to the next.
//!
//! ```text
//! Open <-> Failed      the fetch gave up; taken up again by `Store::create`
//! Open, Failed -> Proved -> Whole       commit
//! any but Whole -> Gone                 deleted, wrong digest, disk failure, store closed
//! ```

use std::fs::File;
use std::sync::Arc;

use shoal_core::{Bitfield, Digest, PieceIndex};

use crate::blob::Blob;

/// What readers of a partial wait for a change of.
#[derive(Debug)]
pub(crate) struct Progress {
    pieces: Bitfield,
    phase: Phase,
    /// How often the fetch failed so far: who began to read before a failure is told of it even if another fetch began since.
    failures: u64,
    last_failure: Arc<str>,
    /// Whether somebody signed the hashes of all pieces: then each is right by itself.
    vouched: bool,
}

/// Where a partial is in its life.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Pieces arrive.
    Open,
    /// Nobody fetches it now: it may be evicted.
    Failed,
    /// All pieces are in, and together they have the blob's digest.
    Proved,
    /// Committed (or the blob came another way); the file has all its bytes.
    Whole {
        /// What it became.
        blob: Blob,
        /// Its bytes.
        file: Arc<File>,
    },
    /// Its files are removed or no longer ours.
    Gone(Gone),
}

/// Why a partial is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Somebody deleted it, or it was evicted.
    Deleted,
    /// All pieces were right, and together they were another blob: the metainfo lied.
    WrongDigest(Digest),
    /// The disk lost what it had taken (a sync failed): which pieces are right is not known any more.
    DiskFailed,
    /// The store was closed.
    Closed,
}

impl Progress {
    pub(crate) fn new(pieces: Bitfield) -> Self {
        Self { pieces, phase: Phase::Open, failures: 0, last_failure: "".into(), vouched: true }
    }

    /// As a start finds it: nobody fetches it yet, or any more.
    pub(crate) fn found(pieces: Bitfield) -> Self {
        let last_failure = "a restart interrupted the fetch".into();
        Self { phase: Phase::Failed, last_failure, ..Self::new(pieces) }
    }

    /// The same, of pieces whose hashes nobody has signed.
    pub(crate) fn not_vouched_for(self) -> Self {
        Self { vouched: false, ..self }
    }

    pub(crate) fn pieces(&self) -> &Bitfield {
        &self.pieces
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// Why a reader that knows of `known` failures must not wait any longer, if so.
    pub(crate) fn failure_since(&self, known: u64) -> Option<Arc<str>> {
        let failed = matches!(self.phase, Phase::Failed) || self.failures > known;
        failed.then(|| self.last_failure.clone())
    }

    pub(crate) fn is_vouched_for(&self) -> bool {
        self.vouched
    }

    /// Whether the blob's own digest was checked.
    pub(crate) fn is_proved(&self) -> bool {
        matches!(self.phase, Phase::Proved | Phase::Whole { .. })
    }

    /// Marks a piece whose right bytes are in the file. Says whether it is new.
    pub(crate) fn insert(&mut self, piece: PieceIndex) -> bool {
        self.pieces.insert(piece)
    }

    /// Says whether anything changed, as all the following do.
    pub(crate) fn fail(&mut self, reason: &str) -> bool {
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Failed;
                self.failures += 1;
                self.last_failure = reason.into();
                true
            }
            // All pieces are in, or nobody can wait: there is nothing to end.
            Phase::Failed | Phase::Proved | Phase::Whole { .. } | Phase::Gone(_) => false,
        }
    }

    pub(crate) fn vouch(&mut self) -> bool {
        !std::mem::replace(&mut self.vouched, true)
    }

    pub(crate) fn revive(&mut self) -> bool {
        match self.phase {
            Phase::Failed => {
                self.phase = Phase::Open;
                true
            }
            Phase::Open | Phase::Proved | Phase::Whole { .. } | Phase::Gone(_) => false,
        }
    }

    pub(crate) fn prove(&mut self) -> bool {
        match self.phase {
            Phase::Open | Phase::Failed => {
                self.phase = Phase::Proved;
                true
            }
            Phase::Proved | Phase::Whole { .. } | Phase::Gone(_) => false,
        }
    }

    /// From any phase but the last two: an import may overtake the pieces.
    pub(crate) fn complete(&mut self, blob: Blob, file: Arc<File>) -> bool {
        match self.phase {
            Phase::Open | Phase::Failed | Phase::Proved => {
                self.pieces = Bitfield::full(self.pieces.len());
                self.phase = Phase::Whole { blob, file };
                true
            }
            Phase::Whole { .. } | Phase::Gone(_) => false,
        }
    }

    pub(crate) fn end(&mut self, why: Gone) -> bool {
        match self.phase {
            Phase::Open | Phase::Failed | Phase::Proved => {
                self.phase = Phase::Gone(why);
                true
            }
            Phase::Whole { .. } | Phase::Gone(_) => false,
        }
    }
}
