//! A driver that looks, whenever a change is refused, whether it happened all the same.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Outcome, Refusal, Violation};
use crate::driver::{ByteRange, ByteStream, Context, FileInfo, FileWriter, StorageDriver, WriteMode};
use crate::error::DriverError;
use crate::path::DriverPath;

/// Passes everything on.
pub(super) struct Watched {
    inner: Arc<dyn StorageDriver>,
    context: Context,
    changed: Mutex<Option<String>>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn StorageDriver>, context: Context) -> Self {
        Self { inner, context, changed: Mutex::default() }
    }

    /// Whether all that was refused changed nothing.
    pub(super) fn outcome(&self) -> Outcome {
        match self.changed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(change) => Err(Violation::new(change)),
            None => Ok(()),
        }
    }

    async fn watch<T: Send>(
        &self,
        what: String,
        change: impl Future<Output = Result<T, DriverError>> + Send,
    ) -> Result<T, DriverError> {
        let before = snapshot(&*self.inner, &self.context).await?;
        let result = change.await;
        if result.as_ref().is_err_and(|error| Refusal::of(error).is_some())
            && snapshot(&*self.inner, &self.context).await? != before
        {
            let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
            *changed = Some(format!("{what} was refused, and changed something"));
        }
        result
    }
}

/// Everything that can be seen. A folder that the driver cannot list is only named.
pub(super) async fn snapshot(
    driver: &dyn StorageDriver,
    context: &Context,
) -> Result<Vec<FileInfo>, DriverError> {
    let (mut seen, mut folders) = (Vec::new(), vec![DriverPath::root()]);
    while let Some(folder) = folders.pop() {
        let mut children = match driver.list(context, &folder).await {
            Err(error) if Refusal::of(&error).is_some() => continue,
            other => other?,
        };
        children.sort_unstable();
        for child in children {
            let info = driver.stat(context, &child).await?;
            if info.is_directory {
                folders.push(child);
            }
            seen.push(info);
        }
    }
    Ok(seen)
}

#[async_trait]
impl StorageDriver for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn get_content(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.inner.get_content(context, path).await
    }

    async fn put_content(
        &self,
        context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError> {
        self.watch(format!("put_content {path}"), self.inner.put_content(context, path, content)).await
    }

    async fn reader(
        &self,
        context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        self.inner.reader(context, path, range).await
    }

    async fn writer(
        &self,
        context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        self.watch(format!("writer {path}"), self.inner.writer(context, path, mode)).await
    }

    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        self.inner.stat(context, path).await
    }

    async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        self.inner.list(context, path).await
    }

    async fn rename(&self, context: &Context, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        self.watch(format!("rename {from} to {to}"), self.inner.rename(context, from, to)).await
    }

    async fn delete(&self, context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        self.watch(format!("delete {path}"), self.inner.delete(context, path)).await
    }

    async fn redirect_url(
        &self,
        context: &Context,
        path: &DriverPath,
    ) -> Result<Option<String>, DriverError> {
        self.inner.redirect_url(context, path).await
    }
}
