//! The manifests of one repository: kept byte for byte, by digest, once everything that they name is there.

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, future};
use shoal_core::{Algorithm, Digest, Reference};
use shoal_driver::{ByteRange, DriverError, RegistryPath};

use super::hashing::hash;
use super::{BlobError, Repository, found};
use crate::manifest::{Child, ChildKind, MAX_MANIFEST_SIZE, Manifest};

/// The manifests of one repository.
pub(crate) struct Manifests {
    repository: Repository,
}

/// Why a manifest cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// The repository has no such manifest.
    #[error("manifest {0} is not known in this repository")]
    Unknown(Reference),
    /// It was pushed under a digest that is not its own.
    #[error("manifest has digest {found}, not {expected}")]
    DigestMismatch {
        /// Under which it was pushed.
        expected: Digest,
        /// Its own.
        found: Digest,
    },
    /// It names blobs or manifests that the repository does not have.
    #[error("manifest names {} blobs or manifests that this repository does not have", .0.len())]
    ChildrenUnknown(Vec<Digest>),
    /// The stored bytes are not those of its digest.
    #[error("stored manifest {0} is damaged")]
    Damaged(Digest),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Manifests {
    pub(super) fn new(repository: Repository) -> Self {
        Self { repository }
    }

    /// The digest of the manifest that `reference` names. The access check: a tag's link, or a revision's.
    pub(crate) async fn resolve(&self, reference: &Reference) -> Result<Digest, ManifestError> {
        let known = match reference {
            Reference::Tag(tag) => self.repository.tags().resolve(tag).await?,
            Reference::Digest(digest) => self.is_revision(digest).await?.then_some(*digest),
        };
        known.ok_or_else(|| ManifestError::Unknown(reference.clone()))
    }

    /// The manifest behind a digest that [`Manifests::resolve`] gave for `reference`.
    pub(crate) async fn read(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Manifest, ManifestError> {
        let unknown = || ManifestError::Unknown(reference.clone());
        // By digest, the revision was just seen; what a tag names still has to be one.
        if matches!(reference, Reference::Tag(_)) && !self.is_revision(digest).await? {
            return Err(unknown());
        }
        let bytes = self.read_bounded(digest).await?.ok_or_else(unknown)?;
        if hash(digest.algorithm(), bytes.clone()).await != *digest {
            return Err(ManifestError::Damaged(*digest));
        }
        // A layer that is asked for as a manifest is none.
        Manifest::parse(bytes, None).map_err(|_| unknown())
    }

    /// Keeps a manifest under its digest, and under a tag if `reference` is one. Gives the digest.
    pub(crate) async fn put(
        &self,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<Digest, ManifestError> {
        let digest = Self::digest_for(reference, manifest.bytes().clone()).await?;
        self.check_children(manifest.children()).await?;
        let name = &self.repository.name;
        self.repository.put(RegistryPath::BlobData(digest), manifest.bytes().clone()).await?;
        self.repository.write_link(RegistryPath::RevisionLink(name.clone(), digest), &digest).await?;
        if let Reference::Tag(tag) = reference {
            self.repository.tags().set(tag, &digest).await?;
        }
        Ok(digest)
    }

    async fn digest_for(reference: &Reference, bytes: Bytes) -> Result<Digest, ManifestError> {
        let expected = match reference {
            Reference::Digest(expected) => *expected,
            Reference::Tag(_) => return Ok(hash(Algorithm::Sha256, bytes).await),
        };
        let found = hash(expected.algorithm(), bytes).await;
        if found == expected { Ok(found) } else { Err(ManifestError::DigestMismatch { expected, found }) }
    }

    /// Refuses a manifest that names what the repository does not have, and says everything that is missing.
    async fn check_children(&self, children: &[Child]) -> Result<(), ManifestError> {
        let mut missing = Vec::new();
        for some in children.chunks(CHECKS_AT_ONCE) {
            let known = future::try_join_all(some.iter().map(|child| self.has_child(child))).await?;
            missing.extend(some.iter().zip(known).filter(|(_, known)| !known).map(|(child, _)| child.digest));
        }
        if missing.is_empty() { Ok(()) } else { Err(ManifestError::ChildrenUnknown(missing)) }
    }

    async fn has_child(&self, child: &Child) -> Result<bool, DriverError> {
        match child.kind {
            ChildKind::Blob => self.has_blob(&child.digest).await,
            ChildKind::Manifest => self.is_revision(&child.digest).await,
            ChildKind::Either => {
                Ok(self.is_revision(&child.digest).await? || self.has_blob(&child.digest).await?)
            }
        }
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, DriverError> {
        match self.repository.blobs().stat(digest).await {
            Ok(_) => Ok(true),
            Err(BlobError::Unknown(_)) => Ok(false),
            Err(BlobError::Driver(error)) => Err(error),
        }
    }

    async fn is_revision(&self, digest: &Digest) -> Result<bool, DriverError> {
        let path = RegistryPath::RevisionLink(self.repository.name.clone(), *digest);
        Ok(self.repository.read_link(path).await? == Some(*digest))
    }

    /// The bytes of a blob that may be a manifest; `None` where it is gone, or larger than any manifest.
    async fn read_bounded(&self, digest: &Digest) -> Result<Option<Bytes>, DriverError> {
        let range = ByteRange { start: 0, end: Some(MAX_MANIFEST_SIZE as u64 + 1) };
        let Some(mut parts) = found(self.repository.read(RegistryPath::BlobData(*digest), range).await)?
        else {
            return Ok(None);
        };
        let mut bytes = BytesMut::new();
        while let Some(part) = parts.try_next().await? {
            if bytes.len() + part.len() > MAX_MANIFEST_SIZE {
                return Ok(None);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes.freeze()))
    }
}

/// How many children are looked up at one time: an index of a dozen platforms in one go, a bound for the driver.
const CHECKS_AT_ONCE: usize = 16;
