//! The announcer and trackers that share their state.

#![allow(clippy::unwrap_used)] // In a test it is the assertion.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::{Json, Router};
use shoal_control::message::AnnounceRequest;
use shoal_control::{Announced, Announcer, Holding, Sharing, TrackerClient};
use shoal_core::{Digest, PeerAddress, Role, Zone};
use shoal_http::{Limits, Running, Server};
use shoal_identity::{Authority, Identity};

/// A tracker that keeps what it is told: whether it was everything, how many blobs, and its number.
struct Listener {
    running: Running,
    told: Arc<Mutex<Vec<(bool, usize, u64)>>>,
}

impl Listener {
    async fn start(identity: &Identity) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        let handler = move |body: axum::body::Bytes| {
            // A goodbye has no address.
            if let Ok(AnnounceRequest { added, everything, sequence, .. }) = serde_json::from_slice(&body) {
                noted.lock().unwrap().push((everything, added.len(), sequence));
            }
            let (sharing, sequence) = (Sharing::Shared, 0);
            let prefetch = Vec::new();
            let answer =
                Announced { interval_ms: 1, send_all: false, revocations: 0, sharing, sequence, prefetch };
            async move { Json(answer) }
        };
        let tls = identity.server_config(&[b"h2"]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(listen, Some(tls), Limits::default()).await.unwrap();
        Self { running: server.serve(Router::new().fallback(handler)), told }
    }

    fn told(&self) -> Vec<(bool, usize, u64)> {
        self.told.lock().unwrap().clone()
    }
}

async fn eventually(what: &str, so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn one_tracker_is_told_everything_and_the_next_when_it_is_gone() {
    shoal_identity::install_crypto_provider();
    let authority = Authority::generate("test").unwrap();
    let tracker = authority.issue(Role::Tracker, "tracker").unwrap();
    let listeners = [Listener::start(&tracker).await, Listener::start(&tracker).await];
    let urls = listeners.iter().map(|one| format!("https://{}", one.running.local_address())).collect();
    let agent = authority.issue(Role::Agent, "agent").unwrap();
    let client = TrackerClient::new(&agent, urls).unwrap();
    let addresses = vec![([127, 0, 0, 1], 9).into()];
    let address = PeerAddress { id: agent.id(), role: Role::Agent, addresses, zone: Zone::default() };
    let holdings: Vec<_> =
        (0..20u8).map(|number| Holding { digest: Digest::sha256(&[number]), complete: true }).collect();
    let count = holdings.len();
    let announcer =
        Announcer::start(client, tokio::sync::watch::channel(address).1, None, move || holdings.clone());

    let heard = || listeners.iter().map(|one| one.told().len()).sum::<usize>();
    eventually("many announces", || heard() >= 12).await;
    let counts = listeners.each_ref().map(|one| one.told().len());
    assert!(counts.into_iter().min() <= Some(2), "one was only asked whether it shares: {counts:?}");
    let [kept, other] = if counts[0] > counts[1] {
        listeners
    } else {
        let [first, second] = listeners;
        [second, first]
    };
    assert!(kept.told().iter().any(|&(everything, blobs, _)| everything && blobs == count));

    let before = other.told().len();
    let Listener { running, told: told_first } = kept;
    running.shutdown(Duration::ZERO).await;
    eventually("everything at the other", || {
        other.told()[before..].iter().any(|said| (said.0, said.1) == (true, count))
    })
    .await;
    let numbers: Vec<_> = other.told().iter().map(|said| said.2).collect();
    assert!(numbers.is_sorted() && numbers[0] > 0);
    let last_kept = told_first.lock().unwrap().last().unwrap().2;
    assert!(numbers.last() > Some(&last_kept), "it counts on from one tracker to the next");
    announcer.shutdown().await;
}
