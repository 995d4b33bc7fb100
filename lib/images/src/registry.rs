//! Repositories of registries as places of images.

use std::io;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use shoal_core::{Digest, Reference, RepositoryName};
use shoal_upstream::{
    ByteStream, Content, Descriptor, Manifest, Registry, RegistryHost, Session, Uploaded, UpstreamError,
    Watch,
};

use crate::copy::Progress;
use crate::error::ImageError;
use crate::place::{Put, Sink, Source};
use crate::sessions::Sessions;

/// An image of a repository.
#[derive(Debug)]
pub struct RegistrySource {
    registry: Registry,
    repository: RepositoryName,
    reference: Reference,
}

/// A repository that takes an image.
#[derive(Debug)]
pub struct RegistrySink {
    registry: Registry,
    repository: RepositoryName,
    reference: Reference,
    sessions: Option<Sessions>,
}

impl RegistrySource {
    /// The image of that tag or digest.
    #[must_use]
    pub fn new(registry: Registry, repository: RepositoryName, reference: Reference) -> Self {
        Self { registry, repository, reference }
    }
}

impl RegistrySink {
    /// The image is to be had by that tag or digest. `sessions`: where uploads are kept that a killed process leaves half done.
    #[must_use]
    pub fn new(
        registry: Registry,
        repository: RepositoryName,
        reference: Reference,
        sessions: Option<Sessions>,
    ) -> Self {
        Self { registry, repository, reference, sessions }
    }

    fn key(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.registry.host(), self.repository)
    }
}

#[async_trait]
impl Source for RegistrySource {
    async fn root(&self) -> Result<Manifest, ImageError> {
        Ok(self.registry.manifest(&self.repository, &self.reference).await?)
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        Ok(self.registry.manifest(&self.repository, &Reference::Digest(descriptor.digest)).await?)
    }

    async fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<ByteStream> {
        let download = self.registry.blob(&self.repository, &blob.digest, Some(blob.size));
        let download = if offset == 0 { download } else { download.unproved_from(offset) };
        Ok(download.into_stream().map_err(io::Error::other).boxed())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        Ok(self.registry.referrers(&self.repository, subject).await?)
    }

    fn repository(&self) -> Option<(&RegistryHost, &RepositoryName)> {
        Some((self.registry.host(), &self.repository))
    }
}

#[async_trait]
impl Sink for RegistrySink {
    fn accept(&self, root: &Manifest) -> Result<(), ImageError> {
        match &self.reference {
            Reference::Digest(digest) if *digest != root.digest() => Err(ImageError::Asked(format!(
                "the image is {}, and cannot be called {digest}: name a tag, or no digest",
                root.digest()
            ))),
            _ => Ok(()),
        }
    }

    async fn put_blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        progress: &dyn Progress,
    ) -> Result<Put, ImageError> {
        if self.registry.find_blob(&self.repository, &blob.digest).await?.is_some() {
            return Ok(Put::Present);
        }
        let from =
            source.repository().filter(|(host, _)| *host == self.registry.host()).map(|(_, from)| from);
        let key = self.key(&blob.digest);
        let resume = self.sessions.as_ref().and_then(|sessions| sessions.load(&key));
        let watch = Watched { sink: self, key: &key, blob, progress };
        let content = BlobContent { source, blob };
        let outcome =
            self.registry.upload(&self.repository, &blob.digest, &content, from, resume, &watch).await;
        match outcome {
            Ok(uploaded) => {
                self.forget(&key);
                Ok(if uploaded == Uploaded::Mounted { Put::Mounted } else { Put::Moved })
            }
            Err(error) => {
                // A session that the registry does not take to its end is of no use to the next process either.
                if matches!(error, UpstreamError::Refused { .. } | UpstreamError::Malformed { .. }) {
                    self.forget(&key);
                }
                Err(error.into())
            }
        }
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), ImageError> {
        let reference = Reference::Digest(manifest.digest());
        Ok(self.registry.put_manifest(&self.repository, &reference, manifest).await?)
    }

    async fn finish(&self, root: &Manifest) -> Result<(), ImageError> {
        match &self.reference {
            Reference::Digest(_) => Ok(()),
            tag @ Reference::Tag(_) => Ok(self.registry.put_manifest(&self.repository, tag, root).await?),
        }
    }
}

impl RegistrySink {
    fn forget(&self, key: &str) {
        if let Some(sessions) = &self.sessions {
            sessions.forget(key);
        }
    }
}

struct BlobContent<'a> {
    source: &'a dyn Source,
    blob: &'a Descriptor,
}

#[async_trait]
impl Content for BlobContent<'_> {
    fn length(&self) -> u64 {
        self.blob.size
    }

    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        self.source.open(self.blob, offset).await
    }
}

struct Watched<'a> {
    sink: &'a RegistrySink,
    key: &'a str,
    blob: &'a Descriptor,
    progress: &'a dyn Progress,
}

impl Watch for Watched<'_> {
    fn at(&self, bytes: u64) {
        self.progress.at(&self.blob.digest, bytes);
    }

    fn session(&self, session: &Session) {
        // A blob of one request is sent again sooner than a session is asked for.
        if self.blob.size < WORTH_KEEPING {
            return;
        }
        if let Some(sessions) = &self.sink.sessions {
            sessions.keep(self.key, session);
        }
    }
}

/// Less is sent in a second over most links.
const WORTH_KEEPING: u64 = 4 << 20;
