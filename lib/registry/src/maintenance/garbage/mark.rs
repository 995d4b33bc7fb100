//! Marking: from the manifests that stay to everything that they name, inside one repository.
//!
//! A worklist with a set of what was visited: indexes that name each other in a circle, or a thousand deep, cost what
//! their manifests cost and no stack. A listed manifest counts only if the repository links it, as for a client. A
//! manifest that cannot be read may name anything, so its repository then keeps everything that it links.

use std::collections::HashSet;
use std::time::SystemTime;

use shoal_core::{Digest, RepositoryName};
use shoal_driver::{DriverError, RegistryPath};

use super::lists::List;
use super::{Age, Garbage};
use crate::maintenance::MaintenanceError;
use crate::maintenance::references::References;
use crate::maintenance::tree::Tree;
use crate::storage::hashing::hash;

/// What one repository needs.
pub(super) struct Marks<'a> {
    pub(super) tree: Tree<'a>,
    pub(super) repository: RepositoryName,
    /// Manifests that stay.
    pub(super) manifests: HashSet<Digest>,
    /// Blobs that stay, those of the manifests included.
    pub(super) blobs: HashSet<Digest>,
    /// Manifests of which that is not certain.
    pub(super) doubtful: Vec<Doubtful>,
    pub(super) missing: u64,
    pub(super) unreadable: u64,
    /// How many of the ended pushes have been marked from.
    pushes_seen: usize,
}

/// A manifest that stays only if its subject does.
#[derive(Clone, Copy)]
pub(super) struct Doubtful {
    pub(super) digest: Digest,
    pub(super) subject: Option<Digest>,
}

/// What reading a manifest gave.
pub(super) enum Reading {
    Missing,
    Unreadable,
    Whole(References),
}

impl<'a> Marks<'a> {
    pub(super) fn new(tree: Tree<'a>, repository: &RepositoryName) -> Self {
        Self {
            tree,
            repository: repository.clone(),
            manifests: HashSet::new(),
            blobs: HashSet::new(),
            doubtful: Vec::new(),
            missing: 0,
            unreadable: 0,
            pushes_seen: 0,
        }
    }

