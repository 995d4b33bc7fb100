//! Three trackers with real sockets, of which each does what the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::StatusCode;
use shoal_core::{Metainfo, PeerAddress, PeerId, SignedMetainfo, Zone};
use shoal_http::{Limits, Running, Server};
use shoal_identity::Authority;

use super::*;
use crate::message::{ErrorReply, FindReply};

const NOBODY: u8 = 0;
const SOMEBODY: u8 = 1;
const SILENT: u8 = 2;
const FAILING: u8 = 3;
const NOT_FOUND: u8 = 4;

struct Scripted {
    running: Running,
    behaviour: Arc<AtomicU8>,
    requests: Arc<AtomicUsize>,
}

/// The trackers in the order in which they are asked for the blob.
struct Rig {
    client: TrackerClient,
    digest: Digest,
    trackers: Vec<Scripted>,
}

impl Rig {
    async fn start(behaviours: [u8; 3]) -> Self {
        shoal_identity::install_crypto_provider();
        let authority = Authority::generate("test").unwrap();
        let (tracker, origin) = (
            authority.issue(Role::Tracker, "tracker").unwrap(),
            authority.issue(Role::Origin, "origin").unwrap(),
        );
        let metainfo = Metainfo::of(b"blob").unwrap();
        let digest = *metainfo.digest();
        let signed = FindReply::encode_metainfo(&SignedMetainfo { proof: origin.sign(&metainfo), metainfo });
        let mut trackers = Vec::new();
        for _ in behaviours {
            trackers.push(Scripted::start(&tracker, signed.clone()).await);
        }
        let urls = trackers.iter().map(|one| format!("https://{}", one.running.local_address())).collect();
        let client = TrackerClient::new(&authority.issue(Role::Agent, "agent").unwrap(), urls).unwrap();
        let mut unordered: Vec<_> = trackers.into_iter().map(Some).collect();
        let order = client.rendezvous.order(&digest);
        let trackers: Vec<_> = order.iter().filter_map(|&place| unordered[place].take()).collect();
        for (tracker, behaviour) in trackers.iter().zip(behaviours) {
            tracker.behaviour.store(behaviour, Ordering::SeqCst);
        }
        Self { client, digest, trackers }
    }

    /// How many agents were found, and how many requests each tracker had by then.
    async fn find(&self) -> (Result<usize, ControlError>, [usize; 3]) {
        let found = self.client.find(None, &self.digest).await.map(|found| found.peers.len());
        (found, [0, 1, 2].map(|at| self.trackers[at].requests.load(Ordering::SeqCst)))
    }
}

impl Scripted {
    async fn start(identity: &shoal_identity::Identity, metainfo: String) -> Self {
        let (behaviour, requests) = (Arc::new(AtomicU8::new(NOBODY)), Arc::new(AtomicUsize::new(0)));
        let (doing, counter) = (Arc::clone(&behaviour), Arc::clone(&requests));
        let handler = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            answer(doing.load(Ordering::SeqCst), metainfo.clone())
        };
        let tls = identity.server_config(&[b"h2"]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(listen, Some(tls), Limits::default()).await.unwrap();
        Self { running: server.serve(Router::new().fallback(handler)), behaviour, requests }
    }
}

async fn answer(behaviour: u8, metainfo: String) -> Response {
    let agent = PeerAddress {
        id: PeerId::from_public_key([1; 32]),
        role: Role::Agent,
        addresses: vec![([10, 0, 0, 1], 1).into()],
        zone: Zone::default(),
    };
    let reply = |peers| Json(FindReply { metainfo: metainfo.into(), peers, seen: None }).into_response();
    match behaviour {
        NOBODY => reply(vec![]),
        SOMEBODY => reply(vec![agent]),
        SILENT => std::future::pending().await,
        FAILING => ErrorReply::response(StatusCode::SERVICE_UNAVAILABLE, "cannot say").into_response(),
        _ => ErrorReply::response(StatusCode::NOT_FOUND, "no such blob").into_response(),
    }
}

#[tokio::test]
async fn the_owner_is_asked_and_nobody_else() {
    let (found, requests) = Rig::start([NOBODY, SOMEBODY, SOMEBODY]).await.find().await;
    assert_eq!((found.unwrap(), requests), (0, [1, 0, 0]));
}

#[tokio::test]
async fn an_owner_that_fails_is_asked_last_from_then_on() {
    let rig = Rig::start([FAILING, SOMEBODY, NOBODY]).await;
    let (found, requests) = rig.find().await;
    assert_eq!((found.unwrap(), requests), (1, [1, 1, 0]));
    let (found, requests) = rig.find().await;
    assert_eq!((found.unwrap(), requests), (1, [1, 2, 0]));
}

#[tokio::test]
async fn one_that_owns_nothing_and_knows_nobody_does_not_outdo_a_slow_owner() {
    let rig = Rig::start([SILENT, SILENT, NOBODY]).await;
    let began = Instant::now();
    let (found, requests) = rig.find().await;
    assert_eq!((found.unwrap(), requests), (0, [1, 1, 1]), "it is better than nothing");
    assert!(began.elapsed() >= REQUEST_TIMEOUT, "the owners had all the time there is");
    // The owners are known to be away now, and the one that answers stands in for them.
    let began = Instant::now();
    assert_eq!(rig.find().await.0.unwrap(), 0);
    assert!(began.elapsed() < REQUEST_TIMEOUT);
}

#[tokio::test]
async fn one_that_owns_nothing_counts_when_it_knows_somebody_or_the_owners_have_failed() {
    for behaviours in [[SILENT, SILENT, SOMEBODY], [FAILING, FAILING, NOBODY], [SILENT, SILENT, NOT_FOUND]] {
        let rig = Rig::start(behaviours).await;
        let began = Instant::now();
        let found = rig.find().await.0;
        assert_eq!(found.is_ok(), behaviours[2] != NOT_FOUND);
        assert!(began.elapsed() < REQUEST_TIMEOUT, "{behaviours:?}");
    }
}
