//! The contract of a storage driver: content under paths, as a registry wants it kept.
//!
//! It is that of distribution's `StorageDriver` (interface version 0.1), made async, with paths that are valid by their
//! type. `conformance` is the same contract as tests. Walking a tree is not a driver's work: see `walk`.

use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use shoal_core::{Digest, RepositoryName, Tag};

use crate::error::DriverError;
use crate::path::DriverPath;
use crate::registry_path::RegistryPath;
use crate::tag::{ResolvedTag, TagExpectation};

/// The most bytes that [`StorageDriver::get_content`] gives: the largest manifest that a registry takes (4 MiB) and some
/// room. Longer content is for a reader; memory does not grow with what somebody stored.
pub const MAX_CONTENT_LENGTH: u64 = 4 * 1024 * 1024 + 64 * 1024;

/// Refuses to go on with a tag that is not as expected.
async fn expect_tag<D: StorageDriver + ?Sized>(
    driver: &D,
    context: &Context,
    (repository, tag): (&RepositoryName, &Tag),
    expected: &TagExpectation,
) -> Result<(), DriverError> {
    if expected.is_anything() {
        return Ok(());
    }
    let current = match driver.resolve_tag(context, repository, tag).await {
        Err(DriverError::PathNotFound { .. }) => None,
        resolved => Some(resolved?.digest),
    };
    if expected.allows(current.as_ref()) {
        return Ok(());
    }
    Err(DriverError::TagMoved { driver: driver.name(), current: current.into() })
}

/// Content as it comes in. After an error there is nothing more.
pub type ByteStream = BoxStream<'static, Result<Bytes, DriverError>>;

/// Who asks, and for what repository: a blob's path alone does not say.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The repository on whose behalf a blob is asked for; `None`: nobody's, as in maintenance.
    pub repository: Option<RepositoryName>,
}

/// Bytes from `start`, to `end` (exclusive) if there is one; beyond the content's end is clamped, `start` beyond it gives nothing.
/// The default is for who wants all of it: a peer-to-peer driver may fetch only what is read of any other range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte behind the last; `None`: the content's end.
    pub end: Option<u64>,
}

/// What a writer does with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Truncates or creates.
    Create,
    /// Goes on behind what was written and closed without a commit, or behind empty content. [`DriverError::PathNotFound`]
    /// if there is neither.
    Append,
}

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The path that was asked for.
    pub path: DriverPath,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// When it was last changed; the Unix epoch where nobody knows.
    pub modified: SystemTime,
    /// Whether it has children instead of content.
    pub is_directory: bool,
}

