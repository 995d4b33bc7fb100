//! A backend as the place from which a blob comes that no origin holds.

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_core::{Digest, RepositoryName};

use super::keys::Key;
use super::objects::{BackendError, Objects};
use crate::source::{Incoming, Source, SourceError};

#[async_trait]
impl Source for Objects {
    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError> {
        // A range that begins at the end is an error of some backends.
        if start > 0 {
            let length = self.stat(repository, digest).await?;
            if start >= length {
                return Ok(Incoming { length, bytes: stream::empty().boxed() });
            }
        }
        let found = Objects::open(self, &Key::Blob(*digest), start).await?;
        let length = found.meta.size;
        if found.range.start != start {
            return Err(SourceError::Failed(format!(
                "it sends from {} and not from {start}",
                found.range.start
            )));
        }
        let broken = |error| SourceError::from(BackendError::from(error));
        Ok(Incoming { length, bytes: found.into_stream().map_err(broken).boxed() })
    }

    async fn stat(&self, _: Option<&RepositoryName>, digest: &Digest) -> Result<u64, SourceError> {
        self.size(&Key::Blob(*digest)).await?.ok_or(SourceError::NotFound)
    }
}

impl From<BackendError> for SourceError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotFound => Self::NotFound,
            BackendError::Refused(reason) => Self::Refused(reason),
            BackendError::Conflict | BackendError::Unsupported(_) => Self::Failed(error.to_string()),
            BackendError::Unavailable(reason) => Self::Unavailable { reason, retry_after: None },
        }
    }
}
