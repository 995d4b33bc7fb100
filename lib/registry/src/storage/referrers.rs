//! The referrers of a subject: one index, which the subject's fallback tag `<algorithm>-<hex>` names.
//!
//! The layout has no place for referrers. This tag is where clients without the API look and write, so what they left is
//! in the list and what is added here they find; and every driver resolves tags, the agent's too, which can list no
//! revisions. To scan revisions would cost a read of each manifest of the repository. The price: a list has a manifest's
//! limits ([`ReferrerList::fits`]), and whoever overwrites or deletes the tag does so to the list. A change reads the list
//! first, so it is made alone in its repository, and put only in place of what was read: of two origins that change one list at
//! the same moment one reads it again.

use shoal_core::{Algorithm, Digest, Tag};
use shoal_driver::{DriverError, RegistryPath, TagExpectation};

use super::hashing::hash;
use super::{ManifestError, Repository, found};
use crate::manifest::{Manifest, Referrer, ReferrerList};

/// The referrers of one subject in one repository. Who changes them holds the repository's lock alone.
pub(crate) struct Referrers {
    repository: Repository,
    subject: Digest,
    tag: Tag,
}

/// A referrer that a list has room for.
pub(super) struct Addition {
    referrers: Referrers,
    referrer: Referrer,
    before: Option<Digest>,
    list: ReferrerList,
}

impl Referrers {
    pub(super) fn new(repository: Repository, subject: Digest) -> Self {
        Self { repository, subject, tag: fallback_tag(&subject) }
    }

    /// All of them; none for a subject that nobody refers to, whether it is there or not.
    pub(crate) async fn list(&self) -> Result<ReferrerList, DriverError> {
        Ok(self.read().await?.1)
    }

    /// The list with `manifest` in it, not yet kept.
    pub(super) async fn with(self, manifest: &Manifest, digest: Digest) -> Result<Addition, ManifestError> {
        let (before, mut list) = self.read().await?;
        let referrer = Referrer::of(manifest, digest).map_err(|_| ManifestError::Damaged(digest))?;
        list.add(referrer.clone());
        if !list.fits() {
            return Err(ManifestError::TooManyReferrers(self.subject));
        }
        Ok(Addition { referrers: self, referrer, before, list })
    }

    /// Takes a manifest out of the list. An empty list is no list.
    pub(super) async fn remove(&self, digest: &Digest) -> Result<(), DriverError> {
        for _ in 0..MAX_ATTEMPTS {
            let (before, mut list) = self.read().await?;
            let Some(before) = before else { return Ok(()) };
            list.remove(digest);
            let removed = match list.is_empty() {
                true => self.remove_list(before).await,
                false => self.replace(Some(before), &list).await,
            };
            match removed {
                Err(DriverError::TagMoved { .. }) => {}
                done => return done,
            }
        }
        Err(self.contended())
    }

    async fn remove_list(&self, before: Digest) -> Result<(), DriverError> {
        self.repository.tags().remove(&self.tag, &TagExpectation::one_of([before])).await?;
        self.drop_revision(&before).await
    }

    fn contended(&self) -> DriverError {
        DriverError::Unavailable {
            driver: self.repository.driver().name(),
            detail: format!("others change the list of what refers to {} all the time", self.subject),
        }
    }

    /// The index as it is now, with its digest.
    async fn read(&self) -> Result<(Option<Digest>, ReferrerList), DriverError> {
        let Some(resolved) = self.repository.tags().resolve(&self.tag).await? else {
            return Ok((None, ReferrerList::default()));
        };
        let digest = resolved.digest;
        let bytes = self.repository.manifests().read_bounded(&digest).await?;
        match bytes {
            Some(bytes) if hash(digest.algorithm(), bytes.clone()).await == digest => {
                Ok((Some(digest), ReferrerList::parse(&bytes)))
            }
            _ => Err(DriverError::Unavailable {
                driver: self.repository.driver().name(),
                detail: format!("list {digest} of what refers to {} is gone or damaged", self.subject),
            }),
        }
    }

    /// Keeps a list in place of the one before, if that is still it. The tag is what makes it visible.
    async fn replace(&self, before: Option<Digest>, list: &ReferrerList) -> Result<(), DriverError> {
        let (name, bytes) = (&self.repository.name, list.to_index());
        let digest = hash(Algorithm::Sha256, bytes.clone()).await;
        if before == Some(digest) {
            return Ok(());
        }
        // It may be a list that there was before: then garbage collection must not take what it finds of that.
        let _push = self.repository.shared.barrier.push(name, [digest]).await;
        self.repository.put(RegistryPath::BlobData(digest), bytes).await?;
        self.repository.write_link(RegistryPath::RevisionLink(name.clone(), digest), &digest).await?;
        let expected = before.map_or_else(TagExpectation::nothing, |before| TagExpectation::one_of([before]));
        self.repository.tags().set(&self.tag, &digest, &expected).await?;
        match before {
            Some(before) => self.drop_revision(&before).await,
            None => Ok(()),
        }
    }

    /// Lets go of an index that was replaced: without this, a subject with many referrers would keep every list that it
    /// ever had. One that another tag names as well goes with it; such copies are nobody's business here.
    async fn drop_revision(&self, digest: &Digest) -> Result<(), DriverError> {
        let name = &self.repository.name;
        let entry = RegistryPath::TagIndexEntry(name.clone(), self.tag.clone(), *digest);
        found(self.repository.delete(entry).await)?;
        found(self.repository.delete(RegistryPath::Revision(name.clone(), *digest)).await)?;
        Ok(())
    }
}

impl Addition {
    pub(super) async fn keep(mut self) -> Result<(), ManifestError> {
        for _ in 0..MAX_ATTEMPTS {
            match self.referrers.replace(self.before, &self.list).await {
                Err(DriverError::TagMoved { .. }) => {}
                done => return Ok(done?),
            }
            (self.before, self.list) = self.referrers.read().await?;
            self.list.add(self.referrer.clone());
            if !self.list.fits() {
                return Err(ManifestError::TooManyReferrers(self.referrers.subject));
            }
        }
        Err(self.referrers.contended().into())
    }
}

/// How often a change is tried: an origin that always comes too late is among more of them than anybody has.
const MAX_ATTEMPTS: usize = 16;

/// The tag under which clients without the API keep a subject's referrers (distribution-spec, "Referrers Tag Schema").
pub(crate) fn fallback_tag(subject: &Digest) -> Tag {
    let tag = format!("{}-{:.64}", subject.algorithm(), subject.hex());
    Tag::parse(&tag).expect("an algorithm's name and 64 hexadecimal characters are a tag")
}

/// Whether a tag may be some subject's list of referrers, so that it must not change while a list does.
pub(crate) fn is_fallback_tag(tag: &Tag) -> bool {
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    tag.as_str()
        .split_once('-')
        .is_some_and(|(algorithm, rest)| Algorithm::parse(algorithm).is_ok() && hex(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_a_subject_is_that_of_the_specification() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let subject = Digest::of(algorithm, b"subject");
            let tag = fallback_tag(&subject);
            assert_eq!(tag.as_str(), format!("{algorithm}-{}", &subject.hex()[..64]));
            assert!(is_fallback_tag(&tag));
        }
        for other in ["latest", "sha256-abc", "md5-x", "sha256"] {
            assert!(!is_fallback_tag(&Tag::parse(other).unwrap()), "{other}");
        }
    }
}
