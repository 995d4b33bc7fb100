//! Announces over real TLS: who may say what, and what the announcer keeps a tracker informed of.

#![allow(clippy::unwrap_used)] // In a test it is the assertion.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_control::message::{AnnounceRequest, ErrorReply, FindRequest, path};
use shoal_control::{Announcer, ControlError, Holding};
use shoal_core::{Digest, Role};
use shoal_identity::Identity;
use shoal_tracker::{BindError, Config, Tracker};
use support::{Cluster, Node, complete, config, eventually};

const BLOB: &[u8] = b"a layer";

fn denied(error: &ControlError) -> u16 {
    let ControlError::Denied { status, .. } = error else { panic!("not refused: {error:?}") };
    *status
}

/// A client that can say anything.
fn raw_client(identity: &Identity) -> reqwest::Client {
    let tls = identity.client_config(&[Role::Tracker], &[b"http/1.1"]);
    reqwest::Client::builder().tls_backend_preconfigured(tls.as_ref().clone()).no_proxy().build().unwrap()
}

#[tokio::test]
async fn an_agent_cannot_announce_another() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let [honest, victim] = ["honest", "victim"].map(|name| cluster.agent(name, &[&tracker]));
    let error = honest.client.announce(&victim.address, None, &[], &[], false).await.unwrap_err();
    assert_eq!(denied(&error), 403);
    let mut as_origin = honest.address.clone();
    as_origin.role = Role::Origin;
    let error =
        honest.client.announce(&as_origin, Some("https://honest:1"), &[], &[], false).await.unwrap_err();
    assert_eq!(denied(&error), 403);
    assert_eq!(tracker.metric("shoal_tracker_nodes", ""), 0.0);
}

#[tokio::test]
async fn a_tracker_is_no_client_of_a_tracker() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let other = cluster.node(Role::Tracker, "other", &[&tracker]);
    let error = other.client.find(None, &Digest::sha256(BLOB)).await.unwrap_err();
    assert_eq!(denied(&error), 403);
}

#[tokio::test]
async fn without_a_certificate_nobody_is_heard() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap();
    let url = format!("{}{}", tracker.url(), path::LEAVE);
    client.post(url).body("{}").send().await.unwrap_err();
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_worth_nothing() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let stranger = Cluster::new().agent("stranger", &[&tracker]);
    let error = stranger.client.announce(&stranger.address, None, &[], &[], false).await.unwrap_err();
    assert!(matches!(error, ControlError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn only_a_tracker_can_be_a_tracker() {
    let cluster = Cluster::new();
    let agent = cluster.identity(Role::Agent, "agent");
    let outcome = Tracker::bind(config(), agent, &prometheus::Registry::new()).await;
    assert!(matches!(outcome, Err(BindError::Role(Role::Agent))));
}

#[tokio::test]
async fn garbage_is_answered_by_a_reason() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let client = raw_client(&cluster.identity(Role::Agent, "agent"));
    for (path, body, status) in [
        (path::FIND, "", 400),
        (path::FIND, "{\"digest\": \"md5:00\"}", 400),
        (path::FIND, "[[[[[[[[", 400),
        (path::ANNOUNCE, "{}", 400),
        (path::LEAVE, "\u{0}", 400),
        ("/v1/nothing", "{}", 404),
    ] {
        let reply = client.post(format!("{}{path}", tracker.url())).body(body).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), status, "{path} {body:?}");
        let reply: ErrorReply = reply.json().await.unwrap();
        assert!(!reply.error.is_empty());
    }
    let reply = client.get(format!("{}{}", tracker.url(), path::FIND)).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 405);
}

#[tokio::test]
async fn requests_that_are_too_long_are_refused() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let client = raw_client(&cluster.identity(Role::Agent, "agent"));
    for (path, limit) in
        [(path::FIND, FindRequest::MAX_LENGTH), (path::ANNOUNCE, AnnounceRequest::MAX_LENGTH)]
    {
        let body = " ".repeat(limit + 1);
        let reply = client.post(format!("{}{path}", tracker.url())).body(body).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 413, "{path}");
        reply.json::<ErrorReply>().await.unwrap();
    }
    let agent = cluster.agent("agent", &[&tracker]);
    let many = vec![Digest::sha256(BLOB); AnnounceRequest::MAX_CHANGES + 1];
    let error = agent.client.announce(&agent.address, None, &[], &many, false).await.unwrap_err();
    assert_eq!(denied(&error), 413);
}

#[tokio::test]
async fn a_full_tracker_says_so() {
    let cluster = Cluster::new();
    let mut config = config();
    config.limits.max_nodes = 1;
    let tracker = cluster.tracker(config).await;
    let [first, second] = ["first", "second"].map(|name| cluster.agent(name, &[&tracker]));
    first.announce(&[]).await;
    let error = second.client.announce(&second.address, None, &[], &[], false).await.unwrap_err();
    assert_eq!(denied(&error), 429);
    assert!(error.to_string().contains("limits.max_nodes"), "{error}");
    first.client.leave().await.unwrap();
    second.announce(&[]).await;
}

#[tokio::test]
async fn a_restarted_tracker_asks_for_everything() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let agent = cluster.agent("agent", &[&tracker]);
    let send_all = async |everything| {
        let announced = agent.client.announce(&agent.address, None, &[], &[], everything).await.unwrap();
        assert_eq!(announced.interval_ms, 20_000);
        announced.send_all
    };
    assert!(send_all(false).await, "unknown yet");
    assert!(!send_all(false).await, "known now");
    let listen = tracker.tracker.local_address();
    tracker.tracker.shutdown().await;
    let _tracker = cluster.tracker(Config { listen, ..config() }).await;
    assert!(send_all(false).await, "unknown again");
    assert!(!send_all(true).await, "that was everything");
    assert!(!send_all(false).await);
}

