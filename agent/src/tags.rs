//! What tags mean: asked of the origins, believed for a while.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::{Digest, RepositoryName, Tag};

/// A bounded memory of tags, each with the time at which it was asked for.
pub(crate) struct Tags {
    ttl: Duration,
    known: Mutex<LruCache<(RepositoryName, Tag), (Digest, Instant)>>,
}

impl Tags {
    /// How many tags are remembered.
    const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, known: Mutex::new(LruCache::new(Self::MAX_KNOWN)) }
    }

    /// What the tag meant less than `ttl` before `now`.
    pub(crate) fn recall(&self, repository: &RepositoryName, tag: &Tag, now: Instant) -> Option<Digest> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let &(digest, learnt) = known.get(&(repository.clone(), tag.clone()))?;
        (now.saturating_duration_since(learnt) < self.ttl).then_some(digest)
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
        let tags = Tags::new(Duration::from_secs(5));
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
        let tags = Tags::new(Duration::from_secs(5));
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
    fn the_memory_is_bounded() {
        let (tags, now) = (Tags::new(Duration::from_secs(5)), Instant::now());
        let (repository, digest) = (RepositoryName::parse("app").unwrap(), Digest::sha256(b"manifest"));
        for number in 0..Tags::MAX_KNOWN.get() + 10 {
            tags.learn(&repository, &Tag::parse(&number.to_string()).unwrap(), digest, now);
        }
        assert_eq!(tags.known.lock().unwrap().len(), Tags::MAX_KNOWN.get());
    }
}
