//! What the suite is run on: a driver, the paths it knows, and what can be done to it from outside.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::layout::{FreeLayout, Layout};
use crate::driver::{StorageDriver, WriteMode};
use crate::error::DriverError;
use crate::path::DriverPath;

/// A driver under test, empty at the start.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// The driver as it is now; another one after a restart.
    fn driver(&self) -> Arc<dyn StorageDriver>;

    /// The paths that it knows.
    fn layout(&self) -> &dyn Layout;

    /// Brings content to its [`Layout::blob`] path, for the cases that only read. Here: by writing and renaming it.
    async fn plant(&self, content: Bytes) -> Result<DriverPath, DriverError> {
        let (driver, layout) = (self.driver(), self.layout());
        let (stream, blob, context) = (layout.stream(PLANTED), layout.blob(&content), layout.context());
        let mut writer = driver.writer(&context, &stream, WriteMode::Create).await?;
        writer.write(content).await?;
        writer.commit().await?;
        writer.close().await?;
        driver.rename(&context, &stream, &blob).await?;
        match driver.delete(&context, &layout.home(&stream)).await {
            Ok(()) | Err(DriverError::PathNotFound { .. }) => Ok(blob),
            Err(error) => Err(error),
        }
    }

    /// Takes what was planted away. Here: by deleting it.
    async fn uproot(&self, blob: &DriverPath) -> Result<(), DriverError> {
        let layout = self.layout();
        self.driver().delete(&layout.context(), &layout.home(blob)).await
    }

    /// Ends the process that has the driver, as far as a test can, and opens the same storage with a new one.
    async fn restart(&self) -> Result<(), DriverError> {
        Err(self.cannot("restart"))
    }

    /// Begins a blob that comes in from elsewhere; its first half is there when this returns.
    async fn arriving(&self, _content: Bytes) -> Result<Arriving, DriverError> {
        Err(self.cannot("arriving blobs"))
    }

    /// The answer to what cannot be done to this subject.
    fn cannot(&self, what: &'static str) -> DriverError {
        DriverError::Unsupported { driver: self.driver().name(), operation: what }
    }
}

/// A blob that comes in.
pub struct Arriving {
    /// Where it is read.
    pub path: DriverPath,
    /// Brings the rest.
    pub rest: BoxFuture<'static, ()>,
}

/// A driver of a free tree and nothing else.
pub struct Bare(pub Arc<dyn StorageDriver>);

impl Subject for Bare {
    fn driver(&self) -> Arc<dyn StorageDriver> {
        Arc::clone(&self.0)
    }

    fn layout(&self) -> &dyn Layout {
        &FreeLayout
    }
}

/// The stream by which content is planted; no case uses it.
const PLANTED: u64 = u32::MAX as u64;
