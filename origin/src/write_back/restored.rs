//! What the driver stands on while an origin reads from its backends what there is: what the origins do not know is looked for
//! there. Once all is here, that is never asked again: the backends may be away, and cost nothing.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{ByteRange, ByteStream, Link, ResolvedTag, TagExpectation, TransferError, Transferer};

use super::WriteBack;
use crate::transferer::name;

/// The origins, and behind them the backends.
pub(crate) struct RestoredTransferer {
    pub(crate) origins: Arc<dyn Transferer>,
    pub(crate) write_back: WriteBack,
}

#[async_trait]
impl Transferer for RestoredTransferer {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        self.origins.stat(repository, digest).await
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        self.origins.open(repository, digest, range).await
    }

    async fn upload(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<(), TransferError> {
        self.origins.upload(repository, digest).await
    }

    async fn writable(&self) -> Result<(), TransferError> {
        self.origins.writable().await
    }

    async fn listable(&self) -> Result<(), TransferError> {
        self.write_back.require_restored().await
    }

    async fn find_link(&self, link: &Link) -> Result<Digest, TransferError> {
        match self.origins.find_link(link).await {
            Err(TransferError::NotFound) if !self.write_back.is_restored() => {
                self.write_back.find_link(link).await
            }
            found => found,
        }
    }

    fn files_links(&self) -> bool {
        self.origins.files_links()
    }

    async fn secure_link(&self, link: &Link) -> Result<(), TransferError> {
        match self.origins.secure_link(link).await {
            Err(TransferError::NotFound) if !self.write_back.is_restored() => {
                self.write_back.find_link(link).await?;
                self.origins.secure_link(link).await
            }
            secured => secured,
        }
    }

    async fn expire_link(&self, link: &Link, since: SystemTime) -> Result<Option<bool>, TransferError> {
        // Or what is read just now would bring it back.
        self.write_back.require_restored().await?;
        self.origins.expire_link(link, since).await
    }

    async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.origins.put_link(link, target).await
    }

    async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        // Or what is read just now would bring it back.
        self.write_back.require_restored().await?;
        self.origins.delete_link(link).await
    }

    async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, TransferError> {
        match self.origins.resolve_tag(repository, tag).await {
            Err(TransferError::NotFound) if !self.write_back.is_restored() => {
                self.write_back.restore_tag(&name(repository, tag)).await?;
                self.origins.resolve_tag(repository, tag).await
            }
            resolved => resolved,
        }
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        if !self.write_back.is_restored() {
            // What is expected is expected of what it named.
            self.write_back.restore_tag(&name(repository, tag)).await?;
        }
        self.origins.put_tag(repository, tag, digest, expected).await
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.write_back.require_restored().await?;
        self.origins.delete_tag(repository, tag, expected).await
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        if !self.write_back.is_restored() {
            self.write_back.restore_tags(repository).await?;
        }
        self.origins.list_tags(repository).await
    }
}
