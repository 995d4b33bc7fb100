//! The registry's tree as maintenance sees it: on nobody's behalf, typed, and with "missing" as an ordinary answer,
//! since everything may go away while it is looked at. What is not of the layout is not seen, and so never touched.

use std::time::SystemTime;

use bytes::Bytes;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, FileInfo, Freshness, RegistryPath, ResolvedTag,
    StorageDriver, TagExpectation, Walk, walk,
};

use crate::storage::found;

/// All that one driver holds.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a> {
    driver: &'a dyn StorageDriver,
}

/// The repositories, one after the other. See [`Tree::repositories`].
pub(super) struct Repositories<'a> {
    walk: Walk<'a>,
    last: Option<RepositoryName>,
}

/// The blobs, one after the other. See [`Tree::blobs`].
pub(super) struct BlobWalk<'a>(Walk<'a>);

impl<'a> Tree<'a> {
    pub(super) fn new(driver: &'a dyn StorageDriver) -> Self {
        Self { driver }
    }

    /// Every repository that has manifests, layers or uploads.
    pub(super) fn repositories(self) -> Repositories<'a> {
        let root = RegistryPath::Repositories.to_driver_path();
        Repositories { walk: walk(self.driver, &NOBODY, &root), last: None }
    }

    /// Every blob that has a folder.
    pub(super) fn blobs(self) -> BlobWalk<'a> {
        BlobWalk(walk(self.driver, &NOBODY, &RegistryPath::Blobs.to_driver_path()))
    }

    pub(super) async fn stat(self, path: &RegistryPath) -> Result<Option<FileInfo>, DriverError> {
        found(self.driver.stat(&NOBODY, &path.to_driver_path()).await)
    }

    pub(super) async fn content(self, path: &RegistryPath) -> Result<Option<Bytes>, DriverError> {
        found(self.driver.get_content(&NOBODY, &path.to_driver_path()).await)
    }

    pub(super) async fn read(self, path: &RegistryPath) -> Result<Option<ByteStream>, DriverError> {
        found(self.driver.reader(&NOBODY, &path.to_driver_path(), ByteRange::default()).await)
    }

    /// Whether there was something to delete.
    pub(super) async fn delete(self, path: &RegistryPath) -> Result<bool, DriverError> {
        Ok(found(self.driver.delete(&NOBODY, &path.to_driver_path()).await)?.is_some())
    }

    /// Whether there was something to delete, of which nobody made use after `since`.
    pub(super) async fn delete_unchanged(
        self,
        path: &RegistryPath,
        since: SystemTime,
    ) -> Result<bool, DriverError> {
        let deleted = self.driver.delete_unchanged(&NOBODY, &path.to_driver_path(), since).await;
        Ok(found(deleted)?.unwrap_or(false))
    }

    /// Removes a tag as long as it names that; says whether it did.
    pub(super) async fn delete_tag(
        self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Digest,
    ) -> Result<bool, DriverError> {
        let expected = TagExpectation::one_of([digest]);
        match found(self.driver.delete_tag(&NOBODY, (repository, tag), &expected).await) {
            Err(DriverError::TagMoved { .. }) => Ok(false),
            other => Ok(other?.is_some()),
        }
    }

    /// What a tag names; an error where nobody can say for certain.
    pub(super) async fn resolve(
        self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, DriverError> {
        match found(self.driver.resolve_tag(&NOBODY, repository, tag).await)? {
            None => Ok(None),
            Some(ResolvedTag { digest, freshness: Freshness::Current }) => Ok(Some(digest)),
            Some(_) => Err(DriverError::Unavailable {
                driver: self.driver.name(),
                detail: format!("nobody can say for certain what {repository}:{tag} names"),
            }),
        }
    }

    /// The manifests that a repository links.
    pub(super) async fn revisions(self, name: &RepositoryName) -> Result<Vec<Digest>, DriverError> {
        let digest = |path| match path {
            RegistryPath::Revision(_, digest) => Some(digest),
            _ => None,
        };
        self.below_algorithms(&RegistryPath::Revisions(name.clone()), digest).await
    }

    /// The blobs that a repository links.
    pub(super) async fn layers(self, name: &RepositoryName) -> Result<Vec<Digest>, DriverError> {
        let digest = |path| match path {
            RegistryPath::Layer(_, digest) => Some(digest),
            _ => None,
        };
        self.below_algorithms(&RegistryPath::Layers(name.clone()), digest).await
    }

    pub(super) async fn tags(self, name: &RepositoryName) -> Result<Vec<Tag>, DriverError> {
        let children = self.children(&RegistryPath::Tags(name.clone())).await?;
        let tag = |path| match path {
            RegistryPath::Tag(_, tag) => Some(tag),
            _ => None,
        };
        Ok(children.into_iter().filter_map(tag).collect())
    }

    /// The manifests that a tag names or has named.
    pub(super) async fn tag_index(
        self,
        name: &RepositoryName,
        tag: &Tag,
    ) -> Result<Vec<Digest>, DriverError> {
        let digest = |path| match path {
            RegistryPath::TagIndexEntry(_, _, digest) => Some(digest),
            _ => None,
        };
        self.below_algorithms(&RegistryPath::TagIndex(name.clone(), tag.clone()), digest).await
    }

    /// What lies directly in a folder and is of the layout; nothing where there is no such folder.
    pub(super) async fn children(self, folder: &RegistryPath) -> Result<Vec<RegistryPath>, DriverError> {
        let children = found(self.driver.list(&NOBODY, &folder.to_driver_path()).await)?.unwrap_or_default();
        Ok(children.iter().filter_map(|child| RegistryPath::parse(child).ok()).collect())
    }

    async fn below_algorithms<T>(
        self,
        folder: &RegistryPath,
        pick: impl Fn(RegistryPath) -> Option<T>,
    ) -> Result<Vec<T>, DriverError> {
        let mut picked = Vec::new();
        for algorithm in self.children(folder).await? {
            picked.extend(self.children(&algorithm).await?.into_iter().filter_map(&pick));
        }
        Ok(picked)
    }
}