    /// Marks `root`, and if it is a manifest of the repository everything that it names.
    pub(super) async fn mark(&mut self, root: Digest) -> Result<(), DriverError> {
        let mut pending = vec![root];
        while let Some(digest) = pending.pop() {
            self.blobs.insert(digest);
            if self.manifests.contains(&digest) || !self.is_linked(digest).await? {
                continue;
            }
            self.manifests.insert(digest);
            match self.read(digest).await? {
                Reading::Missing => self.missing += 1,
                Reading::Unreadable => self.mark_everything(digest).await?,
                Reading::Whole(references) => {
                    self.blobs.extend(references.blobs);
                    pending.extend(references.entries);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn is_linked(&self, digest: Digest) -> Result<bool, DriverError> {
        let link = RegistryPath::RevisionLink(self.repository.clone(), digest);
        Ok(self.tree.stat(&link).await?.is_some())
    }

    pub(super) async fn read(&self, digest: Digest) -> Result<Reading, DriverError> {
        let bytes = match self.tree.content(&RegistryPath::BlobData(digest)).await {
            // Too long for a manifest: not one that this registry took.
            Err(DriverError::InvalidRequest { .. }) => return Ok(Reading::Unreadable),
            other => other?,
        };
        let Some(bytes) = bytes else { return Ok(Reading::Missing) };
        if hash(digest.algorithm(), bytes.clone()).await != digest {
            return Ok(Reading::Unreadable);
        }
        Ok(References::parse(&bytes).map_or(Reading::Unreadable, Reading::Whole))
    }

    async fn mark_everything(&mut self, unreadable: Digest) -> Result<(), DriverError> {
        tracing::warn!(repository = %self.repository, digest = %unreadable, "manifest cannot be read: its repository keeps everything");
        self.unreadable += 1;
        self.blobs.extend(self.tree.layers(&self.repository).await?);
        let revisions = self.tree.revisions(&self.repository).await?;
        self.blobs.extend(&revisions);
        self.manifests.extend(revisions);
        Ok(())
    }

    /// To what the manifest is attached.
    pub(super) async fn subject(&self, digest: Digest) -> Result<Option<Digest>, DriverError> {
        match self.read(digest).await? {
            Reading::Whole(references) => Ok(references.subject),
            Reading::Missing | Reading::Unreadable => Ok(None),
        }
    }

    /// Marks the doubtful whose subject stays, until no more do: a signature of an attestation of an image.
    pub(super) async fn mark_attached(&mut self) -> Result<(), DriverError> {
        loop {
            let (staying, doubtful): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.doubtful).into_iter().partition(|one| self.stays(one));
            self.doubtful = doubtful;
            if staying.is_empty() {
                return Ok(());
            }
            for one in staying {
                self.mark(one.digest).await?;
            }
        }
    }

    /// Whether a doubtful manifest stays, as things are now. What a push relies on stays even if it is not linked, and so
    /// does what is attached to it: the link may be written the next instant.
    pub(super) fn stays(&self, doubtful: &Doubtful) -> bool {
        let needed = |digest| self.blobs.contains(&digest);
        needed(doubtful.digest) || doubtful.subject.is_some_and(needed)
    }
}

impl<'a> Garbage<'a> {
    /// Marks what stays; the rest is doubtful. Gives the lists of referrers among both, with their tags.
    pub(super) async fn mark_repository(&self, marks: &mut Marks<'a>) -> Result<Vec<List>, MaintenanceError> {
        let mut rest = Vec::new();
        for digest in self.tree.revisions(&marks.repository).await? {
            let link = RegistryPath::RevisionLink(marks.repository.clone(), digest);
            match self.tree.stat(&link).await? {
                Some(link) if self.is_root(link.modified) => marks.mark(digest).await?,
                Some(_) => rest.push(digest),
                // An empty folder: its link was deleted before.
                None => {}
            }
        }
        let lists = if self.policy.delete_untagged { self.mark_tagged(marks).await? } else { vec![] };
        marks.doubtful = lists.iter().map(List::doubtful).collect();
        for digest in rest {
            let is_list = lists.iter().any(|list| list.doubtful().digest == digest);
            if !is_list && !marks.manifests.contains(&digest) {
                let subject = marks.subject(digest).await?;
                marks.doubtful.push(Doubtful { digest, subject });
            }
        }
        marks.mark_attached().await?;
        Ok(lists)
    }

    /// Whether a manifest with a link of that time stays without a tag.
    fn is_root(&self, modified: SystemTime) -> bool {
        !self.policy.delete_untagged || self.cutoff.age(modified) != Age::Old
    }

    /// Marks what tags name, and everything that this names. Gives the tags that are lists of referrers, of which nothing
    /// is marked yet.
    async fn mark_tagged(&self, marks: &mut Marks<'a>) -> Result<Vec<List>, MaintenanceError> {
        let mut lists = Vec::new();
        for tag in self.tree.tags(&marks.repository).await? {
            let Some(digest) = self.tree.tagged(&marks.repository, &tag).await? else { continue };
            let digest = digest.map_err(MaintenanceError::TagDamaged)?;
            match marks.list(&tag, digest).await? {
                Some(list) => lists.push(list),
                None => marks.mark(digest).await?,
            }
        }
        Ok(lists)
    }

    /// Marks what pushes rely on, or relied on since the collection began, with what is attached to it. Only then, with the
    /// gate closed, is it certain what is garbage.
    pub(super) async fn mark_pushed(&self, marks: &mut Marks<'a>) -> Result<(), MaintenanceError> {
        for reliance in self.collection.reliances(&mut marks.pushes_seen)? {
            if reliance.repository == marks.repository {
                for digest in &reliance.digests {
                    marks.mark(*digest).await?;
                }
            }
        }
        Ok(marks.mark_attached().await?)
    }
}
