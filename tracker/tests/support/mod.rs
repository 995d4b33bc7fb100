//! A cluster of real parts for the tests: a tracker, agents that announce, and origins whose API knows some blobs.

#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use shoal_control::message::{MetainfoQuery, path};
use shoal_control::{ErrorReply, Holding, TrackerClient};
use shoal_core::{Digest, Metainfo, PeerAddress, RepositoryName, Role, SignedMetainfo, Zone};
use shoal_http::{Running, Server};
use shoal_identity::{Authority, Identity};
use shoal_tracker::{Config, Tracker};
use tokio::sync::Semaphore;

/// Everything has one certificate authority.
pub struct Cluster {
    authority: Authority,
}

/// A tracker and its metrics.
pub struct TestTracker {
    pub tracker: Tracker,
    pub registry: prometheus::Registry,
}

/// An agent or origin as the tracker sees it.
pub struct Node {
    pub identity: Identity,
    pub client: TrackerClient,
    pub address: PeerAddress,
}

/// An origin's internal API.
pub struct Origin {
    pub node: Node,
    api: String,
    running: Running,
    shelf: Arc<Shelf>,
}

struct Shelf {
    blobs: HashMap<Digest, (RepositoryName, SignedMetainfo)>,
    requests: AtomicUsize,
    /// A permit lets one request through.
    gate: Semaphore,
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn config() -> Config {
    Config { listen: any_port(), shutdown_grace: Duration::from_millis(100), ..Config::default() }
}

pub fn repository(name: &str) -> RepositoryName {
    RepositoryName::parse(name).unwrap()
}

pub fn complete(digest: Digest) -> Holding {
    Holding { digest, complete: true }
}

/// Asks again until it is so: for what becomes true by itself soon.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}

impl Cluster {
    pub fn new() -> Self {
        shoal_identity::install_crypto_provider();
        Self { authority: Authority::generate("test").unwrap() }
    }

    pub fn identity(&self, role: Role, name: &str) -> Identity {
        self.authority.issue(role, name).unwrap()
    }

    pub async fn tracker(&self, config: Config) -> TestTracker {
        let registry = prometheus::Registry::new();
        let identity = self.identity(Role::Tracker, "tracker");
        TestTracker { tracker: Tracker::bind(config, identity, &registry).await.unwrap(), registry }
    }

    /// A node that has announced itself to nobody yet.
    pub fn node(&self, role: Role, name: &str, trackers: &[&TestTracker]) -> Node {
        let identity = self.identity(role, name);
        let client =
            TrackerClient::new(&identity, trackers.iter().map(|tracker| tracker.url()).collect()).unwrap();
        let addresses = vec!["0.0.0.0:7000".parse().unwrap()];
        let address = PeerAddress { id: identity.id(), role, addresses, zone: Zone::default() };
        Node { identity, client, address }
    }

    pub fn agent(&self, name: &str, trackers: &[&TestTracker]) -> Node {
        self.node(Role::Agent, name, trackers)
    }

    /// An origin that has these blobs in that repository, and has announced itself.
    pub async fn origin(&self, trackers: &[&TestTracker], name: &str, blobs: &[&[u8]]) -> Origin {
        let node = self.node(Role::Origin, "origin", trackers);
        let signer = node.identity.clone();
        self.serve(node, &signer, name, blobs).await
    }

    /// The same, but the metainfo is signed by somebody else.
    pub async fn origin_signed_by(
        &self,
        trackers: &[&TestTracker],
        name: &str,
        blobs: &[&[u8]],
        signer: &Identity,
    ) -> Origin {
        self.serve(self.node(Role::Origin, "origin", trackers), signer, name, blobs).await
    }

    async fn serve(&self, node: Node, signer: &Identity, name: &str, blobs: &[&[u8]]) -> Origin {
        let signed = blobs.iter().map(|content| {
            let metainfo = Metainfo::of(content).unwrap();
            let proof = signer.sign(&metainfo);
            (*metainfo.digest(), (repository(name), SignedMetainfo { metainfo, proof }))
        });
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        let shelf = Arc::new(Shelf { blobs: signed.collect(), requests: AtomicUsize::new(0), gate });
        let router = Router::new().route(path::METAINFO, get(metainfo)).with_state(Arc::clone(&shelf));
        let tls = node.identity.server_config(&[b"h2", b"http/1.1"]);
        let server = Server::bind(any_port(), Some(tls), shoal_http::Limits::default()).await.unwrap();
        let api = format!("https://{}", server.local_address());
        let origin = Origin { node, api, running: server.serve(router), shelf };
        origin.announce().await;
        origin
    }
}

async fn metainfo(State(shelf): State<Arc<Shelf>>, Query(query): Query<MetainfoQuery>) -> Response {
    shelf.requests.fetch_add(1, Ordering::SeqCst);
    shelf.gate.acquire().await.unwrap().forget();
    match shelf.blobs.get(&query.digest) {
        Some((name, signed)) if query.repository.is_none_or(|asked| asked == *name) => {
            signed.encode().into_response()
        }
        _ => ErrorReply::response(StatusCode::NOT_FOUND, "no such blob").into_response(),
    }
}

impl TestTracker {
    pub fn url(&self) -> String {
        format!("https://{}", self.tracker.local_address())
    }

    /// A counter or gauge, summed over its labels that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        family
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label))
            .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
            .sum()
    }
}

impl Node {
    /// Announces that it has these blobs, complete.
    pub async fn announce(&self, blobs: &[Digest]) {
        let added: Vec<_> = blobs.iter().copied().map(complete).collect();
        self.client.announce(&self.address, None, &added, &[], false).await.unwrap();
    }

    /// Whom it is handed for a blob.
    pub async fn peers(&self, digest: &Digest) -> Vec<shoal_core::PeerId> {
        let found = self.client.find(None, digest).await.unwrap();
        found.peers.iter().map(|peer| peer.id).collect()
    }
}

impl Origin {
    pub async fn announce(&self) {
        let Node { client, address, .. } = &self.node;
        client.announce(address, Some(&self.api), &[], &[], false).await.unwrap();
    }

    pub fn requests(&self) -> usize {
        self.shelf.requests.load(Ordering::SeqCst)
    }

    /// From now on requests wait until they are let through.
    pub fn hold(&self) {
        self.shelf.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn let_through(&self) {
        self.shelf.gate.add_permits(1000);
    }

    /// Goes away without a word.
    pub async fn crash(self) {
        self.running.shutdown(Duration::ZERO).await;
    }
}
