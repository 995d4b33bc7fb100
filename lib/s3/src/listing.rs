//! Listing the keys with a prefix, page by page.
//!
//! Keys come in the order of paths, in which `/` is before every other character: what lies below `a` comes before
//! `a-b`. S3 promises the order of bytes (and its directory buckets none); but the registry's driver looks at the first
//! keys of a prefix to see what lies below it, and in the order of bytes it would not see `tags/1` for a `tags/1-rc`.
//!
//! A folder that a driver cannot list is an error where it is asked for, and has no keys where a listing comes by.

use std::collections::BTreeSet;
use std::vec;

use shoal_driver::{Context, DriverError, DriverPath, FileInfo, RegistryPath, StorageDriver};

use crate::keys::{Content, Named, Prefix};
use crate::repositories::Repositories;

/// One entry of a page.
#[derive(Debug)]
pub(crate) enum Entry {
    /// An object.
    Object(Named, FileInfo),
    /// A folder, if a listing does not go into folders.
    Folder(DriverPath),
}

/// Whether a listing goes into folders (no delimiter) or names them (delimiter `/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Every key.
    All,
    /// The keys of one folder, and its folders.
    One,
}

/// A page, and whether another follows.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) is_truncated: bool,
}

/// A listing under way.
pub(crate) struct Listing<'a> {
    driver: &'a dyn StorageDriver,
    repositories: &'a Repositories,
    depth: Depth,
    after: Option<DriverPath>,
    /// What is left to visit, level by level.
    levels: Vec<vec::IntoIter<DriverPath>>,
}

impl<'a> Listing<'a> {
    /// The keys with that prefix, behind `after`.
    pub(crate) async fn start(
        (driver, repositories): (&'a dyn StorageDriver, &'a Repositories),
        prefix: &Prefix,
        depth: Depth,
        after: Option<DriverPath>,
    ) -> Result<Self, DriverError> {
        let first = first_level(driver, prefix, depth).await?;
        Ok(Self {
            driver,
            repositories,
            depth,
            after,
            levels: vec![first.into_iter().collect::<Vec<_>>().into_iter()],
        })
    }

    /// At most `limit` entries.
    pub(crate) async fn page(mut self, limit: usize) -> Result<Page, DriverError> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next().await? {
            if entries.len() >= limit {
                return Ok(Page { entries, is_truncated: limit > 0 });
            }
            entries.push(entry);
        }
        Ok(Page { entries, is_truncated: false })
    }

    async fn next(&mut self) -> Result<Option<Entry>, DriverError> {
        while let Some(path) = self.next_path() {
            if let Some(named) = Named::of(&path) {
                if let Some(info) = self.object(&named).await? {
                    return Ok(Some(Entry::Object(named, info)));
                }
            } else if self.depth == Depth::All {
                self.enter(&path).await?;
            } else if self.after.as_ref().is_none_or(|after| path > *after) {
                return Ok(Some(Entry::Folder(path)));
            }
        }
        Ok(None)
    }

    /// What is at a key; `None` for what is before the page, or gone.
    async fn object(&self, named: &Named) -> Result<Option<FileInfo>, DriverError> {
        if self.after.as_ref().is_some_and(|after| named.path <= *after) {
            return Ok(None);
        }
        present(self.driver.stat(&self.repositories.context(named), &named.path).await)
    }

    async fn enter(&mut self, folder: &DriverPath) -> Result<(), DriverError> {
        let mut children = present(self.driver.list(&Context::default(), folder).await)?.unwrap_or_default();
        children.sort_unstable();
        self.levels.push(children.into_iter());
        Ok(())
    }

    /// The next path that is, or may hold, something behind `after`.
    fn next_path(&mut self) -> Option<DriverPath> {
        loop {
            match self.levels.last_mut()?.next() {
                Some(path)
                    if self.after.as_ref().is_some_and(|after| path < *after && !after.is_within(&path)) => {}
                Some(path) => return Some(path),
                None => drop(self.levels.pop()),
            }
        }
    }
}

/// The children of the prefix' folder whose names start as it does.
async fn first_level(
    driver: &dyn StorageDriver,
    prefix: &Prefix,
    depth: Depth,
) -> Result<BTreeSet<DriverPath>, DriverError> {
    let is_visited = |path: &DriverPath| match depth {
        Depth::All => RegistryPath::parse(path).is_ok(),
        // A folder is named without being looked into: it must have been listed.
        Depth::One => Named::of(path).is_some(),
    };
    let exact = prefix.folder.child(&prefix.start).ok().filter(is_visited);
    let mut level: BTreeSet<_> = exact.into_iter().collect();
    if level.first().is_some_and(is_alone) {
        return Ok(level);
    }
    let listed = driver.list(&Context::default(), &prefix.folder).await;
    let children = match listed {
        Err(DriverError::Unsupported { .. }) if level.is_empty() => listed?,
        other => present(other)?.unwrap_or_default(),
    };
    level.extend(
        children.into_iter().filter(|path| path.name().is_some_and(|name| name.starts_with(&prefix.start))),
    );
    Ok(level)
}

/// Whether no other name in the folder can begin with this one: so no need to list the folder, which not every driver can.
fn is_alone(path: &DriverPath) -> bool {
    Named::of(path).is_some_and(|named| !matches!(named.content, Content::HashState(..)))
}

/// What is not there, or cannot be, is none.
fn present<T>(found: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(
            DriverError::PathNotFound { .. }
            | DriverError::InvalidPath { .. }
            | DriverError::InvalidRequest { .. }
            | DriverError::Unsupported { .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}
