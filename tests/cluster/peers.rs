//! What trackers and nodes know of peers: who is handed out and who is not, who hears of whom, and what the commands show.

use std::time::{Duration, Instant};

use serde_json::Value;
use shoal::image::Layer;
use shoal_control::TrackerClient;
use shoal_core::{Digest, PeerId, Role};
use shoal_identity::{Config, Identity};

use crate::faults::push;
use crate::overlay::agents;
use crate::process::{Process, Processes};
use crate::support::{MIB, REPOSITORY, eventually};

const FROM_PEERS: &str = "shoal_piece_bytes_received_total{source=\"peer\"}";
const FROM_ORIGINS: &str = "shoal_piece_bytes_received_total{source=\"origin\"}";
const DIALS_FAILED: &str = "shoal_peer_dials_failed_total";
const REMOVED: &str = "shoal_tracker_reports_total{result=\"removed\"}";

/// So that a blob of some MiB is on its way for seconds.
const SLOW: &str = "[transfer.ingress]\nrate = \"8MB\"\n";
const STORE: &str = "capacity = \"100%\"\n";

fn id(cluster: &Processes, name: &str) -> PeerId {
    identity(cluster, name).id()
}

fn identity(cluster: &Processes, name: &str) -> Identity {
    Identity::load(&Config::at(cluster.folder(name).join("identity"))).unwrap()
}

/// Which agents the tracker names for a blob.
async fn named(cluster: &Processes, asker: &str, digest: &Digest) -> Vec<PeerId> {
    let tracker =
        TrackerClient::new(&identity(cluster, asker), vec![cluster.tracker_url().to_owned()]).unwrap();
    let found = tracker.find(None, digest).await.unwrap();
    found.peers.iter().filter(|peer| peer.role == Role::Agent).map(|peer| peer.id).collect()
}

async fn pull(agent: &Process, layer: Layer) {
    agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
}

/// What `shoal …` prints of a role.
fn show(role: &Process, arguments: &[&str]) -> String {
    let admin = role.admin_address().to_string();
    crate::process::shoal(&[arguments, &["--admin", &admin]].concat())
}

