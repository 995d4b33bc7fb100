//! A cluster of one other node: a second store, and tags. What it is given is really copied; what it gives is really read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_core::{Digest, Metainfo, Proof, RepositoryName, Tag};
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, DriverPath, FilesystemDriver, Link, ReadOnlyDriver,
    ReadWriteDriver, RegistryPath, ResolvedTag, Signer, StorageDriver, TagExpectation, TransferError,
    Transferer, WriteMode,
};
use shoal_store::{Config, Entry, Store};
use tempfile::TempDir;

/// The other node: what is durable in the cluster.
pub(crate) struct Cluster {
    /// The store of the node under test: an upload is read from it, and what arrives in it is read as it comes.
    local: Mutex<Store>,
    remote: Store,
    state: Mutex<State>,
    _directory: TempDir,
}

#[derive(Default)]
struct State {
    tags: BTreeMap<(RepositoryName, Tag), Digest>,
    members: BTreeSet<(RepositoryName, Digest)>,
    links: BTreeMap<Link, Digest>,
    is_away: bool,
    tag_puts: u32,
}

/// A driver over a store and a cluster.
pub(crate) struct Node {
    pub(crate) driver: Arc<dyn StorageDriver>,
    pub(crate) store: Store,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) context: Context,
    directory: TempDir,
}

pub(crate) async fn open_store(directory: &TempDir, name: &str) -> Store {
    Store::open(Config { directory: directory.path().join(name) }).await.unwrap()
}

pub(crate) fn signer() -> Signer {
    Arc::new(|_: &Metainfo| Proof {
        certificate: Bytes::from_static(b"certificate"),
        signature: Bytes::from_static(b"signature"),
    })
}

