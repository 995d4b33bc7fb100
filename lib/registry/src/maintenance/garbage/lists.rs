//! Lists of referrers: the indexes that the fallback tags of subjects name. A list is no tag of a user: it stays as long as
//! its subject does, and goes with it, so that the signatures of an image that is gone are garbage as well.
//!
//! Whatever might be more than such a list counts as any other tag: an image under such a name, an index with an entry
//! that is attached to something else or to nothing. A push that attaches something relies on the subject, there or not.

use shoal_core::{Digest, Tag};
use shoal_driver::{DriverError, RegistryPath};

use super::Garbage;
use super::mark::{Doubtful, Marks, Reading};
use crate::maintenance::MaintenanceError;
use crate::maintenance::tree::Tree;
use crate::storage::{fallback_tag, is_fallback_tag};

/// A fallback tag with the list that it names.
#[derive(Clone, Debug)]
pub(super) struct List {
    tag: Tag,
    digest: Digest,
    subject: Digest,
}

impl List {
    /// It stays only if its subject does.
    pub(super) fn doubtful(&self) -> Doubtful {
        Doubtful { digest: self.digest, subject: Some(self.subject) }
    }
}

impl Marks<'_> {
    /// The tag's manifest as a list of what refers to one subject; `None` if it is, or may be, anything else.
    pub(super) async fn list(&self, tag: &Tag, digest: Digest) -> Result<Option<List>, DriverError> {
        if !is_fallback_tag(tag) {
            return Ok(None);
        }
        let Reading::Whole(list) = self.read(digest).await? else { return Ok(None) };
        if !list.blobs.is_empty() || list.subject.is_some() {
            return Ok(None);
        }
        let mut subject = subject_of(tag);
        for entry in list.entries {
            // An entry that was deleted keeps nothing alive.
            if !self.is_linked(entry).await? {
                continue;
            }
            match self.subject(entry).await? {
                Some(own) if fallback_tag(&own) == *tag && subject.is_none_or(|seen| seen == own) => {
                    subject = Some(own);
                }
                _ => return Ok(None),
            }
        }
        Ok(subject.map(|subject| List { tag: tag.clone(), digest, subject }))
    }
}

impl<'a> Garbage<'a> {
    /// Removes the tags of lists whose subject is gone; the lists themselves are manifests like others then. Before any
    /// manifest goes, so that no tag is left that names nothing.
    pub(super) async fn sweep_lists(
        &mut self,
        marks: &mut Marks<'a>,
        lists: &[List],
    ) -> Result<(), MaintenanceError> {
        for list in lists.iter().filter(|list| !marks.stays(&list.doubtful())).cloned().collect::<Vec<_>>() {
            let _closed = self.collection.close().await;
            self.mark_pushed(marks).await?;
            if self.is_garbage(marks, &list).await? {
                let delete = self.tree.delete_tag(&marks.repository, &list.tag, list.digest);
                if self.policy.dry_run || delete.await? {
                    self.report.lists_deleted += 1;
                }
            }
        }
        Ok(())
    }

    async fn is_garbage(&self, marks: &mut Marks<'a>, list: &List) -> Result<bool, MaintenanceError> {
        let now = self.tree.tagged(&marks.repository, &list.tag).await?;
        match now.transpose().map_err(MaintenanceError::TagDamaged)? {
            Some(digest) if digest == list.digest => Ok(!marks.stays(&list.doubtful())),
            // It was changed since it was looked at: by somebody to whom it matters.
            Some(other) => {
                marks.mark(other).await?;
                Ok(false)
            }
            None => Ok(false),
        }
    }
}

/// The subject of a fallback tag. Of a longer digest the tag has only the beginning: its entries say the rest.
fn subject_of(tag: &Tag) -> Option<Digest> {
    let (algorithm, hex) = tag.as_str().split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

impl Tree<'_> {
    /// What a tag names; the tag's path, if that is no digest.
    pub(super) async fn tagged(
        self,
        repository: &shoal_core::RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Result<Digest, String>>, DriverError> {
        let failed = match self.resolve(repository, tag).await {
            Err(error @ DriverError::Failed { .. }) => error,
            resolved => return Ok(resolved?.map(Ok)),
        };
        let link = RegistryPath::TagCurrentLink(repository.clone(), tag.clone());
        let Some(content) = self.content(&link).await? else { return Err(failed) };
        let digest = std::str::from_utf8(&content).ok().and_then(|text| Digest::parse(text.trim()).ok());
        Ok(Some(digest.ok_or_else(|| link.to_string())))
    }
}
