//! Purge of upload sessions that nobody came back to.
//!
//! A session's age is that of its `startedat`; where that is missing or no time, its folder's. A session in use in
//! this process stays, and none can be taken up while it is removed: the purge claims it as a request would.

use std::time::{Duration, SystemTime};

use shoal_core::RepositoryName;
use shoal_driver::{DriverError, RegistryPath, UploadId};

use super::MaintenanceError;
use super::tree::Tree;
use crate::storage::Storage;
use crate::storage::owner::Started;

/// Which sessions are abandoned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgePolicy {
    /// Sessions started longer ago are removed.
    pub age: Duration,
    /// Counts, and removes nothing.
    pub dry_run: bool,
}

/// What a purge found and removed; in a dry run, what it would have removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Sessions looked at.
    pub sessions: u64,
    /// Sessions removed.
    pub purged: u64,
    /// Sessions old enough to go, but in use.
    pub in_use: u64,
}

pub(super) async fn purge(
    storage: &Storage,
    now: SystemTime,
    policy: &PurgePolicy,
) -> Result<PurgeReport, MaintenanceError> {
    let tree = Tree::new(storage.driver());
    let mut report = PurgeReport::default();
    let mut repositories = tree.repositories();
    while let Some(name) = repositories.next().await? {
        for upload in tree.children(&RegistryPath::Uploads(name)).await? {
            let RegistryPath::Upload(name, id) = upload else { continue };
            report.sessions += 1;
            let started = started_at(tree, &name, id).await?;
            if started.is_some_and(|started| is_older(now, started, policy.age)) {
                remove(storage, (&name, id), policy, &mut report).await?;
            }
        }
    }
    Ok(report)
}

async fn remove(
    storage: &Storage,
    (name, id): (&RepositoryName, UploadId),
    policy: &PurgePolicy,
    report: &mut PurgeReport,
) -> Result<(), MaintenanceError> {
    let Ok(_claim) = storage.claim(name, id) else {
        report.in_use += 1;
        return Ok(());
    };
    let path = RegistryPath::Upload(name.clone(), id);
    if policy.dry_run || Tree::new(storage.driver()).delete(&path).await? {
        report.purged += 1;
    }
    Ok(())
}

/// When a session began; `None` where nobody knows, or it is gone.
async fn started_at(
    tree: Tree<'_>,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Option<SystemTime>, DriverError> {
    let noted = tree.content(&RegistryPath::UploadStartedAt(name.clone(), id)).await;
    let noted = match noted {
        // Far too long for a time.
        Err(DriverError::InvalidRequest { .. }) => None,
        other => other?,
    };
    if let Some(time) = noted.and_then(|content| Started::parse(&content).at) {
        return Ok(Some(time.into()));
    }
    let folder = tree.stat(&RegistryPath::Upload(name.clone(), id)).await?;
    Ok(folder.map(|folder| folder.modified).filter(|modified| *modified != SystemTime::UNIX_EPOCH))
}

fn is_older(now: SystemTime, started: SystemTime, age: Duration) -> bool {
    now.duration_since(started).is_ok_and(|elapsed| elapsed > age)
}
