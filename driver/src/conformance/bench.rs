//! A driver, in the words that the cases speak.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use super::layout::Layout;
use super::subject::Subject;
use super::watched::{Watched, snapshot};
use super::{Outcome, ensure};
use crate::driver::{ByteRange, Context, FileInfo, FileWriter, StorageDriver, WriteMode};
use crate::error::DriverError;
use crate::path::DriverPath;
use crate::walk::{Walk, walk};

/// A driver, in the words that the cases speak.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) subject: Arc<dyn Subject>,
    pub(super) driver: Arc<dyn StorageDriver>,
    pub(super) context: Context,
}

impl Bench {
    pub(super) fn new(subject: Arc<dyn Subject>) -> Self {
        Self { driver: subject.driver(), context: subject.layout().context(), subject }
    }

    /// The same with another driver before the one under test.
    pub(super) fn over(self, driver: Arc<Watched>) -> Self {
        Self { driver, ..self }
    }

    /// The same storage, as another process finds it.
    pub(super) async fn restart(self) -> Result<Self, DriverError> {
        // A driver that is still held would not be gone.
        let subject = self.subject;
        drop(self.driver);
        subject.restart().await?;
        Ok(Self::new(subject))
    }

    pub(super) fn layout(&self) -> &dyn Layout {
        self.subject.layout()
    }

    pub(super) fn note(&self, folder: u64, number: u64) -> DriverPath {
        self.layout().note(folder, number)
    }

    pub(super) fn stream(&self, number: u64) -> DriverPath {
        self.layout().stream(number)
    }

    pub(super) async fn get(&self, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.driver.get_content(&self.context, path).await
    }

    pub(super) async fn put(&self, path: &DriverPath, content: impl Into<Bytes>) -> Result<(), DriverError> {
        self.driver.put_content(&self.context, path, content.into()).await
    }

    /// Reads a range to its end.
    pub(super) async fn read(&self, path: &DriverPath, range: ByteRange) -> Result<Bytes, DriverError> {
        let stream = self.driver.reader(&self.context, path, range).await?;
        Ok(stream.try_collect::<BytesMut>().await?.freeze())
    }

    /// Reads all of it.
    pub(super) async fn read_all(&self, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.read(path, ByteRange::default()).await
    }

    pub(super) async fn writer(
        &self,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        self.driver.writer(&self.context, path, mode).await
    }

    /// Writes content in parts of `part` bytes, and commits it.
    pub(super) async fn write(
        &self,
        path: &DriverPath,
        content: &Bytes,
        part: usize,
    ) -> Result<(), DriverError> {
        let mut writer = self.writer(path, WriteMode::Create).await?;
        for start in (0..content.len()).step_by(part) {
            writer.write(content.slice(start..content.len().min(start + part))).await?;
        }
        writer.commit().await?;
        writer.close().await
    }

    pub(super) async fn stat(&self, path: &DriverPath) -> Result<FileInfo, DriverError> {
        self.driver.stat(&self.context, path).await
    }

    pub(super) async fn rename(&self, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        self.driver.rename(&self.context, from, to).await
    }

    pub(super) async fn delete(&self, path: &DriverPath) -> Result<(), DriverError> {
        self.driver.delete(&self.context, path).await
    }

    /// The children, sorted.
    pub(super) async fn list(&self, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        let mut children = self.driver.list(&self.context, path).await?;
        children.sort();
        Ok(children)
    }

    pub(super) fn walk(&self, from: &DriverPath) -> Walk<'_> {
        walk(&*self.driver, &self.context, from)
    }

    pub(super) fn names_itself(&self, error: &DriverError) -> Outcome {
        let name = self.driver.name();
        ensure!(error.to_string().contains(name), "the message does not name {name}: {error}");
        Ok(())
    }

    /// Removes what a case left: what the layout does not always have, then what holds a file.
    pub(super) async fn clear(&self) -> Outcome {
        let (root, trunk) = (DriverPath::root(), self.layout().trunk());
        for child in self.list(&root).await? {
            if !trunk.contains(&child) {
                self.delete(&child).await?;
            }
        }
        for file in self.files().await? {
            match self.delete(&self.layout().home(&file)).await {
                Ok(()) | Err(DriverError::PathNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (files, top) = (self.files().await?, self.list(&root).await?);
        ensure!(files.is_empty() && top == trunk, "still there after all was deleted: {top:?} {files:?}");
        Ok(())
    }

    async fn files(&self) -> Result<Vec<DriverPath>, DriverError> {
        let all = snapshot(&*self.driver, &self.context).await?;
        Ok(all.into_iter().filter(|info| !info.is_directory).map(|info| info.path).collect())
    }
}
