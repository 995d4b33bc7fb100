//! On whose behalf a blob is read: its key does not say, and a peer-to-peer driver must know.
//!
//! A registry reads a blob's link in a repository before the blob itself, so the last repository whose link was read is
//! the answer. A blob without a known link is read on nobody's behalf: who has the keys may see everything.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Context, DriverPath, RegistryPath};

use crate::keys::{Content, Named};

/// The repositories in which blobs were seen.
pub(crate) struct Repositories {
    of: Mutex<LruCache<Digest, RepositoryName>>,
}

impl Repositories {
    /// How many blobs are remembered: those of some hundred images. One that is forgotten is still read.
    const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

    pub(crate) fn new() -> Self {
        Self { of: Mutex::new(LruCache::new(Self::MAX_REMEMBERED)) }
    }

    /// The link at that path was read or written.
    pub(crate) fn learn(&self, link: &DriverPath) {
        let parsed = RegistryPath::parse(link);
        let Ok(RegistryPath::LayerLink(name, digest) | RegistryPath::RevisionLink(name, digest)) = parsed
        else {
            return;
        };
        self.of.lock().unwrap_or_else(PoisonError::into_inner).put(digest, name);
    }

    /// On whose behalf an object is asked for.
    pub(crate) fn context(&self, named: &Named) -> Context {
        let repository = match &named.content {
            Content::Blob(digest) => {
                self.of.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
            }
            Content::Link(name)
            | Content::StartedAt(name, _)
            | Content::HashState(name, _)
            | Content::Upload(name, _) => Some(name.clone()),
        };
        Context { repository }
    }
}
