//! The drivers of a free tree against the contract. Those of the registry's layout: `peer_to_peer`.

// Functions that tests share are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_driver::conformance::{Bare, FreeLayout, Layout, Refusal, Subject, Suite};
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, DriverPath, FileInfo, FileWriter, FilesystemDriver,
    MemoryDriver, StorageDriver, WriteMode,
};
use tempfile::TempDir;

const ARRIVING: &str = "content comes by a writer, and what is not committed is not visible";

/// Files that outlive their driver.
struct Files {
    directory: TempDir,
    driver: Mutex<Arc<FilesystemDriver>>,
}

#[async_trait]
impl Subject for Files {
    fn driver(&self) -> Arc<dyn StorageDriver> {
        Arc::clone(&*self.driver.lock().unwrap()) as Arc<dyn StorageDriver>
    }

    fn layout(&self) -> &dyn Layout {
        &FreeLayout
    }

    async fn restart(&self) -> Result<(), DriverError> {
        *self.driver.lock().unwrap() = Arc::new(FilesystemDriver::new(self.directory.path()));
        Ok(())
    }
}

#[tokio::test]
async fn the_memory_driver_keeps_the_contract() {
    let suite = Suite::new(Arc::new(Bare(Arc::new(MemoryDriver::new()))))
        .impossible(&["a_blob_still_arriving_is_read_as_it_comes"], Refusal::Unsupported, ARRIVING)
        .impossible(
            &[
                "a_crash_before_the_commit_shows_nothing",
                "an_upload_goes_on_after_a_restart",
                "committed_content_survives_a_restart",
            ],
            Refusal::Unsupported,
            "memory ends with its process",
        );
    let report = suite.run().await;
    report.assert();
    assert_eq!(report.refused.len(), 4);
    assert_eq!(report.passed.len() + report.refused.len(), Suite::cases().count());
}

#[tokio::test]
async fn the_filesystem_driver_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let driver = Mutex::new(Arc::new(FilesystemDriver::new(directory.path())));
    let suite = Suite::new(Arc::new(Files { directory, driver })).impossible(
        &["a_blob_still_arriving_is_read_as_it_comes"],
        Refusal::Unsupported,
        ARRIVING,
    );
    let report = suite.run().await;
    report.assert();
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.passed.len() + report.refused.len(), Suite::cases().count());
}

#[tokio::test]
async fn a_declared_impossibility_must_be_one() {
    let suite = Suite::new(Arc::new(Bare(Arc::new(MemoryDriver::new()))))
        .impossible(&["rename_overwrites"], Refusal::Unsupported, "it holds")
        .impossible(&["no_such_case"], Refusal::Unsupported, "nobody asks for it")
        .impossible(&["committed_content_survives_a_restart"], Refusal::InvalidPath, "another refusal");
    let report = suite.run().await;
    assert!(report.refused.is_empty());
    let failed: Vec<_> = report.failed.iter().map(|(case, _)| *case).collect();
    for case in ["rename_overwrites", "no_such_case", "committed_content_survives_a_restart"] {
        assert!(failed.contains(&case) && !report.passed.contains(&case), "{failed:?}");
    }
}

/// Refuses every rename, and does it all the same.
struct Deceitful(MemoryDriver);

#[async_trait]
impl StorageDriver for Deceitful {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn rename(&self, context: &Context, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        // What the suite plants is renamed honestly.
        if !to.as_str().starts_with("/notes") {
            return self.0.rename(context, from, to).await;
        }
        self.0.rename(context, from, to).await?;
        Err(DriverError::Unsupported { driver: self.name(), operation: "rename from" })
    }

    async fn get_content(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.0.get_content(context, path).await
    }

    async fn put_content(
        &self,
        context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError> {
        self.0.put_content(context, path, content).await
    }

    async fn reader(
        &self,
        context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        self.0.reader(context, path, range).await
    }

    async fn writer(
        &self,
        context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        self.0.writer(context, path, mode).await
    }

    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        self.0.stat(context, path).await
    }

    async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        self.0.list(context, path).await
    }

    async fn delete(&self, context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        self.0.delete(context, path).await
    }
}

#[tokio::test]
async fn a_refusal_that_changes_something_is_a_violation() {
    let driver = Arc::new(Deceitful(MemoryDriver::new()));
    let suite = Suite::new(Arc::new(Bare(driver))).impossible(
        &["rename_moves_content", "rename_overwrites"],
        Refusal::Unsupported,
        "it says so",
    );
    let report = suite.run().await;
    assert!(report.refused.is_empty());
    for case in ["rename_moves_content", "rename_overwrites"] {
        let violation = report.failed.iter().find(|(name, _)| *name == case).unwrap().1.to_string();
        assert!(violation.contains("was refused, and changed something"), "{case}: {violation}");
    }
}