/// Keeps content under paths.
#[async_trait]
pub trait StorageDriver: Send + Sync + 'static {
    /// The driver's name; every error carries it.
    fn name(&self) -> &'static str;

    /// Small content, whole: at most [`MAX_CONTENT_LENGTH`] bytes.
    async fn get_content(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError>;

    /// Replaces the whole content. Who reads meanwhile sees the old or the new, never a part.
    async fn put_content(
        &self,
        context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError>;

    /// A range of the content. It stays readable while the path is overwritten or deleted.
    async fn reader(
        &self,
        context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError>;

    /// Writes content in parts. Nothing of it is visible to the other operations before [`FileWriter::commit`], and it does
    /// not follow a rename. A path has one writer at a time: a second one is [`DriverError::Unavailable`].
    async fn writer(
        &self,
        context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError>;

    /// What the path holds. The root is always there.
    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError>;

    /// The direct children, as whole paths, in any order. The root can always be listed.
    async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError>;

    /// Moves a file or a directory; missing parents of `to` are made. A file replaces a file, a directory an empty one. If
    /// `from` is missing, `to` is not touched.
    async fn rename(&self, context: &Context, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError>;

    /// Removes the path and everything below it, written and not committed content too.
    async fn delete(&self, context: &Context, path: &DriverPath) -> Result<(), DriverError>;

    /// Removes the path, unless it was written to after `since`; says whether it was removed. A driver for several writers looks
    /// and removes in one step; the default does not look, which is right while nobody else writes there.
    async fn delete_unchanged(
        &self,
        context: &Context,
        path: &DriverPath,
        _since: SystemTime,
    ) -> Result<bool, DriverError> {
        self.delete(context, path).await.map(|()| true)
    }

    /// The content of a link, for somebody who is about to rely on it: nobody takes the link away who found it of no use before.
    async fn secure_link(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.get_content(context, path).await
    }

    /// What a tag names, and how sure that is: the content of its current link, unless the driver knows more.
    async fn resolve_tag(
        &self,
        context: &Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, DriverError> {
        let path = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        let content = self.get_content(context, &path).await?;
        let digest = Digest::parse(String::from_utf8_lossy(&content).trim());
        digest.map(ResolvedTag::current).map_err(|error| DriverError::Failed {
            driver: self.name(),
            detail: format!("link {path} holds no digest"),
            source: Some(error.into()),
        })
    }

    /// Lets a tag name `digest` if it is as expected; [`DriverError::TagMoved`] if it is not. A driver for several writers
    /// looks and writes in one step; the default does one after the other, which is right while nobody else writes that tag.
    async fn put_tag(
        &self,
        context: &Context,
        (repository, tag): (&RepositoryName, &Tag),
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        expect_tag(self, context, (repository, tag), expected).await?;
        let path = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        self.put_content(context, &path, digest.to_string().into()).await
    }

    /// Lets a tag name nothing if it is as expected, with the same proviso, and forgets its history.
    async fn delete_tag(
        &self,
        context: &Context,
        (repository, tag): (&RepositoryName, &Tag),
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        expect_tag(self, context, (repository, tag), expected).await?;
        let path = RegistryPath::Tag(repository.clone(), tag.clone()).to_driver_path();
        self.delete(context, &path).await
    }

    /// How many more bytes writers may write now; `None` where nobody knows. Beyond it they are [`DriverError::NoSpace`].
    async fn room(&self) -> Result<Option<u64>, DriverError> {
        Ok(None)
    }

    /// Another place from which a client may fetch the content; `None`: serve it yourself.
    async fn redirect_url(
        &self,
        _context: &Context,
        _path: &DriverPath,
    ) -> Result<Option<String>, DriverError> {
        Ok(None)
    }
}

/// Writes one path's content in parts. After an error there is nothing left but `cancel` and `close`.
///
/// Dropping it is like closing it, except that the last bytes may not have been written; `size` of the next writer tells.
#[async_trait]
pub trait FileWriter: Send {
    /// Bytes so far, those of earlier sessions included.
    fn size(&self) -> u64;

    /// Appends.
    async fn write(&mut self, bytes: Bytes) -> Result<(), DriverError>;

    /// Makes the content visible for good. Only `close` may follow.
    async fn commit(&mut self) -> Result<(), DriverError>;

    /// Discards it. Only `close` may follow.
    async fn cancel(&mut self) -> Result<(), DriverError>;

    /// Lets go; what was written and not committed can be appended to later, by another process too. A second time is an
    /// error.
    async fn close(&mut self) -> Result<(), DriverError>;
}

impl Context {
    /// On behalf of a repository.
    #[must_use]
    pub fn of(repository: RepositoryName) -> Self {
        Self { repository: Some(repository) }
    }
}

impl ByteRange {
    /// Everything from `start`.
    #[must_use]
    pub fn from(start: u64) -> Self {
        Self { start, end: None }
    }

    /// The part of it that content of `length` bytes has.
    #[must_use]
    pub fn within(self, length: u64) -> Range<u64> {
        let start = self.start.min(length);
        start..self.end.unwrap_or(length).min(length).max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_clamped_to_the_content() {
        assert_eq!(ByteRange::default().within(5), 0..5);
        assert_eq!(ByteRange::from(3).within(5), 3..5);
        assert_eq!(ByteRange::from(9).within(5), 5..5);
        assert_eq!(ByteRange { start: 1, end: Some(9) }.within(5), 1..5);
        assert_eq!(ByteRange { start: 4, end: Some(2) }.within(5), 4..4);
        assert_eq!(ByteRange { start: u64::MAX, end: Some(u64::MAX) }.within(0), 0..0);
    }
}
