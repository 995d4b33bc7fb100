//! Nodes of the overlay among themselves, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus::Registry;
use shoal_control::overlay::{Config, Holder, Library, Member, Overlay};
use shoal_control::{ControlError, TrackerClient};
use shoal_core::{Digest, Metainfo, PeerAddress, RepositoryName, Role, SignedMetainfo, Zone};
use shoal_identity::{Authority, Identity, Outcast};

const CONTENT: &[u8] = b"a blob that nodes of the overlay hold";
const HOUR: Duration = Duration::from_secs(3600);

/// An authority, and one of its origins.
struct Cluster {
    authority: Authority,
    origin: Identity,
}

struct Node {
    overlay: Overlay,
    identity: Identity,
    metrics: Registry,
}

impl Cluster {
    fn new() -> Self {
        shoal_identity::install_crypto_provider();
        let authority = Authority::generate("test").unwrap();
        let origin = authority.issue(Role::Origin, "origin").unwrap();
        Self { authority, origin }
    }

    fn signed(&self) -> SignedMetainfo {
        let metainfo = Metainfo::of(CONTENT).unwrap();
        SignedMetainfo { proof: self.origin.sign(&metainfo), metainfo }
    }

    async fn node(&self, name: &str, join: &[&Node], holds: Option<SignedMetainfo>) -> Node {
        let identity = self.authority.issue(Role::Agent, name).unwrap();
        start(identity, join, holds, None).await
    }
}

async fn start(
    identity: Identity,
    join: &[&Node],
    holds: Option<SignedMetainfo>,
    trackers: Option<TrackerClient>,
) -> Node {
    let join = join.iter().map(|node| node.overlay.local_address().to_string()).collect();
    let config = Config { join, ..Config::new(([127, 0, 0, 1], 0).into()) };
    let address = PeerAddress {
        id: identity.id(),
        role: identity.role(),
        addresses: vec![([0, 0, 0, 0], 16002).into()],
        zone: Zone::default(),
    };
    let tracker_url = (identity.role() == Role::Tracker).then(|| "https://127.0.0.1:9".to_owned());
    let library = library(holds.clone());
    let address = tokio::sync::watch::channel(address).1;
    let member = Member { identity: identity.clone(), address, library, trackers, tracker_url };
    let metrics = Registry::new();
    let overlay = Overlay::start(&config, member, &metrics).await.unwrap();
    if holds.is_some() {
        overlay.handle().used(Digest::sha256(CONTENT));
    }
    Node { overlay, identity, metrics }
}

/// One that has this blob, in the repository `team/app`.
fn library(holds: Option<SignedMetainfo>) -> Library {
    Arc::new(move |repository: Option<RepositoryName>, _| {
        let is_linked = repository.is_none_or(|name| name.as_str() == "team/app");
        let held = holds.clone().filter(|_| is_linked);
        Box::pin(async move { held.map(|metainfo| Holder { metainfo, lent: HOUR }) })
    })
}

impl Node {
    async fn find(&self) -> Result<shoal_control::overlay::FoundByOverlay, ControlError> {
        let repository = RepositoryName::parse("team/app").unwrap();
        self.overlay.handle().find(Some(&repository), &Digest::sha256(CONTENT)).await
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        metrics.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let (started, mut pause) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    loop {
        pause.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_found_at_a_node_that_was_never_named() {
    let cluster = Cluster::new();
    let meeting = cluster.node("meeting", &[], None).await;
    let holder = cluster.node("holder", &[&meeting], Some(cluster.signed())).await;
    let seeker = cluster.node("seeker", &[&meeting], None).await;
    let found = eventually("the blob", async || seeker.find().await.ok()).await;
    assert_eq!(found.found.metainfo, cluster.signed());
    assert_eq!(found.lent, Some(HOUR));
    let [peer] = &found.found.peers[..] else { panic!("{found:?}") };
    assert_eq!((peer.id, peer.role), (holder.identity.id(), Role::Agent));
    // Said was the unspecified address: that of the connection stands for it.
    assert_eq!(peer.addresses, ["127.0.0.1:16002".parse().unwrap()]);

    let other = RepositoryName::parse("other").unwrap();
    let refused = seeker.overlay.handle().find(Some(&other), &Digest::sha256(CONTENT)).await;
    assert!(matches!(refused, Err(ControlError::Unavailable { .. })), "{refused:?}");
    holder.overlay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metainfo_that_no_origin_signed_is_refused_and_its_bearer_is_kept_out() {
    let cluster = Cluster::new();
    let meeting = cluster.node("meeting", &[], None).await;
    let metainfo = Metainfo::of(CONTENT).unwrap();
    let liar = cluster.authority.issue(Role::Agent, "liar").unwrap();
    let forged = SignedMetainfo { proof: liar.sign(&metainfo), metainfo };
    let liar = start(liar, &[&meeting], Some(forged), None).await;
    let seeker = cluster.node("seeker", &[&meeting], None).await;
    eventually("the lie", async || {
        assert!(seeker.find().await.is_err());
        (seeker.metric("shoal_overlay_refused_total") > 0.0).then_some(())
    })
    .await;
    let holder = cluster.node("holder", &[&meeting], Some(cluster.signed())).await;
    let found = eventually("the truth", async || seeker.find().await.ok()).await;
    let peers: Vec<_> = found.found.peers.iter().map(|peer| peer.id).collect();
    assert_eq!(peers, [holder.identity.id()]);
    drop(liar);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_does_not_come_in() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let meeting = cluster.node("meeting", &[], None).await;
    // It has the same cluster's name, and so the same pre-shared key.
    let stranger = other.node("stranger", &[&meeting], None).await;
    eventually("the refusal", async || (meeting.metric("shoal_overlay_refused_total") > 0.0).then_some(()))
        .await;
    assert_eq!((meeting.overlay.peers(), stranger.overlay.peers()), (0, 0));
    let friend = cluster.node("friend", &[&meeting], None).await;
    eventually("the friend", async || (friend.overlay.peers() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_revoked_loses_its_connections_and_finds_nothing_more() {
    let cluster = Cluster::new();
    let holder = cluster.node("holder", &[], Some(cluster.signed())).await;
    let outcast = cluster.node("outcast", &[&holder], None).await;
    eventually("the holder", async || outcast.find().await.ok()).await;
    let revoked = Outcast::Node(outcast.identity.id());
    let list = cluster.authority.revoke(None, revoked, SystemTime::now()).unwrap();
    holder.identity.revoke(list.text()).unwrap();
    eventually("the end", async || (outcast.overlay.peers() == 0).then_some(())).await;
    eventually("its refusal", async || outcast.find().await.err()).await;
    assert_eq!(holder.overlay.peers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_of_trackers_by_gossip() {
    let cluster = Cluster::new();
    let meeting = cluster.node("meeting", &[], None).await;
    let tracker = cluster.authority.issue(Role::Tracker, "tracker").unwrap();
    let _tracker = start(tracker, &[&meeting], None, None).await;
    let agent = cluster.authority.issue(Role::Agent, "agent").unwrap();
    let trackers = TrackerClient::new(&agent, vec![]).unwrap();
    let _agent = start(agent, &[&meeting], None, Some(trackers.clone())).await;
    eventually("the tracker", async || {
        let error = trackers.find(None, &Digest::sha256(CONTENT)).await.unwrap_err();
        // It is asked, and is not there.
        matches!(error, ControlError::Unavailable { url, .. } if url == "https://127.0.0.1:9").then_some(())
    })
    .await;
}
