//! The transferer with upstreams behind it.

use std::time::SystemTime;

use async_trait::async_trait;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{ByteRange, ByteStream, Link, ResolvedTag, TagExpectation, TransferError, Transferer};

use super::PullThrough;
use super::links::Found;
use crate::records::name_of;
use crate::transferer::name;

#[async_trait]
impl Transferer for PullThrough {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        self.0.below.stat(repository, digest).await
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        self.0.below.open(repository, digest, range).await
    }

    async fn upload(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<(), TransferError> {
        if let Some(repository) = repository {
            self.require_own(repository)?;
        }
        self.0.below.upload(repository, digest).await
    }

    async fn writable(&self) -> Result<(), TransferError> {
        self.0.below.writable().await
    }

    async fn listable(&self) -> Result<(), TransferError> {
        self.0.below.listable().await
    }

    async fn find_link(&self, link: &Link) -> Result<Digest, TransferError> {
        let held = self.0.below.find_link(link).await;
        let Err(error) = held else { return held };
        if matches!(error, TransferError::Failed(_)) || self.0.upstreams.place(&link.repository).is_none() {
            return Err(error);
        }
        self.remote(&link.repository)?;
        match self.ensure_link(&name_of(link)).await {
            Found::Yes => Ok(link.digest),
            Found::No => Err(TransferError::NotFound),
            Found::Unknown(reason) => Err(TransferError::Unavailable(reason.to_string())),
        }
    }

    fn files_links(&self) -> bool {
        self.0.below.files_links()
    }

    async fn secure_link(&self, link: &Link) -> Result<(), TransferError> {
        self.0.below.secure_link(link).await
    }

    async fn expire_link(&self, link: &Link, since: SystemTime) -> Result<Option<bool>, TransferError> {
        self.0.below.expire_link(link, since).await
    }

    async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.require_own(&link.repository)?;
        self.0.below.put_link(link, target).await
    }

    async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        self.0.below.delete_link(link).await
    }

    async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, TransferError> {
        if self.0.upstreams.place(repository).is_none() {
            return self.0.below.resolve_tag(repository, tag).await;
        }
        let resolved = self.resolve(&name(repository, tag)).await?;
        self.note_use(repository, &resolved.digest);
        Ok(resolved)
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.require_own(repository)?;
        self.0.below.put_tag(repository, tag, digest, expected).await
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.0.below.delete_tag(repository, tag, expected).await
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        self.0.below.list_tags(repository).await
    }
}

impl PullThrough {
    /// Refuses to write to what is an upstream's. The registry has said so before, and better; other faces come here.
    fn require_own(&self, repository: &RepositoryName) -> Result<(), TransferError> {
        match self.0.upstreams.place(repository) {
            Some(_) => Err(TransferError::ReadOnly),
            None => Ok(()),
        }
    }
}
