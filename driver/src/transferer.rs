//! What the peer-to-peer drivers stand on: the rest of the cluster, as far as a storage driver needs it.
//!
//! The agent implements it with its swarm (reading only), the origin with its cluster. Bytes that come from here were
//! verified by whoever implements it.

use std::error::Error;
use std::time::SystemTime;

use async_trait::async_trait;
use shoal_core::{Digest, RepositoryName, Tag};

use crate::driver::{ByteRange, ByteStream};
use crate::link::Link;
use crate::tag::{ResolvedTag, TagExpectation};

/// What the peer-to-peer drivers stand on. Implemented by the agent (its swarm; read only) and by the origin (its cluster).
#[async_trait]
pub trait Transferer: Send + Sync + 'static {
    /// The length in bytes of a blob that the repository may see (`None`: any repository).
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError>;

    /// Its bytes, as they come in.
    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError>;

    /// The blob is whole in the local store: make it the cluster's (replicate, announce). Acknowledged when durable.
    /// Called again for a blob that is durable already it has nothing to do.
    async fn upload(&self, repository: Option<&RepositoryName>, digest: &Digest)
    -> Result<(), TransferError>;

    /// Whether a write that begins now could be acknowledged: to refuse it before its bytes come.
    async fn writable(&self) -> Result<(), TransferError> {
        Ok(())
    }

    /// Whether all names that there are can be listed: an origin that begins again from behind it may not know them yet.
    async fn listable(&self) -> Result<(), TransferError> {
        Ok(())
    }

    /// What a link names that is not in the driver's files. Nobody else has any, unless there is a cluster of writers.
    async fn find_link(&self, _: &Link) -> Result<Digest, TransferError> {
        Err(TransferError::NotFound)
    }

    /// Whether links are put into and taken out of the driver's files by the transferer, in the order that the cluster decides;
    /// else the driver does it, after the transferer.
    fn files_links(&self) -> bool {
        false
    }

    /// Makes a link to `target`, which is durable, the cluster's.
    async fn put_link(&self, _link: &Link, _target: &Digest) -> Result<(), TransferError> {
        Ok(())
    }

    /// Sees to it that a link is there and stays, for somebody who is about to rely on it: nobody who decided before that it is
    /// of no use takes it away any more. Not found where the cluster knows that it is not there.
    async fn secure_link(&self, _: &Link) -> Result<(), TransferError> {
        Ok(())
    }

    /// Takes a link away from the rest of the cluster; says whether anybody had it.
    async fn delete_link(&self, _: &Link) -> Result<bool, TransferError> {
        Ok(false)
    }

    /// The same as long as nobody has put or secured it after `since`. `None`: nobody else puts links, the driver decides.
    async fn expire_link(&self, _link: &Link, _since: SystemTime) -> Result<Option<bool>, TransferError> {
        Ok(None)
    }

    /// What the tag names now.
    async fn resolve_tag(&self, repository: &RepositoryName, tag: &Tag)
    -> Result<ResolvedTag, TransferError>;

    /// Makes the tag name `digest` if it is as expected, in one step with looking. The one commit point of a tag.
    /// Afterwards it names that, or [`TransferError::TagMoved`] says what it names instead.
    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError>;

    /// Makes the tag name nothing if it is as expected, in one step with looking. One that names nothing is not found.
    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: &TagExpectation,
    ) -> Result<(), TransferError>;

    /// The tags of a repository, in any order.
    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError>;
}

/// Why the cluster did not do it. The messages name no key: the driver adds the path.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Nobody has it.
    #[error("not found")]
    NotFound,
    /// The tag is not as expected, and was left alone.
    #[error("the tag names {}", current.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string()))]
    TagMoved {
        /// What it names.
        current: Box<Option<Digest>>,
    },
    /// This side of the cluster does not write.
    #[error("read only")]
    ReadOnly,
    /// Nobody who could know or give it can be reached; may work later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] Box<dyn Error + Send + Sync>),
}
