//! Everything in memory: for tests, and the shortest reading of the contract.
//!
//! Committed content is a tree of nodes; content that is being written lies beside it, under its path, until its commit.
//! It keeps what it is given: nothing here bounds the memory, so no daemon uses it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use shoal_core::{Digest, RepositoryName, Tag};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::driver::{
    ByteRange, ByteStream, Context, FileInfo, FileWriter, MAX_CONTENT_LENGTH, StorageDriver, WriteMode,
};
use crate::error::{DriverError, Errors};
use crate::path::DriverPath;
use crate::registry_path::RegistryPath;
use crate::tag::TagExpectation;
use crate::writer::{Step, WriterState};

/// Everything in memory: tests, and the reference for the contract. Clones share the content.
#[derive(Clone, Debug)]
pub struct MemoryDriver(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    root: Node,
    /// Written and not committed. Who writes holds the lock of the content.
    pending: BTreeMap<DriverPath, Arc<AsyncMutex<BytesMut>>>,
}

#[derive(Debug)]
struct Node {
    modified: SystemTime,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File(Bytes),
    Directory(BTreeMap<String, Node>),
}

const ERRORS: Errors = Errors("memory");
/// How much of the content a stream gives at a time; small, so that tests see content in parts.
const CHUNK: usize = 64 * 1024;

impl MemoryDriver {
    /// A driver that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State { root: Node::directory(), pending: BTreeMap::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryDriver {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Refuses to go on with a tag that is not as expected.
    fn expect_tag(&self, link: &DriverPath, expected: &TagExpectation) -> Result<(), DriverError> {
        let current = match self.file(link) {
            Ok(content) => Digest::parse(String::from_utf8_lossy(content).trim()).ok(),
            Err(_) => None,
        };
        if expected.allows(current.as_ref()) {
            return Ok(());
        }
        Err(DriverError::TagMoved { driver: ERRORS.0, current: current.into() })
    }

    fn node(&self, path: &DriverPath) -> Result<&Node, DriverError> {
        let found = path.parts().try_fold(&self.root, |node, part| node.children()?.get(part));
        found.ok_or_else(|| ERRORS.not_found(path))
    }

    fn file(&self, path: &DriverPath) -> Result<&Bytes, DriverError> {
        match &self.node(path)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(ERRORS.not_found(path)),
        }
    }

    /// The children of the folder in which `path` lies, and its name there; missing folders are made.
    fn make_parent<'a>(
        &mut self,
        path: &'a DriverPath,
    ) -> Result<(&mut BTreeMap<String, Node>, &'a str), DriverError> {
        let name = path.name().ok_or_else(|| ERRORS.invalid_path(path))?;
        let under_a_file = || ERRORS.failed(format!("{path} lies under a file"));
        let mut children = self.root.children_mut().ok_or_else(under_a_file)?;
        for part in path.parts().take(path.parts().count() - 1) {
            let node = children.entry(part.to_owned()).or_insert_with(Node::directory);
            children = node.children_mut().ok_or_else(under_a_file)?;
        }
        Ok((children, name))
    }

    fn put(&mut self, path: &DriverPath, node: Node) -> Result<(), DriverError> {
        let (children, name) = self.make_parent(path)?;
        if let Some(there) = children.get(name)
            && there.is_directory() != node.is_directory()
        {
            return Err(ERRORS.failed(format!("{path} is of another kind")));
        }
        children.insert(name.to_owned(), node);
        Ok(())
    }

    fn take(&mut self, path: &DriverPath) -> Result<Node, DriverError> {
        self.node(path)?;
        let (children, name) = self.make_parent(path)?;
        children.remove(name).ok_or_else(|| ERRORS.not_found(path))
    }

    /// The content to be written, for one writer.
    fn open(&mut self, path: &DriverPath, mode: WriteMode) -> Result<OwnedMutexGuard<BytesMut>, DriverError> {
        if path.is_root() {
            return Err(ERRORS.invalid_path(path));
        }
        if self.node(path).is_ok_and(Node::is_directory) {
            return Err(ERRORS.failed(format!("{path} is a directory")));
        }
        if mode == WriteMode::Append && !self.pending.contains_key(path) {
            // Committed content that is taken up again is out of sight until its next commit.
            let content = BytesMut::from(&self.file(path)?[..]);
            self.take(path)?;
            self.pending.insert(path.clone(), Arc::new(AsyncMutex::new(content)));
        }
        let content = Arc::clone(self.pending.entry(path.clone()).or_default());
        let mut content = content
            .try_lock_owned()
            .map_err(|_| ERRORS.unavailable(format!("{path} is being written by another writer")))?;
        if mode == WriteMode::Create {
            content.clear();
        }
        Ok(content)
    }
}

