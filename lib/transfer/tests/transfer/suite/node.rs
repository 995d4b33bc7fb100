//! A node of the test cluster.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use shoal_core::{Digest, Metainfo, PeerAddress, Role, SignedMetainfo, Zone};
use shoal_identity::{Authority, Identity, install_crypto_provider};
use shoal_store::{Blob, Entry, Partial, Store};
use shoal_transfer::{Config, Fetch, FetchError, FetchEvent, Transfer};
use tempfile::TempDir;

use super::super::TRANSPORT;

/// One node with a store of its own.
pub(crate) struct Node {
    pub(crate) transfer: Transfer,
    pub(crate) store: Store,
    pub(crate) registry: prometheus::Registry,
    identity: Identity,
    _directory: TempDir,
}

/// A certificate authority for one test.
pub(crate) fn authority() -> Authority {
    install_crypto_provider();
    Authority::generate("test").unwrap()
}

/// Loopback, any port, and an engine that gives up soon: nothing here is slow.
pub(crate) fn config() -> Config {
    let mut config = Config { listen: ([127, 0, 0, 1], 0).into(), transport: TRANSPORT, ..Config::default() };
    config.swarm.retry_backoff = Duration::from_millis(20);
    config.swarm.retry_backoff_max = Duration::from_millis(100);
    config.swarm.find_interval = Duration::from_millis(20);
    config.swarm.find_interval_max = Duration::from_millis(100);
    config.swarm.stall_timeout = Duration::from_millis(500);
    config
}

/// Bytes that differ from piece to piece, and by `seed`.
pub(crate) fn content(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let mut bytes = BytesMut::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.put_u64(state);
    }
    bytes.truncate(length);
    bytes.freeze()
}

impl Node {
    pub(crate) async fn start(authority: &Authority, role: Role) -> Self {
        Self::start_with(authority, role, config()).await
    }

    pub(crate) async fn start_with(authority: &Authority, role: Role, config: Config) -> Self {
        let directory = TempDir::new().unwrap();
        let identity = authority.issue(role, "node").unwrap();
        let store = Store::open(store_config(&directory)).await.unwrap();
        let registry = prometheus::Registry::new();
        let transfer = Transfer::bind(config, identity.clone(), Zone::default(), store.clone(), &registry)
            .await
            .unwrap();
        Self { transfer, store, registry, identity, _directory: directory }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress {
            id: self.identity.id(),
            role: self.identity.role(),
            addresses: vec![self.transfer.local_address()],
            zone: Zone::default(),
        }
    }

    /// Puts a blob into the store.
    pub(crate) async fn hold(&self, content: &Bytes) -> SignedMetainfo {
        let identity = self.identity.clone();
        let sign = move |metainfo: &Metainfo| identity.sign(metainfo);
        self.store.put(content.clone(), &Digest::sha256(content), sign).await.unwrap().signed()
    }

    /// Begins a partial.
    pub(crate) async fn partial(&self, metainfo: &SignedMetainfo) -> Partial {
        match self.store.create(metainfo).await.unwrap() {
            Entry::Partial(partial) => partial,
            Entry::Whole(_) => panic!("the blob is whole already"),
        }
    }

    /// Begins a fetch.
    pub(crate) async fn fetch(&self, metainfo: &SignedMetainfo, peers: impl Into<Vec<PeerAddress>>) -> Fetch {
        let partial = self.partial(metainfo).await;
        self.transfer.fetch(partial, peers.into()).await.unwrap()
    }

    /// Fetches a blob to its end.
    pub(crate) async fn pull(
        &self,
        metainfo: &SignedMetainfo,
        peers: impl Into<Vec<PeerAddress>>,
    ) -> Result<Blob, FetchError> {
        finish(self.fetch(metainfo, peers).await).await
    }

    /// The value of a metric, all its labels together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }
}

/// Follows a fetch to its end; nobody knows more peers.
pub(crate) async fn finish(mut fetch: Fetch) -> Result<Blob, FetchError> {
    loop {
        match fetch.next().await.expect("a fetch ends with Complete or Failed") {
            FetchEvent::FindPeers => fetch.add_peers(Vec::new()).await,
            FetchEvent::Complete(blob) => return Ok(blob),
            FetchEvent::Failed(error) => return Err(error),
        }
    }
}

/// All bytes of a blob, as a reader gets them.
pub(crate) async fn read(blob: &Blob) -> Bytes {
    let mut reader = blob.reader(0..u64::MAX);
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    bytes.into()
}

/// Waits until something holds. What is waited for has no event of its own, so it is looked at again and again.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < patience, "it never held");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn store_config(directory: &TempDir) -> shoal_store::Config {
    shoal_store::Config { directory: directory.path().to_owned() }
}
