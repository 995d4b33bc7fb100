//! A short memory of which blobs a repository has, so that a HEAD and the GET behind it ask the driver once.
//!
//! Keyed by repository *and* digest: a blob that one repository lost is not handed out because another one has it
//! (CVE-2026-35172). Only what was found is kept; what was not may be there a moment later. Time is an argument.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_core::{Digest, RepositoryName};
use tokio::time::Instant;

/// Sizes of blobs, by repository and digest.
pub(super) struct Descriptors {
    entries: Mutex<LruCache<(RepositoryName, Digest), Entry>>,
}

#[derive(Clone, Copy)]
struct Entry {
    size: u64,
    expires: Instant,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self { entries: Mutex::new(LruCache::new(CAPACITY)) }
    }
}

impl Descriptors {
    /// The size of a blob that was seen in that repository a moment ago.
    pub(super) fn lookup(&self, now: Instant, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        let key = (repository.clone(), *digest);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = *entries.get(&key)?;
        if now < entry.expires {
            return Some(entry.size);
        }
        entries.pop(&key);
        None
    }

    /// The blob is in the repository, and has that many bytes.
    pub(super) fn remember(&self, now: Instant, repository: &RepositoryName, digest: &Digest, size: u64) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.put((repository.clone(), *digest), Entry { size, expires: now + LIFETIME });
    }

    /// The blob may not be in the repository any more.
    pub(super) fn forget(&self, repository: &RepositoryName, digest: &Digest) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.pop(&(repository.clone(), *digest));
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

    #[test]
    fn a_blob_is_remembered_for_its_repository_only() {
        let (descriptors, digest, now) = (Descriptors::default(), Digest::sha256(b"x"), Instant::now());
        descriptors.remember(now, &name("a"), &digest, 7);
        assert_eq!(descriptors.lookup(now, &name("a"), &digest), Some(7));
        assert_eq!(descriptors.lookup(now, &name("b"), &digest), None);
    }

    #[test]
    fn a_blob_is_forgotten_when_its_time_is_up_or_when_told() {
        let (descriptors, digest, now) = (Descriptors::default(), Digest::sha256(b"x"), Instant::now());
        descriptors.remember(now, &name("a"), &digest, 7);
        assert_eq!(descriptors.lookup(now + LIFETIME, &name("a"), &digest), None);
        assert_eq!(descriptors.lookup(now, &name("a"), &digest), None);
        descriptors.remember(now, &name("a"), &digest, 7);
        descriptors.forget(&name("a"), &digest);
        assert_eq!(descriptors.lookup(now, &name("a"), &digest), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (descriptors, now) = (Descriptors::default(), Instant::now());
        for number in 0..CAPACITY.get() + 10 {
            descriptors.remember(now, &name("a"), &Digest::sha256(&number.to_be_bytes()), 1);
        }
        assert_eq!(descriptors.entries.lock().unwrap().len(), CAPACITY.get());
    }
}
