//! The manifests of one repository: kept byte for byte, by digest, once everything that they name is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, future};
use shoal_core::{Algorithm, Digest, Reference, Tag};
use shoal_driver::{ByteRange, DriverError, Freshness, RegistryPath, ResolvedTag, TagExpectation};
use tokio::time::Instant;

use super::hashing::hash;
use super::recent_manifests::Moment;
use super::referrers::is_fallback_tag;
use super::{BlobError, Repository, found};
use crate::manifest::{Child, ChildKind, MAX_MANIFEST_SIZE, Manifest};
use crate::tag_rules::TagRules;

/// The manifests of one repository.
pub(crate) struct Manifests {
    repository: Repository,
    /// Before anything was asked.
    began: Moment,
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
    /// The tag is not as the client expects it.
    #[error("tag {tag} names {}, which is not what If-Match or If-None-Match expects", named(current.as_ref()))]
    Unexpected {
        /// The tag.
        tag: Tag,
        /// What it names.
        current: Box<Option<Digest>>,
    },
    /// The tag names another manifest, for good.
    #[error("tag {tag} names {} and is immutable by {rule}: push under another tag", named(current.as_ref()))]
    Immutable {
        /// The tag.
        tag: Tag,
        /// What it names.
        current: Box<Option<Digest>>,
        /// By which rule.
        rule: String,
    },
    /// The tag may not be deleted.
    #[error(
        "tag {tag} is immutable by {rule}: it can be deleted only after its operator has set delete = true there"
    )]
    Undeletable {
        /// The tag.
        tag: Tag,
        /// By which rule.
        rule: String,
    },
    /// The list of what refers to its subject would become too long.
    #[error("subject {0} has as many referrers as can be listed")]
    TooManyReferrers(Digest),
    /// The stored bytes are not those of its digest.
    #[error("stored manifest {0} is damaged")]
    Damaged(Digest),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Manifests {
    pub(super) fn new(repository: Repository) -> Self {
        let began = repository.shared.recent_manifests.moment();
        Self { repository, began }
    }

    /// The digest of the manifest that `reference` names, and how sure that is. The access check: a tag's link, or a
    /// revision's.
    pub(crate) async fn resolve(&self, reference: &Reference) -> Result<ResolvedTag, ManifestError> {
        let known = match reference {
            Reference::Tag(tag) => self.repository.tags().resolve(tag).await?,
            Reference::Digest(digest) if self.recent(digest).is_some() => Some(ResolvedTag::current(*digest)),
            Reference::Digest(digest) => {
                self.is_revision(digest).await?.then(|| ResolvedTag::current(*digest))
            }
        };
        known.ok_or_else(|| ManifestError::Unknown(reference.clone()))
    }

    /// The manifest behind a digest that [`Manifests::resolve`] gave for `reference`.
    pub(crate) async fn read(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Arc<Manifest>, ManifestError> {
        if let Some(manifest) = self.recent(digest) {
            return Ok(manifest);
        }
        let manifest = Arc::new(self.read_at_driver(reference, digest).await?);
        let Repository { shared, name, .. } = &self.repository;
        shared.recent_manifests.remember((self.began, Instant::now()), name, digest, &manifest);
        Ok(manifest)
    }

    /// The manifest, if this repository was seen to have it a moment ago.
    fn recent(&self, digest: &Digest) -> Option<Arc<Manifest>> {
        let Repository { shared, name, .. } = &self.repository;
        shared.recent_manifests.lookup(Instant::now(), name, digest)
    }

    async fn read_at_driver(
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

    /// Keeps a manifest under its digest, under a tag if `reference` is one that is as expected, and under `more` tags. Gives
    /// the digest.
    pub(crate) async fn put(
        &self,
        reference: &Reference,
        expected: &TagExpectation,
        more: &[Tag],
        manifest: &Manifest,
    ) -> Result<Digest, ManifestError> {
        let digest = Self::digest_for(reference, manifest.bytes().clone()).await?;
        let Repository { shared, name, .. } = &self.repository;
        // Garbage collection leaves all of it alone from here on; what it removed before, the check finds missing. For the
        // sake of its subject, be it there or not, also what else is attached to that.
        let children = manifest.children().iter().map(|child| child.digest);
        let relied_on = children.chain([digest]).chain(manifest.subject());
        let _push = shared.barrier.push(name, relied_on).await;
        let began = Instant::now();
        self.secure(manifest).await?;
        let own = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let tags = || own.into_iter().chain(more);
        for tag in tags() {
            self.expect_tag(tag, &digest, expected).await?;
        }
        let changes_a_list = manifest.subject().is_some() || tags().any(is_fallback_tag);
        let _turn = match changes_a_list {
            true => shared.manifest_locks.alone(name).await,
            false => shared.manifest_locks.shared(name).await,
        };
        let listed = match manifest.subject() {
            Some(subject) => Some(self.repository.referrers(subject).with(manifest, digest).await?),
            None => None,
        };
        self.repository.put(RegistryPath::BlobData(digest), manifest.bytes().clone()).await?;
        self.repository.write_link(RegistryPath::RevisionLink(name.clone(), digest), &digest).await?;
        // Another collector may have looked meanwhile; from here on it sees who needs what.
        if began.elapsed() > SECURE_FOR {
            self.secure(manifest).await?;
        }
        if let Some(listed) = listed {
            listed.keep().await?;
        }
        for tag in tags() {
            self.set_tag(tag, &digest, expected).await?;
        }
        Ok(digest)
    }

    /// Whatever was looked up before, here it is decided.
    async fn set_tag(
        &self,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), ManifestError> {
        let all = expected.clone().and(&self.allowed(tag, digest));
        match self.repository.tags().set(tag, digest, &all).await {
            Err(DriverError::TagMoved { current, .. }) => Err(self.refusal(tag, expected, *current)),
            other => Ok(other?),
        }
    }

    /// Refuses what would be refused at its end, before anything is kept.
    async fn expect_tag(
        &self,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), ManifestError> {
        let all = expected.clone().and(&self.allowed(tag, digest));
        if all.is_anything() {
            return Ok(());
        }
        let resolved = self.repository.tags().resolve(tag).await?;
        // An answer that may be an old one refuses nobody.
        let is_sure = resolved.as_ref().is_none_or(|resolved| resolved.freshness == Freshness::Current);
        let current = resolved.map(|resolved| resolved.digest);
        if !is_sure || all.allows(current.as_ref()) {
            return Ok(());
        }
        Err(self.refusal(tag, expected, current))
    }

    /// What a tag must name so that the rules let it name `digest`.
    fn allowed(&self, tag: &Tag, digest: &Digest) -> TagExpectation {
        let Repository { shared, name, .. } = &self.repository;
        match TagRules(&shared.tag_rules).immutable(name, tag) {
            Some(_) => TagExpectation::nothing_or(*digest),
            None => TagExpectation::anything(),
        }
    }

    fn refusal(&self, tag: &Tag, expected: &TagExpectation, current: Option<Digest>) -> ManifestError {
        let Repository { shared, name, .. } = &self.repository;
        let (tag, is_expected) = (tag.clone(), expected.allows(current.as_ref()));
        match TagRules(&shared.tag_rules).immutable(name, &tag) {
            Some(rule) if is_expected => {
                ManifestError::Immutable { tag, current: current.into(), rule: rule.to_string() }
            }
            _ => ManifestError::Unexpected { tag, current: current.into() },
        }
    }

    /// Why one of these tags may not be deleted, if one may not.
    fn undeletable<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) -> Option<ManifestError> {
        let Repository { shared, name, .. } = &self.repository;
        tags.into_iter().find_map(|tag| {
            let rule = TagRules(&shared.tag_rules).immutable(name, tag)?;
            let (tag, rule) = (tag.clone(), (!rule.allows_delete()).then(|| rule.to_string())?);
            Some(ManifestError::Undeletable { tag, rule })
        })
    }

    /// Removes a tag; or a manifest, and with it every tag that names it. The bytes stay until they are collected.
    pub(crate) async fn delete(&self, reference: &Reference) -> Result<(), ManifestError> {
        let Repository { shared, name, .. } = &self.repository;
        let _turn = shared.manifest_locks.alone(name).await;
        let known = match reference {
            Reference::Tag(tag) => {
                if let Some(refusal) = self.undeletable([tag]) {
                    return Err(refusal);
                }
                self.repository.tags().remove(tag, &TagExpectation::anything()).await?
            }
            Reference::Digest(digest) => self.delete_revision(digest).await?,
        };
        if known { Ok(()) } else { Err(ManifestError::Unknown(reference.clone())) }
    }

    /// The link goes last: a delete that was cut short can be done again, and no tag is left that names nothing.
    async fn delete_revision(&self, digest: &Digest) -> Result<bool, ManifestError> {
        if !self.is_revision(digest).await? {
            return Ok(false);
        }
        let tags = self.repository.tags().those_of(digest).await?;
        if let Some(refusal) = self.undeletable(&tags) {
            return Err(refusal);
        }
        self.repository.tags().remove_those(&tags, digest).await?;
        if let Some(subject) = self.subject_of(digest).await? {
            self.repository.referrers(subject).remove(digest).await?;
        }
        let path = RegistryPath::Revision(self.repository.name.clone(), *digest);
        Ok(found(self.repository.delete(path).await)?.is_some())
    }

    /// What a manifest refers to. One that cannot be read any more refers to nothing: it can still be deleted.
    async fn subject_of(&self, digest: &Digest) -> Result<Option<Digest>, DriverError> {
        let bytes = self.read_bounded(digest).await?;
        Ok(bytes.and_then(|bytes| Manifest::parse(bytes, None).ok()).and_then(|manifest| manifest.subject()))
    }

    async fn digest_for(reference: &Reference, bytes: Bytes) -> Result<Digest, ManifestError> {
        let expected = match reference {
            Reference::Digest(expected) => *expected,
            Reference::Tag(_) => return Ok(hash(Algorithm::Sha256, bytes).await),
        };
        let found = hash(expected.algorithm(), bytes).await;
        if found == expected { Ok(found) } else { Err(ManifestError::DigestMismatch { expected, found }) }
    }

    /// Refuses a manifest that names what is not here, and keeps what it names from being taken for garbage by other writers of
    /// the storage.
    async fn secure(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        match self.check_children(manifest.children()).await {
            Err(ManifestError::ChildrenUnknown(_))
                if self.repository.shared.sparse_indexes && manifest.media_type().is_index() => {}
            checked => checked?,
        }
        if let Some(subject) = manifest.subject() {
            self.is_secured_revision(&subject).await?;
        }
        Ok(())
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
            ChildKind::Manifest => self.is_secured_revision(&child.digest).await,
            ChildKind::Either => {
                Ok(self.is_secured_revision(&child.digest).await? || self.has_blob(&child.digest).await?)
            }
        }
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, DriverError> {
        match self.repository.blobs().stat_afresh(digest).await {
            Ok(_) => Ok(true),
            Err(BlobError::Unknown(_)) => Ok(false),
            Err(BlobError::Driver(error)) => Err(error),
        }
    }

    async fn is_revision(&self, digest: &Digest) -> Result<bool, DriverError> {
        let path = RegistryPath::RevisionLink(self.repository.name.clone(), *digest);
        Ok(self.repository.read_link(path).await? == Some(*digest))
    }

    /// The same for a push that relies on it.
    async fn is_secured_revision(&self, digest: &Digest) -> Result<bool, DriverError> {
        let path = RegistryPath::RevisionLink(self.repository.name.clone(), *digest);
        Ok(self.repository.secure_link(path).await? == Some(*digest))
    }

    /// The bytes of a blob that may be a manifest; `None` where it is gone, or larger than any manifest.
    pub(super) async fn read_bounded(&self, digest: &Digest) -> Result<Option<Bytes>, DriverError> {
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

/// What a tag names, in words.
fn named(current: &Option<Digest>) -> String {
    current.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string())
}

/// For how long a look at what a manifest names is good. A second: less than half of the least age of garbage, where several
/// collect it, and more than a push takes.
const SECURE_FOR: Duration = Duration::from_secs(1);
/// How many children are looked up at one time: an index of a dozen platforms in one go, a bound for the driver.
const CHECKS_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use shoal_core::{RepositoryName, Tag};
    use shoal_driver::MemoryDriver;

    use super::super::Storage;
    use super::*;

    fn index(text: &str) -> Manifest {
        let bytes = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"text":"{text}"}}}}"#);
        Manifest::parse(bytes.into(), None).unwrap()
    }

    fn repository() -> Repository {
        let storage = Storage::new(Arc::new(MemoryDriver::new()), &crate::Config::default());
        storage.repository(RepositoryName::parse("a").unwrap())
    }

    async fn get(repository: &Repository, reference: &Reference) -> Result<Arc<Manifest>, ManifestError> {
        let manifests = repository.manifests();
        let digest = manifests.resolve(reference).await?.digest;
        manifests.read(reference, &digest).await
    }

    #[tokio::test]
    async fn a_deleted_manifest_is_unknown_at_once() {
        let (repository, tag) = (repository(), Reference::Tag(Tag::parse("t").unwrap()));
        let digest =
            repository.manifests().put(&tag, &TagExpectation::anything(), &[], &index("one")).await.unwrap();
        let by_digest = Reference::Digest(digest);
        get(&repository, &by_digest).await.unwrap();
        assert!(repository.manifests().recent(&digest).is_some());
        let path = RegistryPath::Revision(repository.name.clone(), digest);
        repository.delete(path).await.unwrap();
        for reference in [&by_digest, &tag] {
            assert!(matches!(get(&repository, reference).await, Err(ManifestError::Unknown(_))));
        }
    }

    #[tokio::test]
    async fn a_request_that_a_delete_overtook_leaves_nothing_behind() {
        let (repository, tag) = (repository(), Reference::Tag(Tag::parse("t").unwrap()));
        let digest =
            repository.manifests().put(&tag, &TagExpectation::anything(), &[], &index("one")).await.unwrap();
        let by_digest = Reference::Digest(digest);
        let slow = repository.manifests();
        slow.resolve(&by_digest).await.unwrap();
        let path = RegistryPath::Revision(repository.name.clone(), digest);
        repository.delete(path).await.unwrap();
        slow.read(&by_digest, &digest).await.unwrap();
        assert!(matches!(get(&repository, &by_digest).await, Err(ManifestError::Unknown(_))));
    }
}
