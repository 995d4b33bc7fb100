//! What a node has to tell its tracker, coalesced: a blob's last change is the only one that counts.
//!
//! Bounded without losing anything: when too many changes wait (no tracker answers), they are dropped for one note
//! that everything must be sent, which the snapshot of the caller then covers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use shoal_core::Digest;

use crate::message::Holding;

/// What waits to be announced.
#[derive(Debug)]
pub(crate) enum Changes {
    /// These blobs changed.
    Some(HashMap<Digest, Change>),
    /// Whatever changed: everything is to be sent.
    Everything,
}

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is here now.
    Added {
        /// Every piece of it.
        complete: bool,
    },
    /// It is here no more.
    Removed,
}

/// What the next announce has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// These changes, possibly none.
    Changes {
        /// Blobs that are here.
        added: Vec<Holding>,
        /// Blobs that are here no more.
        removed: Vec<Digest>,
    },
    /// All of the caller's snapshot, which must be taken after this batch was.
    Everything,
}

impl Changes {
    /// The most changes that wait: above it a snapshot is the shorter message. About 10 MB.
    const MAX_WAITING: usize = 100_000;

    /// Notes what became of a blob.
    pub(crate) fn note(&mut self, digest: Digest, change: Change) {
        if let Self::Some(changes) = self {
            changes.insert(digest, change);
            if changes.len() > Self::MAX_WAITING {
                *self = Self::Everything;
            }
        }
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Some(changes) if changes.is_empty())
    }

    /// Takes at most `limit` changes out, or the note that everything must be sent.
    pub(crate) fn take(&mut self, limit: usize) -> Batch {
        let Self::Some(changes) = self else {
            *self = Self::Some(HashMap::new());
            return Batch::Everything;
        };
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (digest, change) in changes.extract_if(|_, _| true).take(limit) {
            match change {
                Change::Added { complete } => added.push(Holding { digest, complete }),
                Change::Removed => removed.push(digest),
            }
        }
        Batch::Changes { added, removed }
    }

    /// Puts a batch that could not be sent back; what was noted since then counts more.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        let Batch::Changes { added, removed } = batch else {
            *self = Self::Everything;
            return;
        };
        let added = added.into_iter().map(|one| (one.digest, Change::Added { complete: one.complete }));
        for (digest, change) in added.chain(removed.into_iter().map(|digest| (digest, Change::Removed))) {
            let Self::Some(changes) = self else { return };
            if let Entry::Vacant(entry) = changes.entry(digest) {
                entry.insert(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::Sha256([number; 32])
    }

    fn change(number: u8) -> Change {
        match number % 3 {
            0 => Change::Removed,
            other => Change::Added { complete: other == 1 },
        }
    }

    /// What a tracker knows after it took the batch.
    fn tell(known: &mut HashMap<Digest, Change>, batch: &Batch) {
        let Batch::Changes { added, removed } = batch else { panic!("nobody asked for everything") };
        known.extend(added.iter().map(|one| (one.digest, Change::Added { complete: one.complete })));
        known.extend(removed.iter().map(|digest| (*digest, Change::Removed)));
    }

    #[test]
    fn too_many_changes_become_everything() {
        let mut changes = Changes::Some(HashMap::new());
        for number in 0..=Changes::MAX_WAITING {
            changes.note(Digest::sha256(&number.to_le_bytes()), Change::Removed);
        }
        assert_eq!(changes.take(1), Batch::Everything);
        assert!(changes.is_empty());
    }

    #[test]
    fn everything_is_asked_for_again_when_it_could_not_be_sent() {
        let mut changes = Changes::Everything;
        let batch = changes.take(1);
        changes.note(digest(1), Change::Removed);
        changes.put_back(batch);
        assert_eq!(changes.take(1), Batch::Everything);
    }

    proptest! {
        #[test]
        fn the_tracker_learns_the_last_change_of_each_blob(
            steps in prop::collection::vec((0u8..8, any::<u8>(), any::<bool>(), any::<bool>()), 0..60)
        ) {
            let mut changes = Changes::Some(HashMap::new());
            let (mut truth, mut known) = (HashMap::new(), HashMap::new());
            for (blob, what, send, fails) in steps {
                truth.insert(digest(blob), change(what));
                changes.note(digest(blob), change(what));
                if send {
                    let batch = changes.take(2);
                    if fails {
                        changes.put_back(batch);
                    } else {
                        tell(&mut known, &batch);
                    }
                }
            }
            while !changes.is_empty() {
                tell(&mut known, &changes.take(2));
            }
            prop_assert_eq!(known, truth);
        }
    }
}
