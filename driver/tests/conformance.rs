//! Every driver against the contract.

use std::sync::Arc;

use shoal_driver::conformance::Suite;
use shoal_driver::{FilesystemDriver, MemoryDriver};

#[tokio::test]
async fn the_memory_driver_keeps_the_contract() {
    let report = Suite::new(Arc::new(MemoryDriver::new())).run().await;
    report.assert();
    assert_eq!(report.passed.len(), Suite::cases().count());
}

#[tokio::test]
async fn the_filesystem_driver_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let report = Suite::new(Arc::new(FilesystemDriver::new(directory.path()))).run().await;
    report.assert();
    assert_eq!(report.passed.len(), Suite::cases().count());
}

#[tokio::test]
async fn a_declared_impossibility_is_reported_and_must_be_of_a_case() {
    let suite = Suite::new(Arc::new(MemoryDriver::new()))
        .impossible("rename_overwrites", "for the test")
        .impossible("no_such_case", "for the test");
    let report = suite.run().await;
    assert_eq!(report.impossible, [("rename_overwrites", "for the test")]);
    assert!(!report.passed.contains(&"rename_overwrites"));
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].0, "no_such_case");
}
