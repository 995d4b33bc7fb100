//! Maintenance of a registry over any driver: garbage collection, purge of abandoned uploads, scrub.
//!
//! Why it is safe while pushes run: a grace period *and* a barrier. The grace period (`min_age`, longer than any
//! upload) protects layers whose manifest is still to come. Age alone is not enough, since a push may rely on layers
//! that are old and unreferenced; so inside this process `barrier` orders each push against each deletion. Other
//! processes ([`OtherWriters`]) are told apart by time: a push makes young what it relies on, and only what is old when it is
//! removed goes. A process that writes by another way than this [`crate::Registry`] has the grace period only.

mod barrier;
mod config;
mod garbage;
mod metrics;
mod purge;
mod references;
mod schedule;
mod scrub;
mod tree;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use shoal_core::RepositoryName;
use shoal_driver::DriverError;

use crate::storage::Storage;
pub(crate) use barrier::Barrier;
pub use config::{GarbageConfig, MaintenanceConfig, PurgeConfig, ScrubConfig};
pub use garbage::{GarbagePolicy, GarbageReport};
pub use metrics::MaintenanceMetrics;
pub use purge::{PurgePolicy, PurgeReport};
pub use schedule::Schedule;
pub use scrub::ScrubReport;

/// Maintains one registry. Every run may be dropped at any point: what it did until then is consistent.
#[derive(Clone)]
pub struct Maintenance {
    storage: Storage,
    others: Option<Arc<dyn OtherWriters>>,
}

/// Other processes that take pushes to the same repositories. They have blobs of their own, and each sees all links.
#[async_trait]
pub trait OtherWriters: Send + Sync + 'static {
    /// Returns once every link and tag that was acknowledged anywhere before this call is seen here.
    async fn catch_up(&self) -> Result<(), DriverError>;
    /// Whether the garbage among the links of a repository is for this process to remove. It does no harm where two do.
    fn leaves_to_us(&self, repository: &RepositoryName) -> bool;
}

/// Why a run ended early. What it had removed by then was garbage.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// A garbage collection is under way already.
    #[error("a garbage collection is under way already")]
    Busy,
    /// More was pushed while the collection ran than it can remember; the next one finds the rest.
    #[error("too many pushes during one garbage collection")]
    TooManyPushes,
    /// A tag names no digest, so nobody knows what it keeps.
    #[error("tag link {0} holds no digest")]
    TagDamaged(String),
    /// A link names no digest, so nobody knows what it keeps.
    #[error("link {0} holds no digest")]
    LinkDamaged(String),
    /// The driver failed.
    #[error(transparent)]
    Driver(DriverError),
}

impl Maintenance {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, others: None }
    }

    /// The same where others write, too.
    #[must_use]
    pub fn beside(self, others: Arc<dyn OtherWriters>) -> Self {
        Self { others: Some(others), ..self }
    }

    /// Whether the registry is read only, so that nothing is to be removed either.
    fn is_paused(&self) -> bool {
        self.storage.is_read_only()
    }

    /// Removes what no manifest names and what no tag keeps, if it is older than the policy's age at `now`.
    pub async fn collect_garbage(
        &self,
        now: SystemTime,
        policy: &GarbagePolicy,
    ) -> Result<GarbageReport, MaintenanceError> {
        garbage::Garbage::begin(&self.storage, policy, self.others.as_deref(), now)?.run().await
    }

    /// Removes upload sessions that were started longer ago than the policy's age at `now`, except those in use.
    pub async fn purge_uploads(
        &self,
        now: SystemTime,
        policy: &PurgePolicy,
    ) -> Result<PurgeReport, MaintenanceError> {
        purge::purge(&self.storage, now, policy).await
    }

    /// Reads and hashes every blob, at most so many bytes a second, and looks behind every link. Changes nothing.
    pub async fn scrub(&self, bytes_per_second: NonZeroU64) -> Result<ScrubReport, MaintenanceError> {
        scrub::scrub(self.storage.driver(), bytes_per_second).await
    }
}

impl std::fmt::Debug for Maintenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maintenance").finish_non_exhaustive()
    }
}
