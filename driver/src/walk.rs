//! Walking a tree: depth first, in path order (`/` before every other character), by `list` and `stat` of any driver.
//!
//! A walk is pulled by its caller, so stopping is dropping it, and nothing is read ahead. It holds one list of children
//! for each level of the path where it is. What vanishes between `list` and `stat` is skipped.

use std::vec;

use crate::driver::{Context, FileInfo, StorageDriver};
use crate::error::DriverError;
use crate::path::DriverPath;

/// A walk under way.
pub struct Walk<'a> {
    driver: &'a dyn StorageDriver,
    context: &'a Context,
    start_after: Option<DriverPath>,
    /// The directory whose children come next, if its caller does not skip it.
    descend: Option<DriverPath>,
    /// What is left to visit, level by level.
    levels: Vec<vec::IntoIter<DriverPath>>,
}

/// Walks everything below `from`, without `from` itself. A `from` that is missing is an error of the first step.
#[must_use]
pub fn walk<'a>(driver: &'a dyn StorageDriver, context: &'a Context, from: &DriverPath) -> Walk<'a> {
    Walk { driver, context, start_after: None, descend: Some(from.clone()), levels: Vec::new() }
}

impl Walk<'_> {
    /// Visits only what sorts after `hint`: what is below it, and what comes behind it. The hint need not exist.
    #[must_use]
    pub fn start_after(mut self, hint: DriverPath) -> Self {
        self.start_after = Some(hint);
        self
    }

    /// The next file or directory; a directory comes before what it holds.
    pub async fn next(&mut self) -> Result<Option<FileInfo>, DriverError> {
        self.enter().await?;
        while let Some(path) = self.next_path() {
            let info = match self.driver.stat(self.context, &path).await {
                Err(DriverError::PathNotFound { .. }) => continue,
                other => other?,
            };
            if info.is_directory {
                self.descend = Some(path);
            }
            if !self.is_before_start(&info.path) {
                return Ok(Some(info));
            }
            self.enter().await?;
        }
        Ok(None)
    }

    /// Does not visit what is below the directory that `next` just gave; after a file, what is left of its directory.
    pub fn skip_directory(&mut self) {
        if self.descend.take().is_none() {
            self.levels.pop();
        }
    }

    /// Lists the directory that was given last.
    async fn enter(&mut self) -> Result<(), DriverError> {
        let Some(directory) = self.descend.take() else { return Ok(()) };
        let mut children = match self.driver.list(self.context, &directory).await {
            // Gone since it was seen. At the top there was nobody who saw it.
            Err(DriverError::PathNotFound { .. }) if !self.levels.is_empty() => return Ok(()),
            other => other?,
        };
        children.sort_unstable();
        self.levels.push(children.into_iter());
        Ok(())
    }

    /// The next path that may lie, or may hold something, after the hint.
    fn next_path(&mut self) -> Option<DriverPath> {
        loop {
            match self.levels.last_mut()?.next() {
                Some(path) if self.is_wholly_before_start(&path) => {}
                Some(path) => return Some(path),
                None => drop(self.levels.pop()),
            }
        }
    }

    fn is_before_start(&self, path: &DriverPath) -> bool {
        self.start_after.as_ref().is_some_and(|hint| path <= hint)
    }

    fn is_wholly_before_start(&self, path: &DriverPath) -> bool {
        self.start_after.as_ref().is_some_and(|hint| path < hint && !hint.is_within(path))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::driver::{ByteRange, ByteStream, FileWriter, WriteMode};
    use crate::memory::MemoryDriver;

    fn path(text: &str) -> DriverPath {
        DriverPath::parse(text).unwrap()
    }

    async fn tree(files: &[&str]) -> MemoryDriver {
        let driver = MemoryDriver::new();
        for file in files {
            driver.put_content(&Context::default(), &path(file), Bytes::new()).await.unwrap();
        }
        driver
    }

    async fn rest(mut walk: Walk<'_>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(info) = walk.next().await.unwrap() {
            seen.push(info.path.to_string());
        }
        seen
    }

    const FILES: [&str; 6] = ["/f/a/1", "/f/a/2", "/f/a-b/3", "/f/b", "/f/c/d/4", "/g/5"];

    #[tokio::test]
    async fn everything_comes_in_path_order() {
        let (driver, context) = (tree(&FILES).await, Context::default());
        assert_eq!(
            rest(walk(&driver, &context, &path("/f"))).await,
            ["/f/a", "/f/a/1", "/f/a/2", "/f/a-b", "/f/a-b/3", "/f/b", "/f/c", "/f/c/d", "/f/c/d/4"]
        );
        assert_eq!(rest(walk(&driver, &context, &DriverPath::root())).await.len(), 12);
    }

    #[tokio::test]
    async fn a_skipped_directory_is_not_entered() {
        let (driver, context, root) = (tree(&FILES).await, Context::default(), path("/f"));
        let mut walk = walk(&driver, &context, &root);
        assert_eq!(walk.next().await.unwrap().unwrap().path, path("/f/a"));
        walk.skip_directory();
        assert_eq!(walk.next().await.unwrap().unwrap().path, path("/f/a-b"));
    }

    #[tokio::test]
    async fn skipping_at_a_file_leaves_its_directory() {
        let (driver, context, root) = (tree(&FILES).await, Context::default(), path("/f"));
        let mut walk = walk(&driver, &context, &root);
        walk.next().await.unwrap();
        assert_eq!(walk.next().await.unwrap().unwrap().path, path("/f/a/1"));
        walk.skip_directory();
        assert_eq!(walk.next().await.unwrap().unwrap().path, path("/f/a-b"));
    }

    #[tokio::test]
    async fn a_walk_starts_after_its_hint() {
        let (driver, context, root) = (tree(&FILES).await, Context::default(), path("/f"));
        let from = async |hint: &str| rest(walk(&driver, &context, &root).start_after(path(hint))).await;
        assert_eq!(from("/f/a-b").await, ["/f/a-b/3", "/f/b", "/f/c", "/f/c/d", "/f/c/d/4"]);
        assert_eq!(from("/f/a/1").await[0], "/f/a/2", "a hint that exists");
        assert_eq!(from("/f/a/11").await[0], "/f/a/2", "a hint that does not exist");
        assert_eq!(from("/f").await[0], "/f/a", "the hint is where the walk starts");
        assert_eq!(from("/f/c/d/4").await, [""; 0]);
        assert_eq!(from("/z").await, [""; 0]);
        assert_eq!(from("/a").await.len(), 9, "a hint before everything");
    }

    #[tokio::test]
    async fn a_walk_of_nothing_is_an_error_and_of_an_empty_root_is_empty() {
        let (driver, context) = (MemoryDriver::new(), Context::default());
        let missing = walk(&driver, &context, &path("/missing")).next().await;
        assert!(matches!(missing, Err(DriverError::PathNotFound { .. })));
        assert_eq!(rest(walk(&driver, &context, &DriverPath::root())).await, [""; 0]);
    }

    /// Lists a child that is gone when it is looked at.
    struct Vanishing(MemoryDriver);

    #[async_trait]
    impl StorageDriver for Vanishing {
        fn name(&self) -> &'static str {
            "vanishing"
        }

        async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
            let children = self.0.list(context, path).await?;
            self.0.delete(context, &children[0]).await?;
            Ok(children)
        }

        async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
            self.0.stat(context, path).await
        }

        async fn get_content(&self, _: &Context, _: &DriverPath) -> Result<Bytes, DriverError> {
            unreachable!("a walk reads no content")
        }

        async fn put_content(&self, _: &Context, _: &DriverPath, _: Bytes) -> Result<(), DriverError> {
            unreachable!("a walk does not write")
        }

        async fn reader(&self, _: &Context, _: &DriverPath, _: ByteRange) -> Result<ByteStream, DriverError> {
            unreachable!("a walk reads no content")
        }

        async fn writer(
            &self,
            _: &Context,
            _: &DriverPath,
            _: WriteMode,
        ) -> Result<Box<dyn FileWriter>, DriverError> {
            unreachable!("a walk does not write")
        }

        async fn rename(&self, _: &Context, _: &DriverPath, _: &DriverPath) -> Result<(), DriverError> {
            unreachable!("a walk does not write")
        }

        async fn delete(&self, _: &Context, _: &DriverPath) -> Result<(), DriverError> {
            unreachable!("a walk does not write")
        }
    }

    #[tokio::test]
    async fn what_vanishes_during_a_walk_is_skipped() {
        let driver = Arc::new(Vanishing(tree(&["/f/a", "/f/b", "/f/c"]).await));
        let context = Context::default();
        assert_eq!(rest(walk(&*driver, &context, &path("/f"))).await, ["/f/b", "/f/c"]);
    }
}
