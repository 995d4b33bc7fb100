//! The task that runs all of it at its intervals.

use std::time::Duration;

use shoal_driver::RegistryPath;
use shoal_driver::UploadId;
use shoal_registry::MaintenanceConfig;
use shoal_registry::maintenance::{GarbageConfig, MaintenanceMetrics, PurgeConfig, Schedule};

use crate::rig::{Rig, name};

fn start(rig: &Rig, config: MaintenanceConfig) -> (Schedule, prometheus::Registry) {
    let metrics = prometheus::Registry::new();
    let counters = MaintenanceMetrics::register(&metrics).unwrap();
    (Schedule::start(rig.maintenance(), config, counters), metrics)
}

fn count(metrics: &prometheus::Registry, name: &str, label: &str) -> u64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == format!("shoal_registry_maintenance_{name}"));
    let metrics = family.into_iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    let labelled = metrics.filter(|metric| metric.get_label().iter().any(|pair| pair.value() == label));
    labelled.map(|metric| metric.get_counter().get_value() as u64).sum()
}

/// Lets virtual time pass until the counter is there.
async fn reaches(metrics: &prometheus::Registry, name: &str, label: &str, at_least: u64) {
    let wait = async {
        while count(metrics, name, label) < at_least {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1_000_000), wait).await.expect("it runs again and again");
}

#[tokio::test(start_paused = true)]
async fn runs_come_again_and_again_and_are_counted() {
    let rig = Rig::new();
    let id = UploadId::random();
    rig.put(RegistryPath::UploadStartedAt(name("app"), id), "2020-01-01T00:00:00Z").await;
    let garbage = GarbageConfig { enabled: true, ..GarbageConfig::default() };
    let (schedule, metrics) = start(&rig, MaintenanceConfig { garbage, ..MaintenanceConfig::default() });
    reaches(&metrics, "runs_total", "uploads", 3).await;
    reaches(&metrics, "runs_total", "garbage", 3).await;
    assert_eq!(count(&metrics, "deleted_total", "upload"), 1);
    assert_eq!(count(&metrics, "runs_total", "scrub"), 0);
    schedule.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_off_does_not_run() {
    let rig = Rig::new();
    let (schedule, metrics) = start(&rig, MaintenanceConfig::default());
    reaches(&metrics, "runs_total", "uploads", 3).await;
    assert_eq!(count(&metrics, "runs_total", "garbage"), 0);
    schedule.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dry_runs_remove_nothing_and_count_nothing_as_removed() {
    let rig = Rig::new();
    let upload = RegistryPath::UploadStartedAt(name("app"), UploadId::random());
    rig.put(upload.clone(), "2020-01-01T00:00:00Z").await;
    let uploads = PurgeConfig { dry_run: true, ..Default::default() };
    let (schedule, metrics) = start(&rig, MaintenanceConfig { uploads, ..Default::default() });
    reaches(&metrics, "runs_total", "uploads", 2).await;
    schedule.shutdown().await;
    assert!(rig.has(upload).await);
    assert_eq!(count(&metrics, "deleted_total", "upload"), 0);
}
