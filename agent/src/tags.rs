//! What tags mean: asked of the origins, believed for a while.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::{Digest, RepositoryName, Tag};

/// A bounded memory of tags, each with the time at which it was learnt.
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

    /// The origins said at `now` that the tag means that.
    pub(crate) fn learn(&self, repository: &RepositoryName, tag: &Tag, digest: Digest, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.put((repository.clone(), tag.clone()), (digest, now));
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
}
