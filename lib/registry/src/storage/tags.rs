//! The tags of one repository: names that may move from manifest to manifest.

use futures_util::future;
use shoal_core::{Digest, Tag};
use shoal_driver::{DriverError, RegistryPath, ResolvedTag, TagExpectation};

use super::{Repository, found};

/// The tags of one repository.
pub(crate) struct Tags {
    repository: Repository,
}

/// Why tags cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TagsError {
    /// There is no such repository.
    #[error("repository is not known")]
    RepositoryUnknown,
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Tags {
    pub(super) fn new(repository: Repository) -> Self {
        Self { repository }
    }

    /// The manifest that the tag names now; asked afresh every time.
    pub(crate) async fn resolve(&self, tag: &Tag) -> Result<Option<ResolvedTag>, DriverError> {
        let Repository { context, name, .. } = &self.repository;
        found(self.repository.driver().resolve_tag(context, name, tag).await)
    }

    /// Lets the tag name that manifest, if it is as expected. The current link is the commit point, and comes first: a crash between the two
    /// costs a line of history, where the other order would list a new tag that names nothing.
    pub(super) async fn set(
        &self,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        let Repository { context, name, .. } = &self.repository;
        self.repository.driver().put_tag(context, (name, tag), digest, expected).await?;
        let entry = RegistryPath::TagIndexEntryLink(name.clone(), tag.clone(), *digest);
        self.repository.write_link(entry, digest).await
    }

    /// Lets the tag name nothing any more, if it is as expected; says whether there was one.
    pub(super) async fn remove(&self, tag: &Tag, expected: &TagExpectation) -> Result<bool, DriverError> {
        let Repository { context, name, .. } = &self.repository;
        Ok(found(self.repository.driver().delete_tag(context, (name, tag), expected).await)?.is_some())
    }

    /// Every tag that names that manifest.
    pub(super) async fn those_of(&self, digest: &Digest) -> Result<Vec<Tag>, DriverError> {
        let tags = match self.list().await {
            Err(TagsError::RepositoryUnknown) => return Ok(Vec::new()),
            Err(TagsError::Driver(error)) => return Err(error),
            Ok(tags) => tags,
        };
        let mut those = Vec::new();
        for some in tags.chunks(LOOKS_AT_ONCE) {
            let named = future::try_join_all(some.iter().map(|tag| self.resolve(tag))).await?;
            let named = named.into_iter().map(|resolved| resolved.map(|resolved| resolved.digest));
            those.extend(some.iter().zip(named).filter(|(_, named)| *named == Some(*digest)));
        }
        Ok(those.into_iter().map(|(tag, _)| tag.clone()).collect())
    }

    /// Removes these tags of a manifest; one that was moved meanwhile stays.
    pub(super) async fn remove_those(&self, tags: &[Tag], digest: &Digest) -> Result<(), DriverError> {
        for tag in tags {
            match self.remove(tag, &TagExpectation::one_of([*digest])).await {
                Ok(_) | Err(DriverError::TagMoved { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All tags, in byte order.
    pub(crate) async fn list(&self) -> Result<Vec<Tag>, TagsError> {
        let Repository { context, name, .. } = &self.repository;
        let path = RegistryPath::Tags(name.clone()).to_driver_path();
        let Some(children) = found(self.repository.driver().list(context, &path).await)? else {
            return if self.has_manifests().await? { Ok(vec![]) } else { Err(TagsError::RepositoryUnknown) };
        };
        let parse = |child| match RegistryPath::parse(&child) {
            Ok(RegistryPath::Tag(_, tag)) => Some(tag),
            _ => None,
        };
        let mut tags: Vec<Tag> = children.into_iter().filter_map(parse).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// Whether manifests were pushed, if only by digest: then the repository exists and has no tags.
    async fn has_manifests(&self) -> Result<bool, DriverError> {
        let Repository { context, name, .. } = &self.repository;
        let path = RegistryPath::Manifests(name.clone()).to_driver_path();
        match self.repository.driver().stat(context, &path).await {
            Ok(_) => Ok(true),
            // A driver without such a directory, as the agent's is, knows of no repository that has no tags.
            Err(DriverError::PathNotFound { .. } | DriverError::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// How many tags are looked at in one go for a delete: a bound for the driver.
const LOOKS_AT_ONCE: usize = 16;
