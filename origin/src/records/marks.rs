//! Marks beside links and tags, which are lost with them: what was done once for these files.

use bytes::Bytes;
use shoal_driver::{Context, DriverError, DriverPath, StorageDriver as _, TransferError};

use super::{Records, from_driver};

impl Records {
    /// Whether something was done, by its name: letters, digits, `-` and `_`.
    pub(crate) async fn is_marked(&self, name: &str) -> Result<bool, TransferError> {
        match self.metadata.get_content(&Context::default(), &path(name)?).await {
            Ok(_) => Ok(true),
            Err(DriverError::PathNotFound { .. }) => Ok(false),
            Err(error) => Err(from_driver(error)),
        }
    }

    /// Notes, durably, that it was done.
    pub(crate) async fn mark(&self, name: &str) -> Result<(), TransferError> {
        let (path, content) = (path(name)?, Bytes::from_static(b"done"));
        self.metadata.put_content(&Context::default(), &path, content).await.map_err(from_driver)
    }
}

/// Beside the registry's own tree.
fn path(name: &str) -> Result<DriverPath, TransferError> {
    DriverPath::parse(&format!("/{name}")).map_err(|error| TransferError::Failed(Box::new(error)))
}
