//! Sweeping: candidates are found at leisure, and removed in small batches with the gate closed, after marking again
//! from what pushes rely on by then.

use std::collections::HashSet;

use shoal_core::{Digest, Tag};
use shoal_driver::RegistryPath;

use super::mark::Marks;
use super::{Age, BATCH, Garbage};
use crate::maintenance::MaintenanceError;

/// A blob that nothing names, and its bytes.
#[derive(Clone, Copy)]
struct Orphan {
    digest: Digest,
    size: u64,
}

impl<'a> Garbage<'a> {
    /// Removes what nobody made use of since it is of an age to go. Another writer of the storage may have done so after the look.
    async fn remove(&self, path: &RegistryPath) -> Result<bool, MaintenanceError> {
        match self.cutoff.0 {
            _ if self.policy.dry_run => Ok(true),
            Some(since) => Ok(self.tree.delete_unchanged(path, since).await?),
            None => Ok(false),
        }
    }

    /// Removes manifests from the repository. Gives those that it removed.
    pub(super) async fn sweep_manifests(
        &mut self,
        marks: &mut Marks<'a>,
    ) -> Result<HashSet<Digest>, MaintenanceError> {
        let garbage = marks.doubtful.clone();
        let mut dropped = HashSet::new();
        for batch in garbage.chunks(BATCH) {
            let _closed = self.collection.close().await;
            self.mark_pushed(marks).await?;
            for manifest in batch.iter().filter(|one| !marks.stays(one)) {
                let path = RegistryPath::Revision(marks.repository.clone(), manifest.digest);
                if self.remove(&path).await? {
                    self.report.manifests_deleted += 1;
                    self.storage.forget(&marks.repository, &manifest.digest);
                    dropped.insert(manifest.digest);
                }
            }
        }
        Ok(dropped)
    }

    /// Removes what tags remember of the manifests that are gone.
    pub(super) async fn sweep_tag_history(
        &mut self,
        marks: &mut Marks<'a>,
        dropped: &HashSet<Digest>,
    ) -> Result<(), MaintenanceError> {
        if dropped.is_empty() {
            return Ok(());
        }
        for tag in self.tree.tags(&marks.repository).await? {
            let index = self.tree.tag_index(&marks.repository, &tag).await?;
            let past: Vec<_> = index.into_iter().filter(|digest| dropped.contains(digest)).collect();
            for batch in past.chunks(BATCH) {
                self.sweep_tag_entries(marks, &tag, batch).await?;
            }
        }
        Ok(())
    }

    async fn sweep_tag_entries(
        &mut self,
        marks: &mut Marks<'a>,
        tag: &Tag,
        batch: &[Digest],
    ) -> Result<(), MaintenanceError> {
        let _closed = self.collection.close().await;
        self.mark_pushed(marks).await?;
        for digest in batch.iter().filter(|digest| !marks.blobs.contains(digest)) {
            let path = RegistryPath::TagIndexEntry(marks.repository.clone(), tag.clone(), *digest);
            if self.policy.dry_run || self.tree.delete(&path).await? {
                self.report.tag_entries_deleted += 1;
            }
        }
        Ok(())
    }

    /// Removes links to layers that no manifest of the repository names. Layers with a young link stay.
    pub(super) async fn sweep_links(&mut self, marks: &mut Marks<'a>) -> Result<(), MaintenanceError> {
        let mut garbage = Vec::new();
        for digest in self.tree.layers(&marks.repository).await? {
            if marks.blobs.contains(&digest) {
                continue;
            }
            let link = RegistryPath::LayerLink(marks.repository.clone(), digest);
            match self.tree.stat(&link).await? {
                Some(link) if self.cutoff.age(link.modified) == Age::Old => garbage.push(digest),
                Some(_) => {
                    marks.blobs.insert(digest);
                }
                // An empty folder: its link was deleted before.
                None => {}
            }
        }
        for batch in garbage.chunks(BATCH) {
            self.sweep_link_batch(marks, batch).await?;
        }
        Ok(())
    }

    async fn sweep_link_batch(
        &mut self,
        marks: &mut Marks<'a>,
        batch: &[Digest],
    ) -> Result<(), MaintenanceError> {
        let _closed = self.collection.close().await;
        self.mark_pushed(marks).await?;
        for digest in batch.iter().filter(|digest| !marks.blobs.contains(digest)) {
            let path = RegistryPath::Layer(marks.repository.clone(), *digest);
            if self.remove(&path).await? {
                self.report.links_deleted += 1;
                self.storage.forget(&marks.repository, digest);
            }
        }
        Ok(())
    }

    /// Removes the blobs that no repository needs.
    pub(super) async fn sweep_blobs(&mut self) -> Result<(), MaintenanceError> {
        let (mut blobs, mut batch, mut pushes_seen) = (self.tree.blobs(), Vec::with_capacity(BATCH), 0);
        while let Some(digest) = blobs.next().await? {
            if let Some(orphan) = self.orphan(digest).await? {
                batch.push(orphan);
            }
            if batch.len() == BATCH {
                self.sweep_blob_batch(&batch, &mut pushes_seen).await?;
                batch.clear();
            }
        }
        self.sweep_blob_batch(&batch, &mut pushes_seen).await
    }

    /// The blob, if nothing names it and it is old enough to go.
    async fn orphan(&mut self, digest: Digest) -> Result<Option<Orphan>, MaintenanceError> {
        let file = self.tree.stat(&RegistryPath::BlobData(digest)).await?;
        // An empty folder, or a blob that went away meanwhile.
        let Some(file) = file else { return Ok(None) };
        if !self.marked.contains(&digest) {
            match self.cutoff.age(file.modified) {
                Age::Old => return Ok(Some(Orphan { digest, size: file.size })),
                Age::Young => self.report.blobs_young += 1,
                Age::Unknown => self.report.blobs_of_unknown_age += 1,
            }
        }
        self.report.blobs_kept += 1;
        Ok(None)
    }

    async fn sweep_blob_batch(
        &mut self,
        batch: &[Orphan],
        pushes_seen: &mut usize,
    ) -> Result<(), MaintenanceError> {
        if batch.is_empty() {
            return Ok(());
        }
        let _closed = self.collection.close().await;
        for reliance in self.collection.reliances(pushes_seen)? {
            let mut marks = Marks::new(self.tree, &reliance.repository);
            for digest in &reliance.digests {
                marks.mark(*digest).await?;
            }
            self.marked.extend(marks.blobs);
        }
        for orphan in batch {
            if self.marked.contains(&orphan.digest) {
                self.report.blobs_kept += 1;
            } else if self.remove(&RegistryPath::Blob(orphan.digest)).await? {
                self.report.blobs_deleted += 1;
                self.report.bytes_deleted += orphan.size;
            }
        }
        Ok(())
    }
}