impl Repositories<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<RepositoryName>, DriverError> {
        while let Some(entry) = step(&mut self.walk).await? {
            let path = RegistryPath::parse(&entry.path);
            if matches!(path, Ok(RegistryPath::Repository(_))) && entry.is_directory {
                continue;
            }
            if entry.is_directory {
                self.walk.skip_directory();
            }
            let Ok(RegistryPath::Manifests(name) | RegistryPath::Layers(name) | RegistryPath::Uploads(name)) =
                path
            else {
                continue;
            };
            // The folders of one repository follow each other: no name has a part that begins with an underscore.
            if self.last.as_ref() != Some(&name) {
                self.last = Some(name.clone());
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

impl BlobWalk<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Digest>, DriverError> {
        while let Some(entry) = step(&mut self.0).await? {
            if !entry.is_directory {
                continue;
            }
            match RegistryPath::parse(&entry.path) {
                Ok(RegistryPath::BlobsByAlgorithm(_) | RegistryPath::BlobShard(..)) => {}
                Ok(RegistryPath::Blob(digest)) => {
                    self.0.skip_directory();
                    return Ok(Some(digest));
                }
                _ => self.0.skip_directory(),
            }
        }
        Ok(None)
    }
}

/// The next entry. What is not of the layout, and so not for this driver, is passed over.
async fn step(walk: &mut Walk<'_>) -> Result<Option<FileInfo>, DriverError> {
    loop {
        match walk.next().await {
            Err(DriverError::InvalidPath { .. } | DriverError::InvalidRequest { .. }) => {}
            other => return Ok(found(other)?.flatten()),
        }
    }
}

/// Maintenance asks on nobody's behalf.
static NOBODY: Context = Context { repository: None };
