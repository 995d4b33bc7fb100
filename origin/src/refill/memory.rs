//! What the sources said a moment ago, and which of them sent wrong bytes. Pure: time is an argument. The least recently used
//! is forgotten where there is too much.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use shoal_core::{Digest, RepositoryName};

/// A blob as it was asked for: a source may answer differently for two repositories.
pub(super) type Question = (Option<RepositoryName>, Digest);

/// What all sources together said of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// None has it, or gives it.
    Absent,
    /// One has it, and it is so long.
    Length(u64),
}

/// Why a source is not asked for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guilt {
    /// All of a wrong blob was from it.
    Proved,
    /// It sent a part, and another the rest.
    Suspected,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    words: LruCache<Question, (Word, Instant)>,
    bars: LruCache<(usize, Digest), (Guilt, Instant)>,
    remember: Duration,
    bar: Duration,
}

impl Memory {
    pub(super) fn new(remember: Duration, bar: Duration) -> Self {
        Self { words: LruCache::new(WORDS), bars: LruCache::new(BARS), remember, bar }
    }

    pub(super) fn recall(&mut self, now: Instant, question: &Question) -> Option<Word> {
        let (word, until) = *self.words.get(question)?;
        (now < until).then_some(word)
    }

    pub(super) fn remember(&mut self, now: Instant, question: Question, word: Word) {
        self.words.put(question, (word, now + self.remember));
    }

    /// That source is not to be asked for that blob for a while. Once one is proved guilty, `others` are suspected no more.
    pub(super) fn bar(
        &mut self,
        now: Instant,
        (source, digest): (usize, Digest),
        guilt: Guilt,
        others: impl Iterator<Item = usize>,
    ) {
        self.bars.put((source, digest), (guilt, now + self.bar));
        for other in others.filter(|_| guilt == Guilt::Proved) {
            if let Some((Guilt::Suspected, _)) = self.bars.peek(&(other, digest)) {
                self.bars.pop(&(other, digest));
            }
        }
    }

    pub(super) fn is_barred(&mut self, now: Instant, source: usize, digest: &Digest) -> bool {
        self.bars.get(&(source, *digest)).is_some_and(|(_, until)| now < *until)
    }
}

/// About 2 MiB when full: an answer is good for seconds, and a fleet asks for some thousand blobs in that time.
const WORDS: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");
/// Blobs of which a source sent wrong bytes are few, or the source is to be taken away.
const BARS: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn words_and_bars_hold_for_their_time_and_their_question_alone() {
        let (mut memory, now) = (Memory::new(SECOND, 10 * SECOND), Instant::now());
        let (digest, other) = (Digest::sha256(b"one"), Digest::sha256(b"other"));
        let name = RepositoryName::parse("team/app").unwrap();
        memory.remember(now, (Some(name.clone()), digest), Word::Absent);
        memory.remember(now, (None, digest), Word::Length(7));
        let just_before = now + SECOND - Duration::from_millis(1);
        assert_eq!(memory.recall(just_before, &(Some(name.clone()), digest)), Some(Word::Absent));
        assert_eq!(memory.recall(just_before, &(None, digest)), Some(Word::Length(7)));
        assert_eq!(memory.recall(just_before, &(None, other)), None);
        assert_eq!(memory.recall(now + SECOND, &(None, digest)), None);

        memory.bar(now, (1, digest), Guilt::Suspected, 0..0);
        assert!(memory.is_barred(now + 9 * SECOND, 1, &digest));
        assert!(!memory.is_barred(now, 0, &digest) && !memory.is_barred(now, 1, &other));
        assert!(!memory.is_barred(now + 10 * SECOND, 1, &digest));

        memory.bar(now, (2, digest), Guilt::Proved, 0..3);
        assert!(memory.is_barred(now, 2, &digest) && !memory.is_barred(now, 1, &digest));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut memory, now) = (Memory::new(SECOND, SECOND), Instant::now());
        for number in 0..=WORDS.get() as u64 {
            memory.remember(now, (None, Digest::sha256(&number.to_be_bytes())), Word::Absent);
            memory.bar(now, (0, Digest::sha256(&number.to_be_bytes())), Guilt::Proved, 0..1);
        }
        assert_eq!((memory.words.len(), memory.bars.len()), (WORDS.get(), BARS.get()));
    }
}