pub(crate) fn repository() -> RepositoryName {
    RepositoryName::parse("library/redis").unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

impl Cluster {
    pub(crate) async fn new(local: Store) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let remote = open_store(&directory, "remote").await;
        Arc::new(Self { local: Mutex::new(local), remote, state: Mutex::default(), _directory: directory })
    }

    /// Gives the cluster a blob of a repository.
    pub(crate) async fn seed(&self, repository: &RepositoryName, content: Bytes) -> Digest {
        let digest = Digest::sha256(&content);
        let sign = signer();
        self.remote.put(content, &digest, move |metainfo| sign(metainfo)).await.unwrap();
        self.admit(repository, &digest);
        digest
    }

    /// Takes a blob away from the cluster.
    pub(crate) async fn forget(&self, digest: &Digest) {
        self.remote.delete(digest).await.unwrap();
    }

    /// The node under test has been started anew.
    pub(crate) fn set_local(&self, store: Store) {
        *self.local.lock().unwrap() = store;
    }

    /// What the node under test has.
    fn local(&self) -> Store {
        self.local.lock().unwrap().clone()
    }

    /// Makes the blob, of which there may be nothing yet, the repository's.
    pub(crate) fn admit(&self, repository: &RepositoryName, digest: &Digest) {
        self.state.lock().unwrap().members.insert((repository.clone(), *digest));
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.remote.blob(digest).is_some()
    }

    /// Whether the cluster knows that the repository has the blob.
    pub(crate) fn is_member(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.state.lock().unwrap().members.contains(&(repository.clone(), *digest))
    }

    pub(crate) fn tag_puts(&self) -> u32 {
        self.state.lock().unwrap().tag_puts
    }

    /// What the rest of the cluster has of a link.
    pub(crate) fn link(&self, link: &Link) -> Option<Digest> {
        self.state.lock().unwrap().links.get(link).copied()
    }

    pub(crate) fn go_away(&self) {
        self.state.lock().unwrap().is_away = true;
    }

    pub(crate) fn come_back(&self) {
        self.state.lock().unwrap().is_away = false;
    }

    fn reach(&self) -> Result<(), TransferError> {
        if self.state.lock().unwrap().is_away {
            return Err(TransferError::Unavailable("the cluster is away".into()));
        }
        Ok(())
    }

    fn find(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<Entry, TransferError> {
        self.reach()?;
        if repository.is_some_and(|repository| !self.is_member(repository, digest)) {
            return Err(TransferError::NotFound);
        }
        let arriving = self.local().entry(digest).filter(|entry| matches!(entry, Entry::Partial(_)));
        arriving.or_else(|| self.remote.entry(digest)).ok_or(TransferError::NotFound)
    }
}

fn length_of(entry: &Entry) -> u64 {
    match entry {
        Entry::Whole(blob) => blob.metainfo().length(),
        Entry::Partial(partial) => partial.metainfo().length(),
    }
}

#[async_trait]
impl Transferer for Cluster {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        Ok(length_of(&self.find(repository, digest)?))
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        let entry = self.find(repository, digest)?;
        let range = range.within(length_of(&entry));
        let reader = match entry {
            Entry::Whole(blob) => blob.reader(range),
            Entry::Partial(partial) => partial.reader(range),
        };
        let bytes = stream::unfold(reader, |mut reader| async move {
            let bytes = reader.next().await?;
            let bytes = bytes
                .map_err(|error| DriverError::Unavailable { driver: "cluster", detail: error.to_string() });
            Some((bytes, reader))
        });
        Ok(bytes.boxed())
    }

    async fn upload(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<(), TransferError> {
        self.reach()?;
        let blob = self.local().blob(digest).ok_or(TransferError::NotFound)?;
        if self.remote.blob(digest).is_none() {
            let mut content = BytesMut::new();
            let mut reader = blob.reader(0..blob.metainfo().length());
            while let Some(bytes) = reader.next().await {
                content.extend_from_slice(&bytes.map_err(|error| TransferError::Failed(error.into()))?);
            }
            let sign = signer();
            let put = self.remote.put(content.freeze(), digest, move |metainfo| sign(metainfo)).await;
            put.map_err(|error| TransferError::Failed(error.into()))?;
        }
        if let Some(repository) = repository {
            self.admit(repository, digest);
        }
        Ok(())
    }

    async fn writable(&self) -> Result<(), TransferError> {
        self.reach()
    }

    async fn find_link(&self, link: &Link) -> Result<Digest, TransferError> {
        self.reach()?;
        self.link(link).ok_or(TransferError::NotFound)
    }

    async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.reach()?;
        self.state.lock().unwrap().links.insert(link.clone(), *target);
        Ok(())
    }

    async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        self.reach()?;
        Ok(self.state.lock().unwrap().links.remove(link).is_some())
    }

    async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<ResolvedTag, TransferError> {
        self.reach()?;
        let key = (repository.clone(), tag.clone());
        let digest = self.state.lock().unwrap().tags.get(&key).copied();
        digest.map(ResolvedTag::current).ok_or(TransferError::NotFound)
    }

    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.reach()?;
        let mut state = self.state.lock().unwrap();
        expect_tag(&state, (repository, tag), expected)?;
        state.tag_puts += 1;
        state.tags.insert((repository.clone(), tag.clone()), *digest);
        Ok(())
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        self.reach()?;
        let key = (repository.clone(), tag.clone());
        let mut state = self.state.lock().unwrap();
        if !state.tags.contains_key(&key) {
            return Err(TransferError::NotFound);
        }
        expect_tag(&state, (repository, tag), expected)?;
        state.tags.remove(&key).map(drop).ok_or(TransferError::NotFound)
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        self.reach()?;
        let state = self.state.lock().unwrap();
        let tags = state.tags.keys().filter(|(name, _)| name == repository).map(|(_, tag)| tag.clone());
        let tags: Vec<Tag> = tags.collect();
        if tags.is_empty() { Err(TransferError::NotFound) } else { Ok(tags) }
    }
}

fn expect_tag(
    state: &State,
    (repository, tag): (&RepositoryName, &Tag),
    expected: &TagExpectation,
) -> Result<(), TransferError> {
    let current = state.tags.get(&(repository.clone(), tag.clone())).copied();
    if expected.allows(current.as_ref()) {
        return Ok(());
    }
    Err(TransferError::TagMoved { current: current.into() })
}

