//! What tags mean: asked of the origins, believed for a while, and, if the operator says so, remembered for a time when no
//! origin answers.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::{Digest, RepositoryName, Tag};

/// A bounded memory of tags, each with the time at which it was asked for.
pub(crate) struct Tags {
    ttl: Duration,
    stale: Duration,
    known: Mutex<LruCache<(RepositoryName, Tag), (Digest, Instant)>>,
}

impl Tags {
    /// How many tags are remembered.
    const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

    /// Answers of origins, which are believed for `ttl`, and for `stale` where there is nobody to ask.
    pub(crate) fn new(ttl: Duration, stale: Duration) -> Self {
        Self { ttl, stale, known: Mutex::new(LruCache::new(Self::MAX_KNOWN)) }
    }

    /// What the tag meant less than `ttl` before `now`.
    pub(crate) fn recall(&self, repository: &RepositoryName, tag: &Tag, now: Instant) -> Option<Digest> {
        self.learnt_within(self.ttl, repository, tag, now)
    }

    /// What the tag meant less than `stale` before `now`, for want of an answer.
    pub(crate) fn recall_stale(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        now: Instant,
    ) -> Option<Digest> {
        self.learnt_within(self.stale, repository, tag, now)
    }

    fn learnt_within(
        &self,
        time: Duration,
        repository: &RepositoryName,
        tag: &Tag,
        now: Instant,
    ) -> Option<Digest> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let &(digest, learnt) = known.get(&(repository.clone(), tag.clone()))?;
        (now.saturating_duration_since(learnt) < time).then_some(digest)
    }

    /// The origins, asked at `asked`, said that there is no such tag.
    pub(crate) fn forget(&self, repository: &RepositoryName, tag: &Tag, asked: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (repository.clone(), tag.clone());
        if known.peek(&key).is_some_and(|&(_, learnt)| learnt <= asked) {
            known.pop(&key);
        }
    }

    /// The origins, asked at `asked`, said that the tag means that. Of two answers the one to the later question holds.
    pub(crate) fn learn(&self, repository: &RepositoryName, tag: &Tag, digest: Digest, asked: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (repository.clone(), tag.clone());
        if known.peek(&key).is_none_or(|&(_, learnt)| learnt <= asked) {
            known.put(key, (digest, asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_believed_until_its_time_is_over() {
        let tags = Tags::new(Duration::from_secs(5), Duration::ZERO);
        let (repository, tag) = (RepositoryName::parse("app").unwrap(), Tag::parse("latest").unwrap());
        let digest = Digest::sha256(b"manifest");
        let start = Instant::now();
        assert_eq!(tags.recall(&repository, &tag, start), None);
        tags.learn(&repository, &tag, digest, start);
        assert_eq!(tags.recall(&repository, &tag, start + Duration::from_millis(4999)), Some(digest));
        assert_eq!(tags.recall(&repository, &tag, start + Duration::from_secs(5)), None);
    }

    #[test]
    fn a_moved_tag_is_seen_within_its_time_also_by_a_late_answer() {
        let tags = Tags::new(Duration::from_secs(5), Duration::ZERO);
        let (repository, tag) = (RepositoryName::parse("app").unwrap(), Tag::parse("latest").unwrap());
        let (old, new) = (Digest::sha256(b"old"), Digest::sha256(b"new"));
        let (start, later) = (Instant::now(), Instant::now() + Duration::from_secs(2));
        tags.learn(&repository, &tag, new, later);
        // The question was first, its answer comes last.
        tags.learn(&repository, &tag, old, start);
        assert_eq!(tags.recall(&repository, &tag, later), Some(new));
        let expired = later + Duration::from_secs(5);
        assert_eq!(tags.recall(&repository, &tag, expired), None);
        tags.learn(&repository, &tag, old, expired);
        assert_eq!(tags.recall(&repository, &tag, expired), Some(old));
    }

    #[test]
    fn a_tag_is_remembered_for_want_of_an_answer_and_not_once_it_was_deleted() {
        let tags = Tags::new(Duration::from_secs(5), Duration::from_secs(60));
        let (repository, tag) = (RepositoryName::parse("app").unwrap(), Tag::parse("latest").unwrap());
        let (digest, start) = (Digest::sha256(b"manifest"), Instant::now());
        tags.learn(&repository, &tag, digest, start);
        let later = start + Duration::from_secs(59);
        assert_eq!(tags.recall(&repository, &tag, later), None);
        assert_eq!(tags.recall_stale(&repository, &tag, later), Some(digest));
        assert_eq!(tags.recall_stale(&repository, &tag, start + Duration::from_secs(60)), None);
        // An answer to a question from before says nothing of what was learnt since.
        tags.learn(&repository, &tag, digest, later);
        tags.forget(&repository, &tag, start);
        assert_eq!(tags.recall_stale(&repository, &tag, later), Some(digest));
        tags.forget(&repository, &tag, later);
        assert_eq!(tags.recall_stale(&repository, &tag, later), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (tags, now) = (Tags::new(Duration::from_secs(5), Duration::ZERO), Instant::now());
        let (repository, digest) = (RepositoryName::parse("app").unwrap(), Digest::sha256(b"manifest"));
        for number in 0..Tags::MAX_KNOWN.get() + 10 {
            tags.learn(&repository, &Tag::parse(&number.to_string()).unwrap(), digest, now);
        }
        assert_eq!(tags.known.lock().unwrap().len(), Tags::MAX_KNOWN.get());
    }
}
