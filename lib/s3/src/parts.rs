//! Bodies that are taken whole before the driver sees a byte of them: parts of uploads, and small objects.
//!
//! A part that breaks off, or has not the hash that was signed, must not leave bytes behind in an upload that is only
//! ever appended to. So it is held until it is whole and proved; how much is held at one moment is bounded for all.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::refusal;

/// The largest part: the registry's `chunksize` is 10 MiB by default, and its last part can be half as much again.
pub(crate) const MAX_PART_LENGTH: u64 = 64 * 1024 * 1024;

/// Bytes of all parts that are held at one moment: 25 of the usual size. One more waits for its turn.
const MAX_HELD: u64 = 256 * 1024 * 1024;

/// How long it waits before it is told to come again: well below the minute after which the listener takes the client of
/// a body for silent, and the registry in front asks again.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The unit in which memory is handed out, so that a large amount fits the semaphore's count.
const UNIT: u64 = 4096;

/// The memory for bodies.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

/// A body that is whole and proved, and holds its share of the memory.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(MAX_HELD / UNIT).unwrap_or(Semaphore::MAX_PERMITS))))
    }

    /// Takes a body of the length that its header says, and at most `limit` bytes.
    pub(crate) async fn hold(
        &self,
        body: Option<StreamingBlob>,
        length: Option<i64>,
        limit: u64,
    ) -> S3Result<Held> {
        let length = length.and_then(|length| u64::try_from(length).ok());
        let length =
            length.ok_or_else(|| refusal(S3ErrorCode::MissingContentLength, "content-length is missing"))?;
        let too_large =
            || refusal(S3ErrorCode::EntityTooLarge, format!("a body of this kind has at most {limit} bytes"));
        if length > limit {
            return Err(too_large());
        }
        let units = u32::try_from(length.div_ceil(UNIT)).map_err(|_| too_large())?;
        let share = timeout(MAX_WAIT, Arc::clone(&self.0).acquire_many_owned(units)).await;
        let share =
            share.map_err(|_| refusal(S3ErrorCode::SlowDown, "too many bodies at once, try later"))?;
        let share = share.expect("nobody closes the semaphore");
        Ok(Held { bytes: whole(body, length).await?, _share: share })
    }
}

/// Why a body did not come: its client was too slow, or it is broken or not what was signed.
fn broken(error: &(dyn Error + 'static)) -> S3Error {
    let is_late = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    };
    let mut causes = std::iter::successors(Some(error), |cause| (**cause).source());
    let code = if causes.any(is_late) { S3ErrorCode::RequestTimeout } else { S3ErrorCode::IncompleteBody };
    refusal(code, format!("the body ended: {error}"))
}

/// Exactly `length` bytes. The stream's own errors are those of the signature's and checksums' proof.
async fn whole(body: Option<StreamingBlob>, length: u64) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(more) = body.next().await {
            let more = more.map_err(|error| broken(&*error))?;
            if (bytes.len() + more.len()) as u64 > length {
                return Err(refusal(
                    S3ErrorCode::InvalidRequest,
                    "the body is longer than its content-length",
                ));
            }
            bytes.extend_from_slice(&more);
        }
    }
    if bytes.len() as u64 == length {
        Ok(bytes.freeze())
    } else {
        Err(refusal(S3ErrorCode::IncompleteBody, "the body is shorter than its content-length"))
    }
}