impl Node {
    pub(crate) async fn agent() -> Self {
        Self::new(|store, cluster, _| Arc::new(ReadOnlyDriver::new(store, cluster))).await
    }

    pub(crate) async fn origin() -> Self {
        Self::new(|store, cluster, directory| {
            let metadata = FilesystemDriver::new(directory.path().join("metadata"));
            Arc::new(ReadWriteDriver::new(store, metadata, cluster, signer()))
        })
        .await
    }

    async fn new(
        driver: impl FnOnce(Store, Arc<dyn Transferer>, &TempDir) -> Arc<dyn StorageDriver>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open_store(&directory, "local").await;
        let cluster = Cluster::new(store.clone()).await;
        Self {
            driver: driver(store.clone(), Arc::clone(&cluster) as Arc<dyn Transferer>, &directory),
            store,
            cluster,
            context: Context::of(repository()),
            directory,
        }
    }

    pub(crate) async fn get(&self, path: &RegistryPath) -> Result<Bytes, DriverError> {
        self.driver.get_content(&self.context, &path.to_driver_path()).await
    }

    pub(crate) async fn put(
        &self,
        path: &RegistryPath,
        content: impl Into<Bytes> + Send,
    ) -> Result<(), DriverError> {
        self.driver.put_content(&self.context, &path.to_driver_path(), content.into()).await
    }

    /// Puts a link that names `digest`.
    pub(crate) async fn link(&self, path: &RegistryPath, digest: &Digest) -> Result<(), DriverError> {
        self.put(path, digest.to_string()).await
    }

    /// Writes a file past the driver, as an origin's own records do.
    pub(crate) async fn file(&self, path: &RegistryPath, content: String) {
        let files = FilesystemDriver::new(self.directory.path().join("metadata"));
        files.put_content(&self.context, &path.to_driver_path(), content.into()).await.unwrap();
    }

    pub(crate) async fn read(&self, path: &RegistryPath, range: ByteRange) -> Result<Bytes, DriverError> {
        let stream = self.driver.reader(&self.context, &path.to_driver_path(), range).await?;
        Ok(stream.try_collect::<BytesMut>().await?.freeze())
    }

    /// The size of a file, or 0 for a folder.
    pub(crate) async fn stat(&self, path: &RegistryPath) -> Result<u64, DriverError> {
        Ok(self.driver.stat(&self.context, &path.to_driver_path()).await?.size)
    }

    /// The children, sorted.
    pub(crate) async fn list(&self, path: &RegistryPath) -> Result<Vec<RegistryPath>, DriverError> {
        let mut children = self.driver.list(&self.context, &path.to_driver_path()).await?;
        children.sort();
        Ok(children.iter().map(|child| RegistryPath::parse(child).unwrap()).collect())
    }

    pub(crate) async fn delete(&self, path: &RegistryPath) -> Result<(), DriverError> {
        self.driver.delete(&self.context, &path.to_driver_path()).await
    }

    pub(crate) async fn rename(&self, from: &RegistryPath, to: &RegistryPath) -> Result<(), DriverError> {
        self.driver.rename(&self.context, &from.to_driver_path(), &to.to_driver_path()).await
    }

    /// Writes one part of an upload and lets go; `commit` ends it.
    pub(crate) async fn write(
        &self,
        path: &RegistryPath,
        mode: WriteMode,
        part: &Bytes,
        commit: bool,
    ) -> Result<u64, DriverError> {
        let mut writer = self.driver.writer(&self.context, &path.to_driver_path(), mode).await?;
        writer.write(part.clone()).await?;
        let size = writer.size();
        if commit {
            writer.commit().await?;
        }
        writer.close().await?;
        Ok(size)
    }

    pub(crate) async fn walk(&self, from: &DriverPath) -> Vec<String> {
        let mut walk = shoal_driver::walk(&*self.driver, &self.context, from);
        let mut seen = Vec::new();
        while let Some(info) = walk.next().await.unwrap() {
            seen.push(info.path.to_string());
        }
        seen
    }
}
