//! The blobs of one repository: those that its layer links name, and no others.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shoal_core::Digest;
use shoal_driver::{ByteRange, ByteStream, DriverError, RegistryPath};
use tokio::time::{Instant, timeout};

use super::{Repository, found};

/// The linked blob store of one repository.
pub(crate) struct Blobs {
    repository: Repository,
}

/// A blob that the repository has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
}

/// Why a blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// The repository has no link to it, or what the link names is gone.
    #[error("blob {0} is not known in this repository")]
    Unknown(Digest),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Blobs {
    pub(super) fn new(repository: Repository) -> Self {
        Self { repository }
    }

    /// How long the blob is, if this repository may see it. The access check: one look at the link, one at the blob.
    pub(crate) async fn stat(&self, digest: &Digest) -> Result<Descriptor, BlobError> {
        let Repository { shared, name, .. } = &self.repository;
        if let Some(size) = shared.descriptors.lookup(Instant::now(), name, digest) {
            return Ok(Descriptor { digest: *digest, size });
        }
        let asked = shared.descriptors.epoch();
        let blob =
            Descriptor { digest: *digest, size: self.stat_at_driver(digest, Repository::read_link).await? };
        shared.descriptors.remember(asked, Instant::now(), name, &blob);
        Ok(blob)
    }

    /// The same, from the driver: for what is about to rely on the blob, and has told the barrier so.
    pub(crate) async fn stat_afresh(&self, digest: &Digest) -> Result<Descriptor, BlobError> {
        Ok(Descriptor { digest: *digest, size: self.stat_at_driver(digest, Repository::secure_link).await? })
    }

    async fn stat_at_driver(
        &self,
        digest: &Digest,
        read_link: impl AsyncFn(&Repository, RegistryPath) -> Result<Option<Digest>, DriverError>,
    ) -> Result<u64, BlobError> {
        let Repository { context, name, .. } = &self.repository;
        let link = read_link(&self.repository, RegistryPath::LayerLink(name.clone(), *digest)).await?;
        // A link names the digest that it is filed under. An alias would answer for bytes of another name.
        if link != Some(*digest) {
            return Err(BlobError::Unknown(*digest));
        }
        let path = RegistryPath::BlobData(*digest).to_driver_path();
        let file = found(self.repository.driver().stat(context, &path).await)?;
        file.map(|file| file.size).ok_or(BlobError::Unknown(*digest))
    }

    /// The blob's bytes in that range, for a caller that asked [`Blobs::stat`] before. Who wants all of it says so by the
    /// default range: a driver that has to fetch the blob may fetch less for any other.
    ///
    /// A driver that is slow to open does not hold up the caller's headers: after [`OPEN_PATIENCE`] the opening goes
    /// on inside the stream, and its failure becomes the stream's.
    pub(crate) async fn open(&self, blob: &Descriptor, range: ByteRange) -> Result<ByteStream, BlobError> {
        let (repository, digest) = (self.repository.clone(), blob.digest);
        let mut opening =
            Box::pin(async move { repository.read(RegistryPath::BlobData(digest), range).await });
        match timeout(OPEN_PATIENCE, &mut opening).await {
            Ok(Err(DriverError::PathNotFound { .. })) => {
                self.repository.shared.descriptors.forget(&self.repository.name, &digest);
                Err(BlobError::Unknown(digest))
            }
            Ok(opened) => Ok(opened?),
            Err(_) => Ok(stream::once(opening).try_flatten().boxed()),
        }
    }

    /// Gives this repository a blob that `source` has, without a copy.
    pub(crate) async fn mount(&self, source: &Repository, digest: &Digest) -> Result<Descriptor, BlobError> {
        let Repository { shared, name, .. } = &self.repository;
        let _push = shared.barrier.push(name, [*digest]).await;
        let blob = source.blobs().stat_afresh(digest).await?;
        self.link(&blob).await?;
        Ok(blob)
    }

    /// Lets the repository see the blob.
    pub(super) async fn link(&self, blob: &Descriptor) -> Result<(), DriverError> {
        let Repository { shared, name, .. } = &self.repository;
        let path = RegistryPath::LayerLink(name.clone(), blob.digest);
        let asked = shared.descriptors.epoch();
        self.repository.write_link(path, &blob.digest).await?;
        shared.descriptors.remember(asked, Instant::now(), name, blob);
        Ok(())
    }

    /// Takes the blob out of the repository. Its bytes stay until they are collected: other repositories may have them.
    pub(crate) async fn delete(&self, digest: &Digest) -> Result<(), BlobError> {
        let Repository { shared, name, .. } = &self.repository;
        let path = RegistryPath::Layer(name.clone(), *digest);
        let linked =
            self.repository.read_link(RegistryPath::LayerLink(name.clone(), *digest)).await?.is_some();
        let deleted = if linked { found(self.repository.delete(path).await)? } else { None };
        shared.descriptors.forget(name, digest);
        deleted.ok_or(BlobError::Unknown(*digest))
    }
}

/// How long a reader may take to open before the headers go out without it. A second: enough for every local answer,
/// and far below the 10 to 30 seconds after which runtimes give up.
const OPEN_PATIENCE: Duration = Duration::from_secs(1);
