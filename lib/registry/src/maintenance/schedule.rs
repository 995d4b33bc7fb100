//! The task that maintains a registry in the background, each kind of run at its own interval.
//!
//! A shutdown drops the runs under way, which every run allows at any point. The first runs come a while after the
//! start: a node that comes up has other things to do, and one that crashes again and again removes nothing. A scrub
//! may take days; the others do not wait for it.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{GarbageConfig, Maintenance, MaintenanceConfig, MaintenanceError};
use super::{MaintenanceMetrics, PurgeConfig, ScrubConfig};

/// The background task. Dropped, it is told to stop, and not waited for.
#[derive(Debug)]
pub struct Schedule {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What the task works with.
struct Worker {
    maintenance: Maintenance,
    metrics: MaintenanceMetrics,
}

impl Schedule {
    /// Starts the task.
    #[must_use]
    pub fn start(maintenance: Maintenance, config: MaintenanceConfig, metrics: MaintenanceMetrics) -> Self {
        let (stop, worker) = (CancellationToken::new(), Worker { maintenance, metrics });
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = worker.run(&config) => {}
            }
        });
        Self { stop, task }
    }

    /// Stops the task, and waits until it has stopped.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "maintenance did not end properly");
        }
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Worker {
    async fn run(&self, config: &MaintenanceConfig) {
        let MaintenanceConfig { uploads, garbage, scrub } = config;
        tokio::join!(
            every(uploads.enabled, uploads.interval, || self.purge(uploads)),
            every(garbage.enabled, garbage.interval, || self.collect(garbage)),
            every(scrub.enabled, scrub.interval, || self.scrub(scrub)),
        );
    }

    async fn purge(&self, config: &PurgeConfig) {
        if self.maintenance.is_paused() {
            return;
        }
        let start = Instant::now();
        let outcome = self.maintenance.purge_uploads(SystemTime::now(), &config.policy()).await;
        let Some(report) = self.outcome("uploads", outcome) else { return };
        if !config.dry_run {
            self.metrics.purged(&report);
        }
        tracing::info!(
            dry_run = config.dry_run,
            sessions = report.sessions,
            purged = report.purged,
            in_use = report.in_use,
            seconds = start.elapsed().as_secs_f64(),
            "uploads purged"
        );
    }

    async fn collect(&self, config: &GarbageConfig) {
        if self.maintenance.is_paused() {
            return;
        }
        let start = Instant::now();
        let outcome = self.maintenance.collect_garbage(SystemTime::now(), &config.policy()).await;
        let Some(report) = self.outcome("garbage", outcome) else { return };
        if !config.dry_run {
            self.metrics.collected(&report);
        }
        tracing::info!(
            dry_run = config.dry_run,
            repositories = report.repositories,
            manifests_deleted = report.manifests_deleted,
            lists_deleted = report.lists_deleted,
            manifests_unreadable = report.manifests_unreadable,
            links_deleted = report.links_deleted,
            blobs_deleted = report.blobs_deleted,
            bytes_deleted = report.bytes_deleted,
            blobs_kept = report.blobs_kept,
            blobs_of_unknown_age = report.blobs_of_unknown_age,
            seconds = start.elapsed().as_secs_f64(),
            "garbage collected"
        );
    }

    async fn scrub(&self, config: &ScrubConfig) {
        let start = Instant::now();
        let rate = NonZeroU64::new(config.bytes_per_second.as_u64()).unwrap_or(NonZeroU64::MIN);
        let outcome = self.maintenance.scrub(rate).await;
        let Some(report) = self.outcome("scrub", outcome) else { return };
        self.metrics.scrubbed(&report);
        tracing::info!(
            blobs = report.blobs,
            bytes = report.bytes,
            links = report.links,
            corrupt = report.corrupt,
            dangling = report.dangling,
            seconds = start.elapsed().as_secs_f64(),
            "registry scrubbed"
        );
    }

    /// Counts a run, and says what went wrong: the next one tries again.
    fn outcome<T>(&self, task: &'static str, outcome: Result<T, MaintenanceError>) -> Option<T> {
        self.metrics.ran(task, outcome.is_ok());
        outcome.inspect_err(|error| tracing::error!(task, %error, "maintenance run failed")).ok()
    }
}

async fn every<F: Future<Output = ()>>(enabled: bool, interval: Duration, run: impl Fn() -> F) {
    if !enabled {
        return;
    }
    let interval = interval.max(MIN_INTERVAL);
    sleep(interval.min(FIRST_RUN)).await;
    loop {
        run().await;
        sleep(interval).await;
    }
}

/// How long after the start the first runs come. Ten minutes: a node that holds out so long is not crashing.
const FIRST_RUN: Duration = Duration::from_secs(10 * 60);
/// Runs do not follow each other faster, whatever is configured: an interval of zero would be a busy loop.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
