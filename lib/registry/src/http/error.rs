//! What goes wrong, as the specification says it: a status, and JSON with a code (distribution-spec, "Error Codes").
//!
//! Reads answer "unknown" for whatever cannot be had, also when it may be had later: a runtime then goes to its next
//! mirror at once, where a 5xx would make it retry here or give up. Failures inside are logged here, once.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};
use shoal_core::NameError;
use shoal_driver::DriverError;

use super::request_body::BodyError;
use crate::manifest::ManifestParseError;
use crate::storage::{BlobError, ManifestError, TagsError, UploadError};

/// A failed request's answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: Code,
    message: String,
    /// One error for each; one error without a detail if there is none.
    details: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The codes of the specification, and those of the CNCF registry beside them that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationNumberInvalid,
    PreconditionFailed,
    RangeInvalid,
    SizeInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: vec![], headers: vec![] }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
    }

    /// Says nothing of what went wrong inside: that is for the log.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "internal error")
    }

    pub(super) fn bad_condition(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Unsupported, message)
    }

    fn no_space() -> Self {
        let message = "this registry's disk is full: go on with the upload once its operator has made room";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unavailable, message)
    }

    pub(super) fn invalid_digest(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, error.to_string())
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    fn not_found(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    fn with_detail(mut self, detail: Value) -> Self {
        self.details.push(detail);
        self
    }

    /// A read failed at the driver; `code` is how this kind of thing is called unknown.
    fn from_read(error: DriverError, code: Code) -> Self {
        match error {
            DriverError::PathNotFound { .. } => Self::not_found(code, "not known here"),
            DriverError::Unavailable { detail, .. } => {
                tracing::warn!(detail, "content cannot be reached now, answered as unknown");
                Self::not_found(code, "cannot be reached now").with_detail(json!({ "unavailable": detail }))
            }
            error => Self::from_driver(error),
        }
    }

    /// A write, or a read that is no pull, failed at the driver.
    pub(super) fn from_driver(error: DriverError) -> Self {
        match error {
            DriverError::Unsupported { operation, .. } => {
                Self::unsupported(format!("{operation} is not supported by this registry's storage"))
            }
            DriverError::Unavailable { detail, .. } => {
                tracing::warn!(detail, "storage is unavailable");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Code::Unavailable,
                    "storage is unavailable, try later",
                )
                .with_detail(json!({ "unavailable": detail }))
                .with_header(RETRY_AFTER, HeaderValue::from_static("5"))
            }
            DriverError::NoSpace { .. } => {
                tracing::error!(%error, "there is no room for what clients push");
                Self::no_space()
            }
            DriverError::DigestMismatch { expected, .. } => {
                Self::invalid_digest(format!("content does not have digest {expected}"))
            }
            error => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "storage failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let one = |detail: Option<&Value>| match detail {
            Some(detail) => json!({"code": self.code.as_str(), "message": self.message, "detail": detail}),
            None => json!({"code": self.code.as_str(), "message": self.message}),
        };
        let errors: Vec<Value> = match self.details.as_slice() {
            [] => vec![one(None)],
            details => details.iter().map(|detail| one(Some(detail))).collect(),
        };
        let mut response = Response::new(Body::from(json!({ "errors": errors }).to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Unknown(digest) => {
                Self::not_found(Code::BlobUnknown, error.to_string()).with_detail(json!({ "digest": digest }))
            }
            BlobError::Driver(error) => Self::from_read(error, Code::BlobUnknown),
        }
    }
}

impl ApiError {
    /// A blob could not be taken away.
    pub(super) fn from_write(error: BlobError) -> Self {
        match error {
            BlobError::Driver(error) => Self::from_driver(error),
            unknown => unknown.into(),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Unknown(_) => Self::not_found(Code::BlobUploadUnknown, message),
            UploadError::Busy(_) => Self::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, message),
            UploadError::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message)
                .with_header(RETRY_AFTER, HeaderValue::from_static("1")),
            UploadError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
            }
            UploadError::DigestMismatch(_) => Self::invalid_digest(message),
            UploadError::Driver(error) => Self::from_driver(error),
        }
    }
}

impl ApiError {
    /// A manifest could not be read.
    pub(super) fn from_pull(error: ManifestError) -> Self {
        match error {
            ManifestError::Driver(error) => Self::from_read(error, Code::ManifestUnknown),
            error => error.into(),
        }
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        let message = error.to_string();
        match error {
            ManifestError::Unknown(_) => Self::not_found(Code::ManifestUnknown, message),
            ManifestError::DigestMismatch { .. } => Self::invalid_digest(message),
            ManifestError::ChildrenUnknown(missing) => {
                let error = Self::new(StatusCode::BAD_REQUEST, Code::ManifestBlobUnknown, message);
                missing.iter().fold(error, |error, digest| error.with_detail(json!({ "digest": digest })))
            }
            ManifestError::Unexpected { current, .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, Code::PreconditionFailed, message)
                    .with_detail(json!({ "current": *current }))
            }
            ManifestError::Immutable { current, rule, .. } => {
                Self::new(StatusCode::CONFLICT, Code::Denied, message)
                    .with_detail(json!({ "current": *current, "rule": rule }))
            }
            ManifestError::Undeletable { rule, .. } => {
                Self::new(StatusCode::CONFLICT, Code::Denied, message).with_detail(json!({ "rule": rule }))
            }
            ManifestError::TooManyReferrers(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
            }
            ManifestError::Damaged(_) => {
                tracing::error!(error = message, "storage failed");
                Self::internal()
            }
            ManifestError::Driver(error) => Self::from_driver(error),
        }
    }
}

impl From<ManifestParseError> for ApiError {
    fn from(error: ManifestParseError) -> Self {
        let status = match error {
            ManifestParseError::UnknownMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, Code::ManifestInvalid, error.to_string())
    }
}

impl From<TagsError> for ApiError {
    fn from(error: TagsError) -> Self {
        match error {
            TagsError::RepositoryUnknown => Self::not_found(Code::NameUnknown, error.to_string()),
            TagsError::Driver(error) => Self::from_driver(error),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::Cut(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, Code::SizeInvalid, error.to_string())
    }
}

/// A name in the request is none: a fault of the client.
impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        let code = match error {
            NameError::Repository(_) => Code::NameInvalid,
            NameError::Tag(_) => Code::ManifestInvalid,
            NameError::Digest(_) => Code::DigestInvalid,
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}
