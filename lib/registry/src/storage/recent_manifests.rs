//! A short memory of manifests, so that what a fleet asks for again and again costs no driver call, hash or parse.
//!
//! Keyed by repository *and* digest: to be in it is the access check, for that repository alone (CVE-2026-35172). Only
//! what was found is kept, and not for long: what goes away behind this registry's back is noticed. Bounded in bytes.
//! What a tag means is not kept here: only the driver knows how long that may be believed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_core::{Digest, RepositoryName};
use tokio::time::Instant;

use crate::manifest::Manifest;

/// Manifests, by repository and digest.
pub(super) struct RecentManifests(Mutex<State>);

struct State {
    entries: LruCache<(RepositoryName, Digest), Entry>,
    /// What the entries weigh together.
    bytes: usize,
    /// How often something was forgotten.
    forgotten: u64,
}

struct Entry {
    manifest: Arc<Manifest>,
    expires: Instant,
}

/// A moment before a manifest was looked for. What is forgotten later is not to be remembered from then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Default for RecentManifests {
    fn default() -> Self {
        Self(Mutex::new(State { entries: LruCache::unbounded(), bytes: 0, forgotten: 0 }))
    }
}

impl RecentManifests {
    /// To be taken before the driver is asked.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.state().forgotten)
    }

    /// The manifest, if it was seen in that repository a moment ago.
    pub(super) fn lookup(
        &self,
        now: Instant,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<Arc<Manifest>> {
        let key = (repository.clone(), *digest);
        let mut state = self.state();
        let entry = state.entries.get(&key)?;
        if now < entry.expires {
            return Some(Arc::clone(&entry.manifest));
        }
        state.remove(&key);
        None
    }

    /// The manifest is in the repository, as the driver said after `asked`. If anything was forgotten since then, this
    /// may be what was: nothing is remembered, and the next request asks again.
    pub(super) fn remember(
        &self,
        (asked, now): (Moment, Instant),
        repository: &RepositoryName,
        digest: &Digest,
        manifest: &Arc<Manifest>,
    ) {
        let mut state = self.state();
        if asked != Moment(state.forgotten) || weight(manifest) > MAX_BYTES {
            return;
        }
        let key = (repository.clone(), *digest);
        state.remove(&key);
        state.bytes += weight(manifest);
        state.entries.put(key, Entry { manifest: Arc::clone(manifest), expires: now + LIFETIME });
        state.shrink();
    }

    /// The manifest may not be in the repository any more.
    pub(super) fn forget(&self, repository: &RepositoryName, digest: &Digest) {
        let mut state = self.state();
        state.forgotten += 1;
        state.remove(&(repository.clone(), *digest));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: &(RepositoryName, Digest)) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= weight(&entry.manifest);
        }
    }

    fn shrink(&mut self) {
        while self.bytes > MAX_BYTES
            && let Some((_, entry)) = self.entries.pop_lru()
        {
            self.bytes -= weight(&entry.manifest);
        }
    }
}

/// What an entry takes, in bytes, seen from above: what is read of a document is never longer than the document.
fn weight(manifest: &Manifest) -> usize {
    2 * manifest.bytes().len() + ENTRY_BYTES
}

/// How long what went away elsewhere (another node deleted it) may still be answered here; as for blobs.
const LIFETIME: Duration = Duration::from_secs(10);
/// The manifests of ten thousand images, and several of the largest that there may be.
const MAX_BYTES: usize = 64 << 20;
/// Key, links of the list, and the structures around a document.
const ENTRY_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    /// An index of that many bytes.
    fn manifest(length: usize) -> (Digest, Arc<Manifest>) {
        let text = r#"{"schemaVersion":2,"manifests":[]}"#;
        let bytes = Bytes::from(format!("{text}{}", " ".repeat(length - text.len())));
        (Digest::sha256(&bytes), Arc::new(Manifest::parse(bytes, None).unwrap()))
    }

    fn is_known(recent: &RecentManifests, now: Instant, repository: &str, digest: &Digest) -> bool {
        recent.lookup(now, &name(repository), digest).is_some()
    }

    #[test]
    fn a_manifest_is_remembered_for_its_repository_only() {
        let (recent, now, (digest, document)) = (RecentManifests::default(), Instant::now(), manifest(100));
        recent.remember((recent.moment(), now), &name("a"), &digest, &document);
        assert_eq!(recent.lookup(now, &name("a"), &digest).unwrap().bytes(), document.bytes());
        assert!(!is_known(&recent, now, "b", &digest));
    }

    #[test]
    fn a_manifest_is_forgotten_when_its_time_is_up_or_when_told() {
        let (recent, now, (digest, document)) = (RecentManifests::default(), Instant::now(), manifest(100));
        recent.remember((recent.moment(), now), &name("a"), &digest, &document);
        assert!(!is_known(&recent, now + LIFETIME, "a", &digest));
        assert_eq!(recent.state().bytes, 0);
        recent.remember((recent.moment(), now), &name("a"), &digest, &document);
        recent.forget(&name("a"), &digest);
        assert!(!is_known(&recent, now, "a", &digest));
        assert_eq!(recent.state().bytes, 0);
    }

    #[test]
    fn what_was_read_before_a_delete_is_not_remembered_after_it() {
        let (recent, now, (digest, document)) = (RecentManifests::default(), Instant::now(), manifest(100));
        let asked = recent.moment();
        recent.forget(&name("a"), &digest);
        recent.remember((asked, now), &name("a"), &digest, &document);
        assert!(!is_known(&recent, now, "a", &digest));
    }

    #[test]
    fn the_memory_is_bounded_in_bytes_and_keeps_what_was_asked_for_last() {
        let (recent, now) = (RecentManifests::default(), Instant::now());
        let (kept, document) = manifest(100);
        recent.remember((recent.moment(), now), &name("a"), &kept, &document);
        for length in 0..40 {
            let (digest, document) = manifest((4 << 20) - length);
            recent.remember((recent.moment(), now), &name("a"), &digest, &document);
            assert!(is_known(&recent, now, "a", &kept));
            let state = recent.state();
            let sum: usize = state.entries.iter().map(|(_, entry)| weight(&entry.manifest)).sum();
            assert!(state.bytes == sum && sum <= MAX_BYTES, "{sum}");
        }
        assert_eq!(recent.state().entries.len(), 1 + MAX_BYTES / (2 * (4 << 20) + ENTRY_BYTES));
    }

    #[test]
    fn the_same_manifest_again_weighs_once() {
        let (recent, now, (digest, document)) = (RecentManifests::default(), Instant::now(), manifest(100));
        for _ in 0..3 {
            recent.remember((recent.moment(), now), &name("a"), &digest, &document);
        }
        assert_eq!(recent.state().bytes, weight(&document));
    }
}