impl Node {
    fn file(content: Bytes) -> Self {
        Self { modified: SystemTime::now(), kind: Kind::File(content) }
    }

    fn directory() -> Self {
        Self { modified: SystemTime::now(), kind: Kind::Directory(BTreeMap::new()) }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// Whether a rename may put something in its place: a file for a file, a directory for an empty one.
    fn gives_way_to(&self, is_directory: bool) -> bool {
        match &self.kind {
            Kind::File(_) => !is_directory,
            Kind::Directory(children) => is_directory && children.is_empty(),
        }
    }

    fn children(&self) -> Option<&BTreeMap<String, Self>> {
        match &self.kind {
            Kind::Directory(children) => Some(children),
            Kind::File(_) => None,
        }
    }

    fn children_mut(&mut self) -> Option<&mut BTreeMap<String, Self>> {
        match &mut self.kind {
            Kind::Directory(children) => Some(children),
            Kind::File(_) => None,
        }
    }
}

#[async_trait]
impl StorageDriver for MemoryDriver {
    fn name(&self) -> &'static str {
        ERRORS.0
    }

    async fn get_content(&self, _context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        if path.is_root() {
            return Err(ERRORS.invalid_path(path));
        }
        let content = self.state().file(path)?.clone();
        if content.len() as u64 > MAX_CONTENT_LENGTH { Err(ERRORS.too_long(path)) } else { Ok(content) }
    }

