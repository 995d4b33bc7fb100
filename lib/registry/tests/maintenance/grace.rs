//! What is young stays, whatever names it, and so does what has no time.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use shoal_core::Digest;
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, DriverPath, FileInfo, FileWriter, MemoryDriver,
    RegistryPath, StorageDriver, WriteMode,
};
use shoal_registry::maintenance::GarbagePolicy;

use crate::rig::{DAY, Rig, policy};

#[tokio::test]
async fn what_is_younger_than_the_grace_period_stays() {
    let rig = Rig::new();
    rig.push_image("app", None, "untagged").await;
    rig.put_blob("app", b"layer of a manifest to come").await;
    rig.put(RegistryPath::BlobData(Digest::sha256(b"orphan")), "orphan").await;
    let before = rig.files().await;
    let policy = GarbagePolicy { delete_untagged: true, ..policy() };
    let now = SystemTime::now() + 6 * DAY;
    let report = rig.maintenance().collect_garbage(now, &policy).await.unwrap();
    assert_eq!((report.deleted(), report.blobs_young), (0, 1));
    assert_eq!(rig.files().await, before);
    let report = rig.maintenance().collect_garbage(now + 2 * DAY, &policy).await.unwrap();
    assert_eq!(report.blobs_deleted, 5);
}

#[tokio::test]
async fn clock_that_was_set_back_removes_nothing() {
    let rig = Rig::new();
    rig.put_blob("app", b"layer").await;
    for now in [SystemTime::UNIX_EPOCH, SystemTime::now() - 30 * DAY] {
        let report = rig.maintenance().collect_garbage(now, &policy()).await.unwrap();
        assert_eq!(report.deleted(), 0);
    }
}

#[tokio::test]
async fn blob_of_unknown_age_stays_and_is_counted() {
    let rig = Rig::on(Arc::new(Timeless(MemoryDriver::new())));
    rig.push_image("app", Some("v1"), "one").await;
    let stray = rig.put_blob("app", b"stray").await;
    let report = rig.collect(true).await;
    assert_eq!((report.links_deleted, report.blobs_deleted, report.blobs_of_unknown_age), (1, 0, 1));
    assert!(rig.has_blob(stray).await);
}

/// Knows no times of blobs.
struct Timeless(MemoryDriver);

#[async_trait]
impl StorageDriver for Timeless {
    fn name(&self) -> &'static str {
        "timeless"
    }

    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        let mut file = self.0.stat(context, path).await?;
        if matches!(RegistryPath::parse(path), Ok(RegistryPath::BlobData(_))) {
            file.modified = SystemTime::UNIX_EPOCH;
        }
        Ok(file)
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

    async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        self.0.list(context, path).await
    }

    async fn rename(&self, context: &Context, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        self.0.rename(context, from, to).await
    }

    async fn delete(&self, context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        self.0.delete(context, path).await
    }
}
