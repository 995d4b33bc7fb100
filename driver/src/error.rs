//! Why a driver did not do what it was asked for. The variants are what a registry answers differently.

use std::error::Error;

use shoal_core::Digest;

use crate::path::DriverPath;
use crate::request::{Operation, Request, RequestError};
use crate::transferer::TransferError;

/// Every message contains the driver's name.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// There is nothing.
    #[error("{driver}: path not found: {path}")]
    PathNotFound {
        /// The driver.
        driver: &'static str,
        /// What was asked for.
        path: String,
    },
    /// The driver can have nothing there: the path is not of its layout, or is the root where content was meant.
    #[error("{driver}: invalid path: {path}")]
    InvalidPath {
        /// The driver.
        driver: &'static str,
        /// What was asked for.
        path: String,
    },
    /// The operation may not be done on that path (the table of [`Request`]).
    #[error("{driver}: invalid request: {operation} {path}")]
    InvalidRequest {
        /// The driver.
        driver: &'static str,
        /// What was asked for, and what is wrong about it.
        operation: &'static str,
        /// On what.
        path: String,
    },
    /// The driver does not do that at all (a read-only driver asked to write).
    #[error("{driver}: unsupported: {operation}")]
    Unsupported {
        /// The driver.
        driver: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// The content has not the digest that its path names. (Boxed, since a result is as large as its largest error.)
    #[error("{driver}: content has digest {found}, not {expected}")]
    DigestMismatch {
        /// The driver.
        driver: &'static str,
        /// What the path names.
        expected: Box<Digest>,
        /// What the content has.
        found: Box<Digest>,
    },
    /// The tag is not as expected, and was left alone.
    #[error("{driver}: the tag names {}", current.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string()))]
    TagMoved {
        /// The driver.
        driver: &'static str,
        /// What it names.
        current: Box<Option<Digest>>,
    },
    /// Nobody who has it can be reached now; may work later.
    #[error("{driver}: unavailable: {detail}")]
    Unavailable {
        /// The driver.
        driver: &'static str,
        /// What is missing.
        detail: String,
    },
    /// The disk is full, or as full as it may get by uploads. What was written so far is kept; works again once there is
    /// room.
    #[error("{driver}: no space left: {detail}")]
    NoSpace {
        /// The driver.
        driver: &'static str,
        /// What has no room, and why.
        detail: String,
    },
    /// Anything else: a disk that fails, a bug.
    #[error("{driver}: {detail}")]
    Failed {
        /// The driver.
        driver: &'static str,
        /// What was tried, and on what.
        detail: String,
        /// Why it failed.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

/// Makes the errors of one driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errors(pub(crate) &'static str);

impl Errors {
    pub(crate) fn not_found(self, path: &DriverPath) -> DriverError {
        DriverError::PathNotFound { driver: self.0, path: path.to_string() }
    }

    pub(crate) fn invalid_path(self, path: &DriverPath) -> DriverError {
        DriverError::InvalidPath { driver: self.0, path: path.to_string() }
    }

    pub(crate) fn invalid_request(self, operation: &'static str, path: &DriverPath) -> DriverError {
        DriverError::InvalidRequest { driver: self.0, operation, path: path.to_string() }
    }

    pub(crate) fn unsupported(self, operation: Operation) -> DriverError {
        DriverError::Unsupported { driver: self.0, operation: operation.as_str() }
    }

    pub(crate) fn unavailable(self, detail: impl Into<String>) -> DriverError {
        DriverError::Unavailable { driver: self.0, detail: detail.into() }
    }

    pub(crate) fn no_space(self, detail: impl Into<String>) -> DriverError {
        DriverError::NoSpace { driver: self.0, detail: detail.into() }
    }

    /// Content over [`crate::MAX_CONTENT_LENGTH`] was to be read whole.
    pub(crate) fn too_long(self, path: &DriverPath) -> DriverError {
        self.invalid_request("get_content (the content is over 4 MiB: use reader)", path)
    }

    pub(crate) fn failed(self, detail: impl Into<String>) -> DriverError {
        DriverError::Failed { driver: self.0, detail: detail.into(), source: None }
    }

    pub(crate) fn caused(
        self,
        detail: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> DriverError {
        DriverError::Failed { driver: self.0, detail: detail.into(), source: Some(source.into()) }
    }

    /// Reads a path, and asks the table whether the operation may be done on it.
    pub(crate) fn admit(self, operation: Operation, path: &DriverPath) -> Result<Request, DriverError> {
        Request::parse(operation, path).map_err(|error| match error {
            RequestError::Path(_) => self.invalid_path(path),
            RequestError::Request(_) => self.invalid_request(operation.as_str(), path),
        })
    }

    /// What the other side's answer means for the path that was asked for.
    pub(crate) fn transfer(
        self,
        operation: Operation,
        path: &DriverPath,
        error: TransferError,
    ) -> DriverError {
        match error {
            TransferError::NotFound => self.not_found(path),
            TransferError::TagMoved { current } => DriverError::TagMoved { driver: self.0, current },
            TransferError::ReadOnly => self.unsupported(operation),
            TransferError::Unavailable(detail) => self.unavailable(format!("{path}: {detail}")),
            TransferError::Failed(source) => self.caused(format!("{operation} {path}"), source),
        }
    }
}
