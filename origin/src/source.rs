//! What stands behind the cluster: where a blob comes from that no origin holds.
//!
//! A source is asked, in the order of the configuration, by [`crate::refill`] alone, which believes nothing of it: length and
//! digest are proved before anything is kept. A source keeps no state of a fetch, retries nothing and limits nothing.

mod config;
mod directory;
mod pace;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use shoal_core::{Digest, RepositoryName};

pub use self::config::{SourceConfig, SourceConfigError};
pub use self::directory::DirectoryConfig;
pub(crate) use self::pace::Pace;

/// Something that may have blobs: an object store, an upstream registry, a directory.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    /// The bytes of a blob from `start` on. The repository is the one that is asked for, which says where an upstream has it and
    /// with whose credentials; `None`: somebody of the cluster asks on behalf of no repository in particular.
    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError>;

    /// How long the blob is. Worth its own way where an answer without content is cheaper.
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, SourceError> {
        Ok(self.open(repository, digest, 0).await?.length)
    }

    /// How long an answer may take, where that is not for the operator to say (`refill.answer_timeout`).
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// A blob on its way.
pub(crate) struct Incoming {
    /// How long the whole blob is, in bytes, as the source says.
    pub(crate) length: u64,
    /// What follows `start`, in parts of any size; an error is the end of it.
    pub(crate) bytes: BoxStream<'static, Result<Bytes, SourceError>>,
}

/// Why a source gives nothing. The variants say what to do about it; the messages name neither source nor blob.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It does not have the blob: the next is asked, and the answer believed for a while.
    #[error("not there")]
    NotFound,
    /// It has forbidden this: the same as not found for whoever asked, and something for an operator to look into.
    #[error("refused: {0}")]
    Refused(String),
    /// It cannot answer now: tried again, not before `retry_after` if it said so.
    #[error("not available: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// When to come back, in its own words.
        retry_after: Option<Duration>,
    },
    /// It is broken, or breaks its protocol: tried again as well, for it may be a matter of the moment.
    #[error("failed: {0}")]
    Failed(String),
}
