//! A repository at the target, as a place that takes an image.
//!
//! Images that go there at the same time may share blobs: each blob is uploaded once, by whoever comes first. The tag is put last,
//! and only while it still names that image here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use async_trait::async_trait;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_images::{ImageError, Progress, Put, RegistrySink, Sink, Source};
use shoal_upstream::{Descriptor, Manifest};
use tokio::sync::Mutex as Turn;

use super::{Rule, key_of};

/// Who is at which blob of which repository. As many as are uploaded.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Place, Weak<Turn<()>>>>);

type Place = (RepositoryName, Digest);

/// Takes one image.
pub(super) struct TurnSink {
    pub(super) sink: RegistrySink,
    pub(super) rule: Arc<Rule>,
    /// The repository's name there.
    pub(super) repository: RepositoryName,
    /// What is to be looked at before the tag is put.
    pub(super) tag: Option<TagPut>,
}

/// A tag that is to be put.
#[derive(Clone)]
pub(super) struct TagPut {
    /// The repository's name here.
    pub(super) repository: RepositoryName,
    pub(super) tag: Tag,
    /// What it named there.
    pub(super) over: Option<Digest>,
}

impl Turns {
    fn of(&self, repository: &RepositoryName, digest: &Digest) -> Arc<Turn<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let key = (repository.clone(), *digest);
        if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(key, Arc::downgrade(&turn));
        turn
    }
}

impl Rule {
    /// Whether the tag names that image still, so that the other side may hear of it. What moved it has its own job.
    async fn is_due(&self, put: &TagPut, root: &Digest) -> Result<bool, ImageError> {
        let TagPut { repository, tag, over } = put;
        let key = key_of(repository, tag);
        if let Some(over) = over {
            self.swaps.note(Instant::now(), &key, *root, *over);
        }
        let named = self.images.resolve(repository, tag).await;
        let named = named.map_err(|error| ImageError::Invalid { place: key, reason: error.to_string() })?;
        Ok(named.as_ref() == Some(root))
    }
}

#[async_trait]
impl Sink for TurnSink {
    fn accept(&self, root: &Manifest) -> Result<(), ImageError> {
        self.sink.accept(root)
    }

    async fn put_blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        progress: &dyn Progress,
    ) -> Result<Put, ImageError> {
        let turn = self.rule.turns.of(&self.repository, &blob.digest);
        let _turn = turn.lock().await;
        self.sink.put_blob(blob, source, progress).await
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), ImageError> {
        self.sink.put_manifest(manifest).await
    }

    async fn finish(&self, root: &Manifest) -> Result<(), ImageError> {
        match &self.tag {
            Some(tag) if !self.rule.is_due(tag, &root.digest()).await? => Ok(()),
            _ => self.sink.finish(root).await,
        }
    }
}
