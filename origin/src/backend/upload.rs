//! A blob goes to a backend as it is read: in parts, of which a few are in memory, and ends only where it has its digest.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{Fuse, FuturesUnordered};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{MultipartUpload, PutPayload};
use shoal_core::{Digest, Digester};
use shoal_driver::ByteStream;

use super::keys::Key;
use super::objects::{BackendError, Objects};

/// Why a blob was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The backend did not take it.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// It cannot be read here.
    #[error("cannot be read: {0}")]
    Read(#[from] shoal_driver::DriverError),
    /// What was read is not the blob: a disk that spoils bytes.
    #[error("what is read here is another blob, or of another length: it was not written")]
    Spoiled,
    /// What was written has not the length that it should have.
    #[error("the backend says that it has {there} bytes of {length}")]
    Short {
        /// What it has.
        there: u64,
        /// What it was given.
        length: u64,
    },
}

/// What is read of a blob: hashed, and cut into parts.
struct Parts {
    bytes: Fuse<ByteStream>,
    digester: Digester,
    /// What was read and is in no part yet.
    left: VecDeque<Bytes>,
    left_length: usize,
    total: u64,
}

impl Objects {
    /// Writes a blob that is not there. It is there once its digest was proved, or not at all.
    pub(crate) async fn put_blob(
        &self,
        digest: &Digest,
        length: u64,
        bytes: ByteStream,
    ) -> Result<(), UploadError> {
        let key = Key::Blob(*digest);
        let mut parts = Parts {
            bytes: bytes.fuse(),
            digester: Digester::new(digest.algorithm()),
            left: VecDeque::new(),
            left_length: 0,
            total: 0,
        };
        if length <= PART {
            let content = parts.next(usize::try_from(PART).unwrap_or(usize::MAX)).await?;
            parts.prove(digest, length).await?;
            self.put_whole(&key, content.unwrap_or_default()).await?;
        } else {
            let mut upload = self.begin_parts(&key).await?;
            if let Err(error) = self.put_parts(&mut *upload, parts, digest, length).await {
                // What it leaves costs room until the bucket's own rule removes it.
                if let Err(error) = self.call("abort", upload.abort()).await {
                    tracing::debug!(%digest, %error, "parts of an upload stay at the backend");
                }
                return Err(error);
            }
        }
        self.count_written(length);
        match self.size(&key).await? {
            Some(there) if there == length => Ok(()),
            there => Err(UploadError::Short { there: there.unwrap_or(0), length }),
        }
    }

    async fn put_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        mut parts: Parts,
        digest: &Digest,
        length: u64,
    ) -> Result<(), UploadError> {
        let part_length = usize::try_from(part_length(length)).unwrap_or(usize::MAX);
        let mut under_way = FuturesUnordered::new();
        while let Some(part) = parts.next(part_length).await? {
            if under_way.len() >= PARTS_AT_ONCE {
                under_way.try_next().await?;
            }
            under_way.push(self.call("part", upload.put_part(part)));
        }
        while under_way.try_next().await?.is_some() {}
        drop(under_way);
        parts.prove(digest, length).await?;
        self.call("complete", upload.complete()).await?;
        Ok(())
    }
}

impl Parts {
    /// The next part, of just that length unless it is the last; nothing at the end.
    async fn next(&mut self, length: usize) -> Result<Option<PutPayload>, UploadError> {
        while self.left_length < length {
            let Some(bytes) = self.bytes.next().await.transpose()? else { break };
            self.digester.update(&bytes);
            self.total += bytes.len() as u64;
            self.left_length += bytes.len();
            self.left.push_back(bytes);
        }
        let mut part = Vec::new();
        let mut wanted = length;
        while wanted > 0
            && let Some(mut bytes) = self.left.pop_front()
        {
            if bytes.len() > wanted {
                self.left.push_front(bytes.split_off(wanted));
            }
            wanted -= bytes.len();
            self.left_length -= bytes.len();
            part.push(bytes);
        }
        Ok((!part.is_empty()).then(|| part.into_iter().collect()))
    }

    /// All that was read is that blob.
    async fn prove(mut self, digest: &Digest, length: u64) -> Result<(), UploadError> {
        let is_over = self.left.is_empty() && self.bytes.next().await.is_none();
        if is_over && self.total == length && self.digester.finish() == *digest {
            return Ok(());
        }
        Err(UploadError::Spoiled)
    }
}

/// Every backend takes ten thousand parts at most, all of one length but the last.
fn part_length(length: u64) -> u64 {
    length.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART)
}

/// 8 MiB: longer than what S3 takes at least, and short enough to be sent again without regret. Blobs up to it are one request.
const PART: u64 = 8 << 20;
/// Below the ten thousand of S3.
const MAX_PARTS: u64 = 9000;
/// How many parts of a blob are on their way; one more is read meanwhile.
const PARTS_AT_ONCE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_has_no_more_parts_than_a_backend_takes() {
        for length in [PART + 1, 1 << 30, MAX_PARTS * PART, MAX_PARTS * PART + 1, 5 << 40] {
            let part = part_length(length);
            assert!(part >= PART && length.div_ceil(part) <= MAX_PARTS, "{length}: parts of {part}");
        }
        assert_eq!(part_length(1 << 30), PART);
    }
}