fn show_json(role: &Process, arguments: &[&str]) -> Value {
    serde_json::from_str(&show(role, &[arguments, &["--json"]].concat())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agent_that_three_could_not_reach_is_handed_out_no_more_until_it_is_back() {
    // All processes of a test have one address.
    let cluster = Processes::with_tracker("removal = { reporters = 3, addresses = 1 }\n").await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 101).await;
    let holder = cluster.agent("holder").await;
    pull(&holder, layer).await;
    let dead = id(&cluster, "holder");
    let mut seekers = Vec::new();
    for name in ["one", "two", "three"] {
        seekers.push(cluster.agent(name).await);
    }
    holder.kill();
    assert!(named(&cluster, "one", &layer.digest).await.contains(&dead), "its lease is good for a minute");
    for seeker in &seekers {
        pull(seeker, layer).await;
    }
    eventually("the removal", async || (cluster.tracker.metric(REMOVED).await >= 1.0).then_some(())).await;
    let left = named(&cluster, "one", &layer.digest).await;
    assert!(!left.contains(&dead) && left.len() == 2, "{left:?}");

    let holder = cluster.agent("holder").await;
    assert!(named(&cluster, "one", &layer.digest).await.contains(&dead), "it has announced itself");
    drop(holder);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_only_source_is_gone_goes_on_as_soon_as_another_comes() {
    let mut cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 48 * MIB, 102).await;
    let holder = cluster.agent("holder").await;
    pull(&holder, layer).await;
    assert!(holder.terminate().await);

    let seeker = cluster.agent_with("seeker", STORE, SLOW).await;
    let client = seeker.client();
    let pulling = tokio::spawn(async move { client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await });
    eventually("the first pieces", async || (seeker.metric(FROM_ORIGINS).await > 0.0).then_some(())).await;
    cluster.origin.stop();
    // By then it has asked for others several times, at longer and longer intervals, and the next time is far off.
    eventually("a search in vain", async || {
        let waits = show_json(&cluster.tracker, &["status"])["tracker"]["waiting"].as_u64().unwrap();
        (waits >= 1 && seeker.metric(DIALS_FAILED).await >= 1.0).then_some(())
    })
    .await;
    assert!(!pulling.is_finished());
    assert_eq!(seeker.metric(FROM_PEERS).await, 0.0);
    let holder = cluster.agent("holder").await;
    let came = Instant::now();
    eventually("pieces of the other", async || (seeker.metric(FROM_PEERS).await > 0.0).then_some(())).await;
    println!("the first piece of the new holder after {:?}", came.elapsed());
    assert!(came.elapsed() < Duration::from_secs(2), "{:?}", came.elapsed());
    assert_eq!(pulling.await.unwrap().unwrap().bytes, layer.length());
    drop(holder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_is_back_knows_within_an_announce_interval_who_pulled_meanwhile() {
    let mut cluster = Processes::with_tracker("announce_interval = \"10s\"\nlease = \"30s\"\n").await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 103).await;
    let other = push(&cluster.origin.client(), MIB, 104).await;
    let (agents, _) = agents(&cluster, &["holder", "late", "idle"]).await;
    pull(&agents[0], layer).await;
    eventually("the record of the holder", async || {
        (agents[1].metric("shoal_overlay_records").await >= 1.0).then_some(())
    })
    .await;
    cluster.tracker.stop();
    pull(&agents[1], layer).await;
    eventually("an announce in vain", async || {
        agents[1].complaints().iter().any(|line| line.contains("announce failed")).then_some(())
    })
    .await;
    cluster.start_tracker();
    let back = Instant::now();
    let swarm = format!("{}", layer.digest);
    let holders = eventually("both holders", async || {
        let shown = show_json(&cluster.tracker, &["swarm", &swarm]);
        (shown["holders"]["total"] == 2).then(|| shown["holders"]["entries"].clone())
    })
    .await;
    assert!(back.elapsed() < ANNOUNCE_INTERVAL + SLACK, "{:?}", back.elapsed());
    let expected = [id(&cluster, "holder"), id(&cluster, "late")].map(|id| id.to_string());
    for holder in holders.as_array().unwrap() {
        assert_eq!(holder["state"], "complete", "{holder}");
        assert!(expected.contains(&holder["id"].as_str().unwrap().to_owned()), "{holder}");
    }
    eventually("the origin", async || {
        let nodes = show_json(&cluster.tracker, &["status"]);
        (nodes["tracker"]["origins"] == 1).then_some(())
    })
    .await;
    assert!(back.elapsed() < ANNOUNCE_INTERVAL + SLACK, "{:?}", back.elapsed());
    println!("all known again after {:?}", back.elapsed());
    let mut named = named(&cluster, "idle", &layer.digest).await;
    named.sort();
    let mut both = vec![id(&cluster, "holder"), id(&cluster, "late")];
    both.sort();
    assert_eq!(named, both);
    pull(&agents[2], other).await;
}

/// Of the tracker that forgets everything: whoever missed that it was away announces itself so much later at most.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);
/// What a busy machine may take to start a command, and to answer it.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn status_peers_and_swarm_show_a_pull_as_it_goes() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 128 * MIB, 105).await;
    let agent = cluster.agent_with("agent", STORE, SLOW).await;
    let client = agent.client();
    let pulling = tokio::spawn(async move { client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await });
    eventually("the first pieces", async || (agent.metric(FROM_ORIGINS).await > 0.0).then_some(())).await;
    let digest = layer.digest.to_string();
    let (own, origin_id) = (id(&cluster, "agent").to_string(), id(&cluster, "origin").to_string());

    let status = show_json(&agent, &["status", "--over", "1500"]);
    assert_eq!(
        (&status["role"], &status["id"], &status["name"]),
        (&"agent".into(), &own.as_str().into(), &"agent".into())
    );
    assert!(status["not_ready"].is_null() && status["certificate_ends"].as_str().unwrap().ends_with('Z'));
    let node = &status["node"];
    assert_eq!(node["trackers"][0]["url"], cluster.tracker_url());
    assert!(node["trackers"][0]["error"].is_null(), "{node}");
    let fetch = &node["fetches"]["entries"][0];
    assert_eq!((&fetch["digest"], &fetch["length"]), (&digest.as_str().into(), &layer.length().into()));
    assert!((1..layer.length()).contains(&fetch["bytes"].as_u64().unwrap()), "{fetch}");
    let rate = node["rates"]["received"].as_u64().unwrap();
    assert!((1_000_000..10_000_000).contains(&rate), "{rate} bytes a second of at most 8 MB");

    let peers = show_json(&agent, &["peers"]);
    let peer = &peers["entries"][0];
    assert_eq!((&peers["total"], &peers["truncated"]), (&1.into(), &false.into()));
    assert_eq!(
        (&peer["id"], &peer["role"], &peer["blobs"]),
        (&origin_id.as_str().into(), &"origin".into(), &1.into())
    );
    assert!(peer["received"].as_u64().unwrap() > 0 && peer["requests"].as_u64().unwrap() > 0, "{peer}");

    let swarm = show_json(&agent, &["swarm", &digest]);
    let (have, pieces) = (swarm["own"]["have"].as_u64().unwrap(), swarm["own"]["pieces"].as_u64().unwrap());
    assert!(have > 0 && have < pieces, "{swarm}");
    assert_eq!(swarm["members"]["entries"][0]["have"], pieces, "the origin has all of it");

    // The other end of the same connection.
    let peers = show_json(&cluster.origin, &["peers"]);
    assert_eq!(peers["entries"][0]["id"], own.as_str());
    assert!(peers["entries"][0]["sent"].as_u64().unwrap() > 0);
    let status = show_json(&cluster.origin, &["status"]);
    assert!(status["node"]["store"]["used"].as_u64().unwrap() >= layer.length());
    assert!(status["node"]["store"]["free"].as_u64().unwrap() > 0);

    let status = show_json(&cluster.tracker, &["status"]);
    assert_eq!((&status["tracker"]["agents"], &status["tracker"]["origins"]), (&1.into(), &1.into()));
    let nodes = show_json(&cluster.tracker, &["peers"]);
    let mut ids: Vec<_> =
        nodes["entries"].as_array().unwrap().iter().map(|node| node["id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    let mut expected: Vec<Value> = vec![own.clone().into(), origin_id.clone().into()];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(ids, expected);
    let page = show_json(&cluster.tracker, &["peers", "--limit", "1"]);
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["truncated"]), (1, &true.into()));
    let holders = show_json(&cluster.tracker, &["swarm", &digest]);
    assert_eq!(holders["holders"]["entries"][0]["id"], own.as_str());
    assert_ne!(holders["holders"]["entries"][0]["state"], "complete");
    assert!(!pulling.is_finished(), "the pull was over before all was shown: make the blob longer");

    let text = show(&agent, &["status"]);
    assert!(text.contains("role              agent of cluster") && text.contains(&digest), "{text}");
    assert!(show(&agent, &["peers"]).contains(&origin_id));
    assert!(show(&agent, &["swarm", &digest]).contains("pieces ("));
    assert!(show(&cluster.tracker, &["peers"]).contains("2 of 2"));
    pulling.abort();
}

#[test]
fn who_asks_a_port_at_which_nobody_listens_is_told_what_to_do() {
    let port = crate::process::free_port();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_shoal"));
    let output = command.args(["status", "--admin", &format!("127.0.0.1:{port}")]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is the role running") && said.contains("--admin"), "{said}");
}
