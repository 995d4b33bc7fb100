//! What a place of images can do: be read from, or be written to.

use std::io;

use async_trait::async_trait;
use shoal_core::{Digest, RepositoryName};
use shoal_upstream::{ByteStream, Descriptor, Manifest, RegistryHost};

use crate::copy::Progress;
use crate::error::ImageError;

/// A place with one image that was named.
#[async_trait]
pub trait Source: Send + Sync {
    /// The image, or the index of images.
    async fn root(&self) -> Result<Manifest, ImageError>;
    /// A manifest that another one names; its digest is proved.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError>;
    /// A blob's bytes from `offset` on. From 0 on the last of them come only after the digest was proved.
    async fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<ByteStream>;
    /// What refers to a manifest. Places that keep no list have none.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError>;
    /// Which registry and repository it is, for blobs that need not move.
    fn repository(&self) -> Option<(&RegistryHost, &RepositoryName)>;
}

/// A place that takes one image.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Whether it can take that image at all: asked before anything moves.
    fn accept(&self, root: &Manifest) -> Result<(), ImageError>;
    /// Takes a blob, unless it is there.
    async fn put_blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        progress: &dyn Progress,
    ) -> Result<Put, ImageError>;
    /// Takes a manifest; what it names is there.
    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), ImageError>;
    /// Gives the image its name. Everything is there.
    async fn finish(&self, root: &Manifest) -> Result<(), ImageError>;
}

/// How a blob came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was.
    Present,
    /// The registry had it in another repository.
    Mounted,
    /// Its bytes were moved, or the rest of them.
    Moved,
}