/// An agent whose announcer tells what is in `holdings`.
struct Announcing {
    node: Node,
    holdings: Arc<Mutex<Vec<Holding>>>,
    announcer: Announcer,
}

impl Announcing {
    fn start(node: Node, holdings: Vec<Holding>) -> Self {
        let holdings = Arc::new(Mutex::new(holdings));
        let snapshot = {
            let holdings = Arc::clone(&holdings);
            move || holdings.lock().unwrap().clone()
        };
        let announcer = Announcer::start(
            node.client.clone(),
            tokio::sync::watch::channel(node.address.clone()).1,
            None,
            snapshot,
        );
        Self { node, holdings, announcer }
    }

    fn add(&self, holding: Holding) {
        self.holdings.lock().unwrap().push(holding);
        self.announcer.handle().added(holding);
    }

    fn remove(&self, digest: Digest) {
        self.holdings.lock().unwrap().retain(|holding| holding.digest != digest);
        self.announcer.handle().removed(digest);
    }

    async fn settled(&self) {
        let handle = self.announcer.handle();
        tokio::time::timeout(Duration::from_secs(10), handle.settled())
            .await
            .expect("the tracker knows in time");
    }
}

fn quick() -> Config {
    Config { announce_interval: Duration::from_millis(200), lease: Duration::from_secs(5), ..config() }
}

#[tokio::test]
async fn the_announcer_keeps_the_tracker_informed() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let blobs: [&[u8]; 2] = [b"first", b"second"];
    let [first, second] = blobs.map(Digest::sha256);
    let origin = cluster.origin(&[&tracker], "app", &blobs).await;
    let asker = cluster.agent("asker", &[&tracker]);
    let agent = Announcing::start(cluster.agent("agent", &[&tracker]), vec![complete(first)]);
    let (here, seed) = (agent.node.identity.id(), origin.node.identity.id());

    agent.settled().await;
    assert_eq!(asker.peers(&first).await, [here, seed], "what it had from the start");
    agent.add(complete(second));
    agent.remove(first);
    agent.settled().await;
    assert_eq!(
        asker.peers(&second).await,
        [here, seed],
        "what it got, long before the lease must be renewed"
    );
    assert_eq!(asker.peers(&first).await, [seed], "and not what it lost");
    agent.announcer.shutdown().await;
    assert_eq!(asker.peers(&second).await, [seed], "it said goodbye");
}

#[tokio::test]
async fn more_than_a_batch_goes_in_several() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let count = AnnounceRequest::MAX_CHANGES + 1;
    let holdings = (0..count).map(|number| complete(Digest::sha256(&number.to_le_bytes()))).collect();
    let agent = Announcing::start(cluster.agent("agent", &[&tracker]), holdings);
    agent.settled().await;
    assert_eq!(tracker.metric("shoal_tracker_swarm_entries", ""), count as f64);
    assert_eq!(tracker.metric("shoal_tracker_announces_total", "taken"), 2.0);
}

#[tokio::test]
async fn the_announcer_tells_a_restarted_tracker_everything() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(quick()).await;
    let agent = Announcing::start(cluster.agent("agent", &[&tracker]), vec![complete(Digest::sha256(BLOB))]);
    agent.settled().await;
    let listen = tracker.tracker.local_address();
    tracker.tracker.shutdown().await;
    let tracker = cluster.tracker(Config { listen, ..quick() }).await;
    eventually("the tracker knows again what the agent has", || async {
        tracker.metric("shoal_tracker_swarm_entries", "") == 1.0
    })
    .await;
}

#[tokio::test]
async fn each_of_several_trackers_knows_its_share_and_more_while_another_is_away() {
    let cluster = Cluster::new();
    let mut trackers =
        [cluster.tracker(quick()).await, cluster.tracker(quick()).await, cluster.tracker(quick()).await];
    let holdings: Vec<_> = (0..60u8).map(|number| complete(Digest::sha256(&[number]))).collect();
    let node = cluster.agent("agent", &trackers.each_ref());
    let agent = Announcing::start(node, holdings);
    agent.settled().await;
    let entries = |tracker: &support::TestTracker| tracker.metric("shoal_tracker_swarm_entries", "");
    let sum = |trackers: &[support::TestTracker]| trackers.iter().map(entries).sum::<f64>();
    assert_eq!(sum(&trackers), 120.0, "each blob is known to two");
    assert!(trackers.iter().all(|tracker| entries(tracker) < 60.0));

    let [first, others @ ..] = &mut trackers;
    let (listen, share) = (first.tracker.local_address(), entries(first));
    let stopped = std::mem::replace(first, cluster.tracker(quick()).await);
    stopped.tracker.shutdown().await;
    eventually("the others know all between them", || async { sum(others) == 120.0 }).await;
    agent.add(complete(Digest::sha256(b"another")));
    agent.settled().await;
    assert_eq!(sum(others), 122.0);
    agent.remove(Digest::sha256(b"another"));
    *first = cluster.tracker(Config { listen, ..quick() }).await;
    eventually("the first knows its share again", || async { entries(first) == share }).await;
    agent.settled().await;
    assert_eq!(sum(others), 120.0, "what the others know beside their share is true");
}
