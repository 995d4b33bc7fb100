//! What is given up when room is needed: pure decisions, without a disk and without a clock.
//!
//! First go partials that nobody came back to for [`ABANDONED_AFTER`], then everything else; each least recently used
//! first, and never more than is needed. What is in use is no candidate. Where giving up everything would not make
//! enough room, nothing is given up and the answer is why.

use std::time::Duration;

use shoal_core::Digest;

use crate::usage::Moment;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole blob.
    Blob,
    /// Some pieces of one.
    Partial,
}

/// An entry that nobody uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) digest: Digest,
    pub(crate) kind: Kind,
    pub(crate) length: u64,
    pub(crate) last_used: Moment,
}

/// How full the store and its file system are, and how full they may be. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    /// In the store, or promised to what is about to be.
    pub(crate) used: u64,
    pub(crate) capacity: u64,
    /// Above it the store is emptied in the background, down to `low`.
    pub(crate) high: u64,
    pub(crate) low: u64,
    /// Free on the file system and not promised.
    pub(crate) available: u64,
    pub(crate) min_free: u64,
}

/// Why a blob may not come in, though the disk has not refused it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// It would not fit if it were alone.
    #[error("{length} bytes are more than the store's capacity of {capacity}: raise store.capacity")]
    TooLarge {
        /// How long the blob is.
        length: u64,
        /// All that the store may have.
        capacity: u64,
    },
    /// Too much of the rest is being read or fetched.
    #[error(
        "{length} bytes do not fit: of the store's capacity of {capacity} all but {evictable} is in use: try later, or raise store.capacity"
    )]
    InUse {
        /// How long the blob is.
        length: u64,
        /// All that the store may have.
        capacity: u64,
        /// What was free, or could have been given up.
        evictable: u64,
    },
    /// The file system is fuller than it may be, and not by what could be given up here.
    #[error(
        "{length} bytes do not fit: the file system has {available} free and must keep {min_free}: free some, or lower store.min_free"
    )]
    MinFree {
        /// How long the blob is.
        length: u64,
        /// What the file system has.
        available: u64,
        /// What it must keep.
        min_free: u64,
    },
}

impl Levels {
    /// Whether that many bytes may come in as it is.
    pub(crate) fn admits(&self, length: u64) -> bool {
        self.excess(length) == 0
    }

    /// What must go before that many bytes may come in.
    pub(crate) fn admit(
        &self,
        length: u64,
        candidates: Vec<Candidate>,
        now: Moment,
    ) -> Result<Vec<Candidate>, NoRoom> {
        let Self { capacity, available, min_free, .. } = *self;
        if length > capacity {
            return Err(NoRoom::TooLarge { length, capacity });
        }
        let excess = self.excess(length);
        let evictable = total(&candidates);
        if evictable >= excess {
            return Ok(choose(candidates, excess, now));
        }
        if evictable < self.over_capacity(length) {
            let evictable = evictable.saturating_add(capacity.saturating_sub(self.used));
            return Err(NoRoom::InUse { length, capacity, evictable });
        }
        Err(NoRoom::MinFree { length, available, min_free })
    }

    /// What should go while nobody waits for it.
    pub(crate) fn rest(&self, candidates: Vec<Candidate>, now: Moment) -> Vec<Candidate> {
        let over = if self.used > self.high { self.used.saturating_sub(self.low) } else { 0 };
        choose(candidates, over.max(self.min_free.saturating_sub(self.available)), now)
    }

    fn excess(&self, length: u64) -> u64 {
        let over_disk = self.min_free.saturating_add(length).saturating_sub(self.available);
        self.over_capacity(length).max(over_disk)
    }

    fn over_capacity(&self, length: u64) -> u64 {
        self.used.saturating_add(length).saturating_sub(self.capacity)
    }
}

/// The first of those that may go, until `excess` bytes are free; all of them if they do not suffice.
pub(crate) fn choose(mut candidates: Vec<Candidate>, excess: u64, now: Moment) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|candidate| (!candidate.is_abandoned(now), candidate.last_used));
    let mut freed = 0_u64;
    let enough = candidates.iter().take_while(|candidate| {
        let more = freed < excess;
        freed = freed.saturating_add(candidate.length);
        more
    });
    let count = enough.count();
    candidates.truncate(count);
    candidates
}

pub(crate) fn total(candidates: &[Candidate]) -> u64 {
    candidates.iter().fold(0, |sum, candidate| sum.saturating_add(candidate.length))
}

impl Candidate {
    fn is_abandoned(&self, now: Moment) -> bool {
        self.kind == Kind::Partial && now.since(self.last_used) >= ABANDONED_AFTER
    }
}

/// A kubelet tries a pull again within five minutes at the latest: who was not back by twice that does not come.
pub(crate) const ABANDONED_AFTER: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
