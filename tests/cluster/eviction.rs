//! Agents with less room than they are asked for.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use shoal::image::Layer;
use shoal_control::TrackerClient;
use shoal_core::{Digest, Digester, PeerId, Role};
use shoal_identity::{Config, Identity};

use crate::process::{Process, Processes};
use crate::support::{MIB, REPOSITORY, blob_path, eventually};

const FROM_PEERS: &str = "shoal_piece_bytes_received_total{source=\"peer\"}";
const EVICTED: &str = "shoal_store_evictions_total{kind=\"blob\"}";
const BYTES: &str = "shoal_store_bytes";

async fn push(cluster: &Processes, length: u64, seed: u64) -> Layer {
    let layer = tokio::task::spawn_blocking(move || Layer::generate(length, seed)).await.unwrap();
    cluster.origin.client().push_layer(REPOSITORY, layer, |_| ()).await.unwrap();
    layer
}

async fn pull(agent: &Process, layer: Layer) {
    let pulled = agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
}

/// The tracker, as a stranger with a certificate of the cluster asks it.
struct Stranger(TrackerClient);

impl Stranger {
    /// With the certificate of a node whose folder is there.
    fn of(cluster: &Processes, name: &str) -> (Self, PeerId) {
        let directory = cluster.folder(name).join("identity");
        let identity = Identity::load(&Config::at(directory)).unwrap();
        let tracker = TrackerClient::new(&identity, vec![cluster.tracker_url().to_owned()]).unwrap();
        (Self(tracker), identity.id())
    }

    /// Which agents are said to have that blob.
    async fn holders(&self, digest: &Digest) -> Vec<PeerId> {
        let found = self.0.find(None, digest).await.unwrap();
        found.peers.iter().filter(|peer| peer.role == Role::Agent).map(|peer| peer.id).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_gave_up_is_asked_of_it_no_more_and_comes_again_when_it_is_wanted() {
    let cluster = Processes::start().await;
    let (one, two) = (push(&cluster, 16 * MIB, 61).await, push(&cluster, 16 * MIB, 62).await);
    let agent = cluster.agent_with("agent", "capacity = \"24MiB\"\n", "").await;
    let other = cluster.agent("other").await;
    let (stranger, _) = Stranger::of(&cluster, "other");
    let (_, holder) = Stranger::of(&cluster, "agent");
    let knows = async |layer: Layer| stranger.holders(&layer.digest).await.contains(&holder);

    pull(&agent, one).await;
    eventually("the tracker knows", async || knows(one).await.then_some(())).await;
    pull(&agent, two).await;
    eventually("the tracker knows of the second", async || knows(two).await.then_some(())).await;
    eventually("the tracker forgets", async || (!knows(one).await).then_some(())).await;
    assert_eq!(agent.metric(EVICTED).await, 1.0);
    assert_eq!(agent.metric(BYTES).await, two.length() as f64);
    assert_eq!(agent.metric("shoal_store_capacity_bytes").await, 24.0 * MIB as f64);
    assert_eq!(agent.admin("readyz").await.0, 200);

    // The other one stays in the swarm that the agent has left, and finds what it needs.
    pull(&other, one).await;
    assert_eq!(other.metric(FROM_PEERS).await, 0.0);
    pull(&agent, one).await;
    assert_eq!(agent.metric(EVICTED).await, 2.0);
    eventually("the tracker knows again", async || knows(one).await.then_some(())).await;
    assert!(agent.complaints().is_empty(), "{:?}", agent.complaints());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_larger_than_the_store_is_refused_at_once_with_the_reason() {
    let cluster = Processes::start().await;
    let (large, small) = (push(&cluster, 16 * MIB, 63).await, push(&cluster, 4 * MIB, 64).await);
    let agent = cluster.agent_with("agent", "capacity = \"8MiB\"\n", "").await;
    pull(&agent, small).await;
    let asked = Instant::now();
    let response = agent.client().get(&blob_path(&large.digest)).await.unwrap();
    assert_eq!(response.status(), 404);
    let reason = response.text().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(reason.contains("capacity of 8388608: raise store.capacity"), "{reason}");
    assert_eq!(agent.metric("shoal_store_refusals_total").await, 1.0);
    // Nothing went for it.
    assert_eq!(agent.metric(EVICTED).await, 0.0);
    pull(&agent, small).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_needs_room_works_while_another_blob_is_read() {
    let cluster = Processes::start().await;
    let read = push(&cluster, 64 * MIB, 65).await;
    let agent = cluster.agent_with("agent", "capacity = \"80MiB\"\n", "").await;
    pull(&agent, read).await;
    let mut body = agent.client().get(&blob_path(&read.digest)).await.unwrap().bytes_stream();
    let mut digester = Digester::new(read.digest.algorithm());
    digester.update(&body.next().await.unwrap().unwrap());
    for seed in 66..70 {
        let layer = push(&cluster, 12 * MIB, seed).await;
        pull(&agent, layer).await;
    }
    assert_eq!(agent.metric(EVICTED).await, 3.0);
    let response = agent.client().get(&blob_path(&push(&cluster, 24 * MIB, 70).await.digest)).await.unwrap();
    assert_eq!(response.status(), 404);
    let reason = response.text().await.unwrap();
    assert!(reason.contains("in use"), "{reason}");
    while let Some(bytes) = body.next().await {
        digester.update(&bytes.unwrap());
    }
    assert_eq!(digester.finish(), read.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_which_ranges_were_read_make_room_for_a_pull() {
    let cluster = Processes::start().await;
    let agent = cluster.agent_with("agent", "capacity = \"40MiB\"\n", "").await;
    for seed in 80..83 {
        let path = blob_path(&push(&cluster, 12 * MIB, seed).await.digest);
        let response = agent.client().get_range(&path, "bytes=0-9").await.unwrap();
        assert_eq!(response.bytes().await.unwrap().len(), 10);
    }
    pull(&agent, push(&cluster, 24 * MIB, 83).await).await;
    assert_eq!(agent.metric("shoal_store_refusals_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_trusts_its_origins_pulls_as_well() {
    let cluster = Processes::start().await;
    let layer = push(&cluster, 16 * MIB, 71).await;
    let agent = cluster.agent_with("agent", "verify = \"pieces\"\n", "").await;
    pull(&agent, layer).await;
    pull(&agent, layer).await;
}
