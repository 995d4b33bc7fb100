//! Garbage collection: removes what no client can reach by any manifest, repository by repository, then the blobs.
//!
//! Mark: the manifests that stay, what they name, and what is too young to judge. Sweep, always in this order:
//! lists of referrers, manifests, tag history, layer links, blobs; so a crash, or a push in between, meets a missing link, never a link to
//! nothing. A set of marked digests is all that grows with the registry: about 70 bytes a blob.

mod lists;
mod mark;
mod sweep;

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use shoal_core::{Digest, RepositoryName};
use shoal_driver::{DriverError, RegistryPath};

use super::barrier::{Collection, TooManyPushes};
use super::tree::Tree;
use super::{MaintenanceError, OtherWriters};
use crate::storage::Storage;
use mark::Marks;

/// What a collection takes for garbage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbagePolicy {
    /// Nothing younger than this is removed, however unreferenced. What the driver knows no time of is young.
    pub min_age: Duration,
    /// Whether a manifest that no tag names, no kept index lists, and that is attached to no kept manifest is garbage.
    pub delete_untagged: bool,
    /// Counts, and removes nothing.
    pub dry_run: bool,
}

/// What a collection found and removed; in a dry run, what it would have removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GarbageReport {
    /// Repositories looked at.
    pub repositories: u64,
    /// Manifests that stay, counted in each repository.
    pub manifests_kept: u64,
    /// Manifests that are listed or linked, but whose bytes are gone.
    pub manifests_missing: u64,
    /// Manifests that could not be read. Their repositories keep everything that they link.
    pub manifests_unreadable: u64,
    /// Manifests removed from a repository.
    pub manifests_deleted: u64,
    /// Lists of referrers removed, since their subject is gone.
    pub lists_deleted: u64,
    /// Entries of tag histories removed, since their manifest is.
    pub tag_entries_deleted: u64,
    /// Layer links removed, since no manifest of the repository names the layer.
    pub links_deleted: u64,
    /// Blobs that stay, those of manifests included.
    pub blobs_kept: u64,
    /// Blobs among them that nothing names, but that are too young.
    pub blobs_young: u64,
    /// Blobs among them that nothing names, but whose age the driver does not know.
    pub blobs_of_unknown_age: u64,
    /// Blobs removed.
    pub blobs_deleted: u64,
    /// Bytes of the blobs removed.
    pub bytes_deleted: u64,
}

/// One collection under way.
pub(super) struct Garbage<'a> {
    storage: &'a Storage,
    tree: Tree<'a>,
    collection: Collection,
    policy: &'a GarbagePolicy,
    others: Option<&'a dyn OtherWriters>,
    cutoff: Cutoff,
    /// Blobs that some repository needs.
    marked: HashSet<Digest>,
    report: GarbageReport,
}

/// The instant before which things are old.
#[derive(Clone, Copy)]
struct Cutoff(Option<SystemTime>);

/// What the time of a thing says about removing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Old,
    Young,
    Unknown,
}

impl GarbageReport {
    /// Things removed, of every kind.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        let named = self.manifests_deleted + self.lists_deleted + self.tag_entries_deleted;
        named + self.links_deleted + self.blobs_deleted
    }
}

impl<'a> Garbage<'a> {
    pub(super) fn begin(
        storage: &'a Storage,
        policy: &'a GarbagePolicy,
        others: Option<&'a dyn OtherWriters>,
        now: SystemTime,
    ) -> Result<Self, MaintenanceError> {
        let collection = storage.barrier().collect().ok_or(MaintenanceError::Busy)?;
        Ok(Self {
            storage,
            tree: Tree::new(storage.driver()),
            collection,
            policy,
            others,
            cutoff: Cutoff(now.checked_sub(policy.min_age)),
            marked: HashSet::new(),
            report: GarbageReport::default(),
        })
    }

    pub(super) async fn run(mut self) -> Result<GarbageReport, MaintenanceError> {
        // After the cutoff was set: what is linked later was made use of later, too.
        if let Some(others) = self.others {
            others.catch_up().await?;
        }
        let mut repositories = self.tree.repositories();
        while let Some(name) = repositories.next().await? {
            self.report.repositories += 1;
            if self.others.is_none_or(|others| others.leaves_to_us(&name)) {
                self.collect_repository(&name).await?;
            }
            if self.others.is_some() {
                self.mark_linked(&name).await?;
            }
        }
        // Links and blobs may lie on different disks. No links at all is far more likely a disk that is not mounted.
        if self.report.repositories == 0 {
            tracing::warn!("no repository is there: no blob is taken for garbage");
            return Ok(self.report);
        }
        self.sweep_blobs().await?;
        Ok(self.report)
    }

    /// Of several writers each removes its own blobs, and a blob stays as long as any link names it: that can be told without
    /// reading a manifest.
    async fn mark_linked(&mut self, name: &RepositoryName) -> Result<(), MaintenanceError> {
        let layers = self.tree.layers(name).await?.into_iter();
        let layers = layers.map(|digest| RegistryPath::LayerLink(name.clone(), digest));
        let revisions = self.tree.revisions(name).await?.into_iter();
        let revisions = revisions.map(|digest| RegistryPath::RevisionLink(name.clone(), digest));
        for link in layers.chain(revisions) {
            let Some(content) = self.tree.content(&link).await? else { continue };
            // Under an alias it names another digest than its own.
            let target = std::str::from_utf8(&content).ok().and_then(|text| Digest::parse(text.trim()).ok());
            self.marked.insert(target.ok_or_else(|| MaintenanceError::LinkDamaged(link.to_string()))?);
        }
        Ok(())
    }

    async fn collect_repository(&mut self, name: &RepositoryName) -> Result<(), MaintenanceError> {
        let mut marks = Marks::new(self.tree, name);
        let lists = self.mark_repository(&mut marks).await?;
        self.sweep_lists(&mut marks, &lists).await?;
        let dropped = self.sweep_manifests(&mut marks).await?;
        self.sweep_tag_history(&mut marks, &dropped).await?;
        self.sweep_links(&mut marks).await?;
        self.report.manifests_kept += marks.manifests.len() as u64;
        self.report.manifests_missing += marks.missing;
        self.report.manifests_unreadable += marks.unreadable;
        self.marked.extend(marks.blobs);
        Ok(())
    }
}

impl Cutoff {
    fn age(self, modified: SystemTime) -> Age {
        match self.0 {
            _ if modified == SystemTime::UNIX_EPOCH => Age::Unknown,
            Some(cutoff) if modified <= cutoff => Age::Old,
            // A time in the future is a clock that was set back: wait until it is past.
            _ => Age::Young,
        }
    }
}

impl From<TooManyPushes> for MaintenanceError {
    fn from(TooManyPushes: TooManyPushes) -> Self {
        Self::TooManyPushes
    }
}

impl From<DriverError> for MaintenanceError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

/// How many things are deleted while the gate is closed: a few milliseconds on a disk, which a push that comes then
/// waits.
const BATCH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_time_is_neither_old_nor_young() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let cutoff = Cutoff(now.checked_sub(Duration::from_secs(100)));
        assert_eq!(cutoff.age(now - Duration::from_secs(100)), Age::Old);
        assert_eq!(cutoff.age(now - Duration::from_secs(99)), Age::Young);
        assert_eq!(cutoff.age(now + Duration::from_secs(99)), Age::Young);
        assert_eq!(cutoff.age(SystemTime::UNIX_EPOCH), Age::Unknown);
        assert_eq!(Cutoff(None).age(now), Age::Young);
    }
}
