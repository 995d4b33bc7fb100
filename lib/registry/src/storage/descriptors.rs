//! A short memory of which blobs a repository has, so that a HEAD and the GET behind it ask the driver once.
//!
//! Keyed by repository *and* digest: a blob that one repository lost is not handed out because another one has it
//! (CVE-2026-35172). Only what was found is kept; what was not may be there a moment later. Time is an argument.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_core::{Digest, RepositoryName};
use tokio::time::Instant;

use super::blobs::Descriptor;

/// Sizes of blobs, by repository and digest.
pub(super) struct Descriptors {
    known: Mutex<Known>,
}

struct Known {
    entries: LruCache<(RepositoryName, Digest), Entry>,
    forgotten: Epoch,
}

/// How many blobs were forgotten so far: what the driver was asked for before the last of them may be gone since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch(u64);

#[derive(Clone, Copy)]
struct Entry {
    size: u64,
    expires: Instant,
}

impl Default for Descriptors {
    fn default() -> Self {
        let known = Known { entries: LruCache::new(CAPACITY), forgotten: Epoch::default() };
        Self { known: Mutex::new(known) }
    }
}

impl Descriptors {
    /// To be taken before the driver is asked for what [`Descriptors::remember`] is told then.
    pub(super) fn epoch(&self) -> Epoch {
        self.lock().forgotten
    }

    /// The size of a blob that was seen in that repository a moment ago.
    pub(super) fn lookup(&self, now: Instant, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        let key = (repository.clone(), *digest);
        let mut known = self.lock();
        let entry = *known.entries.get(&key)?;
        if now < entry.expires {
            return Some(entry.size);
        }
        known.entries.pop(&key);
        None
    }

    /// The blob was in the repository after `asked`, and has that many bytes. Nothing is kept where a blob was forgotten
    /// since: it may have been this one.
    pub(super) fn remember(
        &self,
        asked: Epoch,
        now: Instant,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) {
        let mut known = self.lock();
        if known.forgotten == asked {
            let entry = Entry { size: blob.size, expires: now + LIFETIME };
            known.entries.put((repository.clone(), blob.digest), entry);
        }
    }

    /// The blob may not be in the repository any more.
    pub(super) fn forget(&self, repository: &RepositoryName, digest: &Digest) {
        let mut known = self.lock();
        known.entries.pop(&(repository.clone(), *digest));
        known.forgotten.0 += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long what another node deleted may still be answered here: longer than from a HEAD to its GET, no longer.
const LIFETIME: Duration = Duration::from_secs(10);
/// About 3 MiB when full; the layers of a thousand images.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn blob(content: &[u8]) -> Descriptor {
        Descriptor { digest: Digest::sha256(content), size: 7 }
    }

    fn remember(descriptors: &Descriptors, now: Instant, blob: &Descriptor) {
        descriptors.remember(descriptors.epoch(), now, &name("a"), blob);
    }

    #[test]
    fn a_blob_is_remembered_for_its_repository_only() {
        let (descriptors, blob, now) = (Descriptors::default(), blob(b"x"), Instant::now());
        remember(&descriptors, now, &blob);
        assert_eq!(descriptors.lookup(now, &name("a"), &blob.digest), Some(7));
        assert_eq!(descriptors.lookup(now, &name("b"), &blob.digest), None);
    }

    #[test]
    fn a_blob_is_forgotten_when_its_time_is_up_or_when_told() {
        let (descriptors, blob, now) = (Descriptors::default(), blob(b"x"), Instant::now());
        remember(&descriptors, now, &blob);
        assert_eq!(descriptors.lookup(now + LIFETIME, &name("a"), &blob.digest), None);
        assert_eq!(descriptors.lookup(now, &name("a"), &blob.digest), None);
        remember(&descriptors, now, &blob);
        descriptors.forget(&name("a"), &blob.digest);
        assert_eq!(descriptors.lookup(now, &name("a"), &blob.digest), None);
    }

    #[test]
    fn what_was_seen_before_a_delete_is_not_remembered_after_it() {
        let (descriptors, blob, now) = (Descriptors::default(), blob(b"x"), Instant::now());
        let asked = descriptors.epoch();
        descriptors.forget(&name("a"), &blob.digest);
        descriptors.remember(asked, now, &name("a"), &blob);
        assert_eq!(descriptors.lookup(now, &name("a"), &blob.digest), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (descriptors, now) = (Descriptors::default(), Instant::now());
        for number in 0..CAPACITY.get() + 10 {
            remember(&descriptors, now, &blob(&number.to_be_bytes()));
        }
        assert_eq!(descriptors.lock().entries.len(), CAPACITY.get());
    }
}
