//! A request's body, part by part, with a limit for silence.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use tokio::time::timeout;

/// The bytes that a client sends.
pub(super) struct RequestBody {
    parts: BodyDataStream,
    idle_timeout: Duration,
}

/// Why a body did not come whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client sent nothing for so long.
    #[error("no byte of the body came for {} seconds", .0.as_secs())]
    Idle(Duration),
    /// The connection broke, or the body was malformed.
    #[error("the body was cut short: {0}")]
    Cut(#[from] axum::Error),
}

impl RequestBody {
    pub(super) fn new(body: Body, idle_timeout: Duration) -> Self {
        Self { parts: body.into_data_stream(), idle_timeout }
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let next = timeout(self.idle_timeout, self.parts.try_next()).await;
        Ok(next.map_err(|_| BodyError::Idle(self.idle_timeout))??)
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
