//! What the upstreams said a moment ago. Pure: time is an argument. The least recently used is forgotten where there is too much.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_control::cluster::message::{LinkName, TagName};
use shoal_core::Digest;

/// What is known of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The upstream says that it names this.
    Names(Digest),
    /// The upstream does not have it, or does not give it.
    Absent,
    /// The upstream did not answer; why.
    Silent(Arc<str>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    tags: LruCache<TagName, (Word, Instant)>,
    absent: LruCache<LinkName, Instant>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { tags: LruCache::new(TAGS), absent: LruCache::new(ABSENT) }
    }

    /// What holds of a tag, and for how much longer.
    pub(super) fn tag(&mut self, now: Instant, name: &TagName) -> Option<(Word, Duration)> {
        let (word, until) = self.tags.get(name)?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then(|| (word.clone(), left))
    }

    pub(super) fn learn_tag(&mut self, now: Instant, name: TagName, word: Word, lifetime: Duration) {
        self.tags.put(name, (word, now + lifetime));
    }

    pub(super) fn is_absent(&mut self, now: Instant, link: &LinkName) -> bool {
        self.absent.get(link).is_some_and(|until| now < *until)
    }

    pub(super) fn learn_absent(&mut self, now: Instant, link: LinkName, lifetime: Duration) {
        self.absent.put(link, now + lifetime);
    }
}

/// Some 5 MiB when full; one that is forgotten costs a question to the upstream.
const TAGS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Whoever asks for more that is nowhere, in half a minute, has the upstream asked again: its own limits hold.
const ABSENT: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

#[cfg(test)]
mod tests {
    use shoal_control::cluster::message::LinkTo;
    use shoal_core::{RepositoryName, Tag};

    use super::*;

    #[test]
    fn words_hold_for_their_time() {
        let (mut memory, now, second) = (Memory::new(), Instant::now(), Duration::from_secs(1));
        let repository = RepositoryName::parse("docker.io/library/alpine").unwrap();
        let name = TagName { repository: repository.clone(), tag: Tag::parse("3").unwrap() };
        memory.learn_tag(now, name.clone(), Word::Absent, 2 * second);
        assert_eq!(memory.tag(now + second, &name), Some((Word::Absent, second)));
        assert_eq!(memory.tag(now + 2 * second, &name), None);
        let link = LinkName { repository, to: LinkTo::Layer, digest: Digest::sha256(b"") };
        memory.learn_absent(now, link.clone(), second);
        assert!(memory.is_absent(now, &link) && !memory.is_absent(now + second, &link));
        assert!(!memory.is_absent(now, &LinkName { to: LinkTo::Revision, ..link }));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        let repository = RepositoryName::parse("a").unwrap();
        for number in 0..=TAGS.get() {
            let tag = Tag::parse(&format!("t{number}")).unwrap();
            let name = TagName { repository: repository.clone(), tag };
            memory.learn_tag(now, name, Word::Absent, Duration::from_secs(1));
            let digest = Digest::sha256(&number.to_be_bytes());
            let link = LinkName { repository: repository.clone(), to: LinkTo::Layer, digest };
            memory.learn_absent(now, link, Duration::from_secs(1));
        }
        assert_eq!((memory.tags.len(), memory.absent.len()), (TAGS.get(), ABSENT.get()));
    }
}
