//! The tags of one repository: names that may move from manifest to manifest.

use shoal_core::{Digest, Tag};
use shoal_driver::{DriverError, RegistryPath};

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
    pub(crate) async fn resolve(&self, tag: &Tag) -> Result<Option<Digest>, DriverError> {
        let name = self.repository.name.clone();
        self.repository.read_link(RegistryPath::TagCurrentLink(name, tag.clone())).await
    }

    /// Lets the tag name that manifest. The index entry comes first: the current link is what makes it visible.
    pub(super) async fn set(&self, tag: &Tag, digest: &Digest) -> Result<(), DriverError> {
        let name = &self.repository.name;
        let entry = RegistryPath::TagIndexEntryLink(name.clone(), tag.clone(), *digest);
        self.repository.write_link(entry, digest).await?;
        self.repository.write_link(RegistryPath::TagCurrentLink(name.clone(), tag.clone()), digest).await
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
