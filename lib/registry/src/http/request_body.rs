//! A request's body, part by part. How slow it may be is the listener's to say: it ends a body that is slower.

use std::error::Error;
use std::io;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;

/// The bytes that a client sends.
pub(super) struct RequestBody {
    parts: BodyDataStream,
}

/// Why a body did not come whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client was too slow.
    #[error("the body is too slow: {0}")]
    Slow(axum::Error),
    /// The connection broke, or the body was malformed.
    #[error("the body was cut short: {0}")]
    Cut(axum::Error),
}

impl RequestBody {
    pub(super) fn new(body: Body) -> Self {
        Self { parts: body.into_data_stream() }
    }

    /// What is left of it.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(self.parts)
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(self.parts.try_next().await?)
    }

    /// All bytes, or `None` where there are more than `limit`. They are counted as they come: what a client says
    /// about its length is not believed.
    pub(super) async fn collect(mut self, limit: usize) -> Result<Option<Bytes>, BodyError> {
        let mut bytes = BytesMut::new();
        while let Some(part) = self.next().await? {
            if bytes.len() + part.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes.freeze()))
    }
}

impl From<axum::Error> for BodyError {
    fn from(error: axum::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(this) = cause {
            if this.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                return Self::Slow(error);
            }
            cause = this.source();
        }
        Self::Cut(error)
    }
}
