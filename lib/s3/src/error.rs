//! What a driver's refusal is in S3: the codes that the registry's driver and the SDK below it act on.
//!
//! An SDK asks again after a 5xx, so only what may work later is one. Messages name the key's path; sources stay in logs.

use axum::http::StatusCode;
use s3s::{S3Error, S3ErrorCode};
use shoal_driver::DriverError;

/// Why an object cannot be read.
#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(crate) fn read_failed(error: DriverError) -> S3Error {
    match &error {
        DriverError::Unsupported { .. } => refused(S3ErrorCode::NotImplemented, &error),
        _ => failed(&error),
    }
}

/// Why an object cannot be written, moved or deleted.
#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(crate) fn write_failed(error: DriverError) -> S3Error {
    match &error {
        DriverError::Unsupported { .. } => refused(S3ErrorCode::AccessDenied, &error),
        _ => failed(&error),
    }
}

/// A refusal of this crate's own.
pub(crate) fn refusal(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// Nothing has that key, and nothing can.
pub(crate) fn no_such_key(key: &str) -> S3Error {
    refusal(S3ErrorCode::NoSuchKey, format!("no object has the key {}", key.escape_debug()))
}

/// S3 has no code for a disk that is full. The status says it, and 5xx is what a client may try again.
pub(crate) fn no_space() -> S3Error {
    let code = S3ErrorCode::Custom("InsufficientStorage".into());
    let mut error = refusal(code, "the disk of this node is full: its operator has to make room");
    error.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
    error
}

fn failed(error: &DriverError) -> S3Error {
    let code = match error {
        DriverError::PathNotFound { .. } | DriverError::InvalidPath { .. } => S3ErrorCode::NoSuchKey,
        DriverError::InvalidRequest { .. } | DriverError::Unsupported { .. } => S3ErrorCode::InvalidRequest,
        DriverError::DigestMismatch { .. } => S3ErrorCode::BadDigest,
        DriverError::TagMoved { .. } => S3ErrorCode::PreconditionFailed,
        DriverError::Unavailable { .. } => S3ErrorCode::ServiceUnavailable,
        DriverError::NoSpace { .. } => {
            tracing::error!(%error, "there is no room for what the registry pushes");
            return no_space();
        }
        DriverError::Failed { .. } => {
            tracing::error!(%error, source = ?std::error::Error::source(error), "the driver failed");
            return refusal(S3ErrorCode::InternalError, "the storage driver failed");
        }
    };
    refused(code, error)
}

fn refused(code: S3ErrorCode, error: &DriverError) -> S3Error {
    refusal(code, error.to_string())
}
