//! Roles that are killed, stopped, or away.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use shoal::client::Client;
use shoal::image::{Image, Layer};
use shoal_core::Digest;

use crate::process::Processes;
use crate::support::{MIB, REPOSITORY, blob_path, eventually};

const FROM_PEERS: &str = "shoal_piece_bytes_received_total{source=\"peer\"}";
const FROM_ORIGINS: &str = "shoal_piece_bytes_received_total{source=\"origin\"}";

pub(crate) async fn push(origin: &Client, length: u64, seed: u64) -> Layer {
    let layer = tokio::task::spawn_blocking(move || Layer::generate(length, seed)).await.unwrap();
    origin.push_layer(REPOSITORY, layer, |_| ()).await.unwrap();
    layer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_in_mid_download_resumes_and_serves_no_wrong_byte() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 1536 * MIB, 21).await;
    let agent = cluster.agent("agent").await;
    let client = agent.client();
    let pull = tokio::spawn(async move { client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await });
    // What is not yet on disk for sure when the agent dies is fetched again: on a busy machine that may be much.
    let partials = cluster.folder("agent").join("data/partial");
    eventually("100 marked pieces", async || (marked_pieces(&partials) > 100).then_some(())).await;
    agent.kill();
    assert!(
        pull.await.unwrap().is_err(),
        "the pull was over before the agent was killed: make the blob longer"
    );

    let agent = cluster.agent("agent").await;
    let pulled = agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
    let again = agent.metric(FROM_ORIGINS).await;
    assert!(again < layer.length() as f64 - 50.0 * MIB as f64, "{again} bytes were fetched again");
}

/// How many bits are set in the bitfields of a folder of partials.
fn marked_pieces(partials: &std::path::Path) -> u32 {
    let files = std::fs::read_dir(partials).into_iter().flatten().filter_map(Result::ok);
    let fields =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|it| it == "bitfield"));
    fields.filter_map(|path| std::fs::read(path).ok()).flatten().map(u8::count_ones).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_killed_in_mid_transfer_costs_a_retry_and_not_the_pull() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 512 * MIB, 22).await;
    let first = cluster.agent("first").await;
    first.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    let second = cluster.agent("second").await;
    let client = second.client();
    let pull = tokio::spawn(async move { client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await });
    eventually("bytes from the peer", async || {
        (second.metric(FROM_PEERS).await > 32.0 * MIB as f64).then_some(())
    })
    .await;
    assert!(!pull.is_finished(), "the pull was over before the peer was killed: make the blob longer");
    first.kill();
    assert_eq!(pull.await.unwrap().unwrap().bytes, layer.length());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_origin_away_a_manifest_is_404_in_time_and_a_blob_in_flight_is_cut() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 768 * MIB, 23).await;
    let agent = cluster.agent("agent").await;
    let client = agent.client();
    let response = client.get(&blob_path(&layer.digest)).await.unwrap();
    let promised = response.content_length().unwrap();
    let mut body = response.bytes_stream();
    let mut came = body.next().await.unwrap().unwrap().len() as u64;
    cluster.origin.kill();
    let mut cut = false;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(bytes) => came += bytes.len() as u64,
            Err(error) => {
                // The agent cuts; the client's patience is longer.
                assert!(!error.is_timeout(), "the body hung: {error}");
                cut = true;
                break;
            }
        }
    }
    assert!(cut && came < promised, "{came} of {promised} bytes came, cut: {cut}");

    for reference in ["latest".to_owned(), Digest::sha256(b"not held").to_string()] {
        let asked = Instant::now();
        let response = client.get(&format!("v2/{REPOSITORY}/manifests/{reference}")).await.unwrap();
        assert_eq!(response.status(), 404);
        assert!(asked.elapsed() < Duration::from_secs(5), "answered after {:?}", asked.elapsed());
    }
}

/// What a runtime sees of a manifest that cannot be had: 404 with JSON, soon enough to turn to the next mirror.
async fn assert_unknown_in_time(client: &Client, reference: &str, case: &str) {
    let asked = Instant::now();
    let response = client.get(&format!("v2/{REPOSITORY}/manifests/{reference}")).await.unwrap();
    assert_eq!(response.status(), 404, "{case}: {reference}");
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "MANIFEST_UNKNOWN", "{case}: {body}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{case}: {reference} after {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_nobody_alive_has_is_404_in_time_even_if_the_tracker_knows_it() {
    let cluster = Processes::start().await;
    let image = Image::generate(MIB, 1, 26);
    cluster.origin.client().push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
    let agent = cluster.agent("agent").await;
    let client = agent.client();
    let digest = Digest::sha256(&image.manifest);
    // The question for its length makes the tracker, and the agent, keep its metainfo; no byte of it comes.
    assert_eq!(client.get_range(&blob_path(&digest), "bytes=9999-").await.unwrap().status(), 416);

    cluster.origin.freeze();
    for reference in ["latest", &digest.to_string()] {
        assert_unknown_in_time(&client, reference, "origin frozen").await;
    }
    cluster.origin.thaw();
    let Processes { origin, tracker, .. } = &cluster;
    eventually("the manifest", async || client.pull_manifest(REPOSITORY, "latest").await.ok()).await;
    assert_eq!(client.pull_manifest(REPOSITORY, "latest").await.unwrap(), image.manifest);
    tracker.freeze();
    assert_unknown_in_time(&client, &Digest::sha256(b"not held").to_string(), "tracker frozen").await;
    assert_eq!(client.pull_manifest(REPOSITORY, &digest.to_string()).await.unwrap(), image.manifest);
    origin.freeze();
    assert_unknown_in_time(&client, "no-such-tag", "both frozen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_blob() {
    // CI says 4096 (`.ci/run`).
    let mib = std::env::var("TEST_BLOB_MIB").map_or(1024, |text| text.parse().unwrap());
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), mib * MIB, 24).await;
    let agent = cluster.agent("agent").await;
    let pulled = agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
    for (name, process) in [("agent", &agent), ("origin", &cluster.origin)] {
        let peak = process.peak_memory();
        println!("{name}: peak {} MiB for a blob of {mib} MiB", peak / MIB);
        assert!(peak < 200 * MIB, "{name}: peak {} MiB", peak / MIB);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_tells_its_health_and_ends_on_sigterm() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), MIB, 25).await;
    let agent = cluster.agent("agent").await;
    agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert!(agent.metric(FROM_ORIGINS).await >= MIB as f64);
    assert!(agent.metric("shoal_registry_pulls_total").await >= 1.0);
    assert!(agent.metric("shoal_store_bytes").await >= MIB as f64);
    for process in [&agent, &cluster.origin, &cluster.tracker] {
        assert_eq!(process.admin("healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(process.admin("readyz").await.0, 200);
        assert!(process.admin("metrics").await.1.contains("# TYPE shoal_"));
    }
    assert!(cluster.folder("agent").join("data").exists());
    let Processes { tracker, origin, .. } = cluster;
    for process in [agent, origin, tracker] {
        assert!(process.terminate().await);
    }
}
