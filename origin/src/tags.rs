//! What the tags of this origin mean, remembered so that a tag that a fleet asks for costs no disk.
//!
//! This process is the only writer of its tags, and every write forgets what was remembered: a moved tag is seen at
//! once. Whatever else may happen to the files (a restore, a hand) is seen after [`LIFETIME`].

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::{Digest, RepositoryName, Tag};

/// A bounded memory of tags, each with the time at which it was read.
pub(crate) struct RecentTags(Mutex<State>);

struct State {
    known: LruCache<(RepositoryName, Tag), (Digest, Instant)>,
    /// How often something was forgotten.
    forgotten: u64,
}

/// A moment before a tag was read. What is forgotten later is not to be remembered from then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Default for RecentTags {
    fn default() -> Self {
        Self(Mutex::new(State { known: LruCache::new(MAX_KNOWN), forgotten: 0 }))
    }
}

impl RecentTags {
    /// To be taken before the disk is read.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.state().forgotten)
    }

    /// What the tag meant less than [`LIFETIME`] before `now`, and still means as far as this process knows.
    pub(crate) fn recall(&self, now: Instant, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        let &(digest, read) = self.state().known.get(&(repository.clone(), tag.clone()))?;
        (now.saturating_duration_since(read) < LIFETIME).then_some(digest)
    }

    /// The disk, read after `asked`, says that the tag means that; not remembered if anything was forgotten since.
    pub(crate) fn learn(
        &self,
        (asked, now): (Moment, Instant),
        repository: &RepositoryName,
        tag: &Tag,
        digest: Digest,
    ) {
        let mut state = self.state();
        if asked == Moment(state.forgotten) {
            state.known.put((repository.clone(), tag.clone()), (digest, now));
        }
    }

    /// The tag was moved or deleted, or that was tried.
    pub(crate) fn forget(&self, repository: &RepositoryName, tag: &Tag) {
        let mut state = self.state();
        state.forgotten += 1;
        state.known.pop(&(repository.clone(), tag.clone()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a tag is believed. A second: one look at the disk a second and tag costs nothing, and is soon enough for
/// whatever did not come through this process.
const LIFETIME: Duration = Duration::from_secs(1);
/// How many tags are remembered: as many as an agent does. About 2 MiB when full.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (RepositoryName, Tag, Digest) {
        let repository = RepositoryName::parse("app").unwrap();
        (repository, Tag::parse("latest").unwrap(), Digest::sha256(b"manifest"))
    }

    #[test]
    fn a_tag_is_believed_until_its_time_is_over_or_it_is_written() {
        let (tags, (repository, tag, digest), start) = (RecentTags::default(), names(), Instant::now());
        tags.learn((tags.moment(), start), &repository, &tag, digest);
        let just_before = start + LIFETIME - Duration::from_millis(1);
        assert_eq!(tags.recall(just_before, &repository, &tag), Some(digest));
        assert_eq!(tags.recall(start + LIFETIME, &repository, &tag), None);
        tags.forget(&repository, &tag);
        assert_eq!(tags.recall(start, &repository, &tag), None);
    }

    #[test]
    fn what_was_read_before_a_write_is_not_remembered_after_it() {
        let (tags, (repository, tag, digest), start) = (RecentTags::default(), names(), Instant::now());
        let asked = tags.moment();
        tags.forget(&repository, &tag);
        tags.learn((asked, start), &repository, &tag, digest);
        assert_eq!(tags.recall(start, &repository, &tag), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (tags, (repository, _, digest), start) = (RecentTags::default(), names(), Instant::now());
        for number in 0..MAX_KNOWN.get() + 10 {
            let tag = Tag::parse(&number.to_string()).unwrap();
            tags.learn((tags.moment(), start), &repository, &tag, digest);
        }
        assert_eq!(tags.state().known.len(), MAX_KNOWN.get());
    }
}
