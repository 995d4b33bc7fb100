//! What the tests share: a cluster in a temporary folder, and blobs made up from a seed.

use std::time::{Duration, Instant};

use shoal::client::Client;
use shoal::cluster::{Cluster, Plan, Ports};
use shoal::image::Layer;
use shoal_core::Digest;
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const REPOSITORY: &str = "team/app";

/// A cluster, and the folder that goes with it.
pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
    _folder: TempDir,
}

impl Fixture {
    pub(crate) async fn start(agents: usize) -> Self {
        shoal_identity::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { directory: folder.path().to_owned(), agents, ports: Ports::Free };
        let cluster = Cluster::start(plan).await.unwrap();
        Self { cluster, _folder: folder }
    }

    pub(crate) fn origin(&self) -> Client {
        Client::new(self.cluster.origin().registry_address()).unwrap()
    }

    pub(crate) fn agent(&self, number: usize) -> Client {
        Client::new(self.cluster.agent(number).registry_address()).unwrap()
    }

    /// Pushes a generated blob to the origin.
    pub(crate) async fn push(&self, length: u64, seed: u64) -> Layer {
        let layer = tokio::task::spawn_blocking(move || Layer::generate(length, seed)).await.unwrap();
        self.origin().push_layer(REPOSITORY, layer, |_| ()).await.unwrap();
        layer
    }

    pub(crate) async fn shutdown(self) {
        self.cluster.shutdown().await;
    }
}

/// The path of a blob below a registry's root.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("v2/{REPOSITORY}/blobs/{digest}")
}

/// The bytes of a layer from `start` to `end`.
pub(crate) fn slice(layer: Layer, start: u64, end: u64) -> Vec<u8> {
    let mut at = 0;
    let mut bytes = Vec::new();
    for chunk in layer.chunks() {
        let (from, to) = (start.clamp(at, at + chunk.len() as u64), end.clamp(at, at + chunk.len() as u64));
        bytes.extend_from_slice(&chunk[(from - at) as usize..(to - at) as usize]);
        at += chunk.len() as u64;
    }
    bytes
}

/// Looks again and again until there is something, for at most half a minute.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    loop {
        pause.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
    }
}