    async fn put_content(
        &self,
        _context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError> {
        self.state().put(path, Node::file(content))
    }

    async fn put_tag(
        &self,
        _context: &Context,
        (repository, tag): (&RepositoryName, &Tag),
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        let link = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        let mut state = self.state();
        state.expect_tag(&link, expected)?;
        state.put(&link, Node::file(digest.to_string().into()))
    }

    async fn delete_tag(
        &self,
        _context: &Context,
        (repository, tag): (&RepositoryName, &Tag),
        expected: &TagExpectation,
    ) -> Result<(), DriverError> {
        let link = RegistryPath::TagCurrentLink(repository.clone(), tag.clone()).to_driver_path();
        let folder = RegistryPath::Tag(repository.clone(), tag.clone()).to_driver_path();
        let mut state = self.state();
        state.node(&folder)?;
        state.expect_tag(&link, expected)?;
        state.take(&folder).map(drop)
    }

    async fn reader(
        &self,
        _context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        if path.is_root() {
            return Err(ERRORS.invalid_path(path));
        }
        let content = self.state().file(path)?.clone();
        let range = range.within(content.len() as u64);
        let mut rest = content.slice(range.start as usize..range.end as usize);
        let chunks =
            std::iter::from_fn(move || (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(CHUNK)))));
        Ok(stream::iter(chunks).boxed())
    }

    async fn writer(
        &self,
        _context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        let content = self.state().open(path, mode)?;
        Ok(Box::new(MemoryWriter {
            driver: self.clone(),
            path: path.clone(),
            size: content.len() as u64,
            content: Some(content),
            state: WriterState::Open,
        }))
    }

    async fn stat(&self, _context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        let state = self.state();
        let node = state.node(path)?;
        let size = match &node.kind {
            Kind::File(content) => content.len() as u64,
            Kind::Directory(_) => 0,
        };
        Ok(FileInfo { path: path.clone(), size, modified: node.modified, is_directory: node.is_directory() })
    }

    async fn list(&self, _context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        let state = self.state();
        let children = state.node(path)?.children().ok_or_else(|| ERRORS.not_found(path))?;
        let paths = children.keys().map(|name| path.child(name));
        paths.collect::<Result<_, _>>().map_err(|error| ERRORS.caused(format!("list {path}"), error))
    }

    async fn rename(
        &self,
        _context: &Context,
        from: &DriverPath,
        to: &DriverPath,
    ) -> Result<(), DriverError> {
        let mut state = self.state();
        if from.is_root() || to.is_root() {
            return Err(ERRORS.invalid_path(&DriverPath::root()));
        }
        if from == to {
            return state.node(from).map(drop);
        }
        state.node(from)?;
        if to.is_within(from) {
            return Err(ERRORS.failed(format!("{to} lies under {from}")));
        }
        // `put` takes the node away even if it refuses, so ask first.
        let is_directory = state.node(from)?.is_directory();
        let (children, name) = state.make_parent(to)?;
        if children.get(name).is_some_and(|there| !there.gives_way_to(is_directory)) {
            return Err(ERRORS.failed(format!("{to} is of another kind than {from}, or holds something")));
        }
        let node = state.take(from)?;
        state.put(to, node)
    }

    async fn delete(&self, _context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        if path.is_root() {
            return Err(ERRORS.invalid_path(path));
        }
        let mut state = self.state();
        let pending_before = state.pending.len();
        state.pending.retain(|pending, _| !pending.is_within(path));
        let had_pending = state.pending.len() < pending_before;
        match state.take(path) {
            Err(DriverError::PathNotFound { .. }) if had_pending => Ok(()),
            other => other.map(drop),
        }
    }
}

struct MemoryWriter {
    driver: MemoryDriver,
    path: DriverPath,
    size: u64,
    /// What is written, locked against other writers; `None` after the end.
    content: Option<OwnedMutexGuard<BytesMut>>,
    state: WriterState,
}

impl MemoryWriter {
    /// Ends the writing: the content is no longer under way. `None` if it was deleted meanwhile.
    fn finish(&mut self, state: &mut State) -> Option<Bytes> {
        let mut content = self.content.take()?;
        let is_mine = state
            .pending
            .get(&self.path)
            .is_some_and(|pending| Arc::ptr_eq(pending, OwnedMutexGuard::mutex(&content)));
        if !is_mine {
            return None;
        }
        state.pending.remove(&self.path);
        Some(content.split().freeze())
    }
}

#[async_trait]
impl FileWriter for MemoryWriter {
    fn size(&self) -> u64 {
        self.size
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DriverError> {
        let next = self.state.begin(Step::Write, ERRORS)?;
        if let Some(content) = &mut self.content {
            content.extend_from_slice(&bytes);
        }
        self.size += bytes.len() as u64;
        self.state = next;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), DriverError> {
        let next = self.state.begin(Step::Commit, ERRORS)?;
        let driver = self.driver.clone();
        let mut state = driver.state();
        let content = self.finish(&mut state).ok_or_else(|| ERRORS.not_found(&self.path))?;
        state.put(&self.path, Node::file(content))?;
        self.state = next;
        Ok(())
    }

    async fn cancel(&mut self) -> Result<(), DriverError> {
        let next = self.state.begin(Step::Cancel, ERRORS)?;
        let driver = self.driver.clone();
        self.finish(&mut driver.state());
        self.state = next;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), DriverError> {
        self.state = self.state.begin(Step::Close, ERRORS)?;
        self.content = None;
        Ok(())
    }
}
