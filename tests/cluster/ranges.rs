//! Requests for parts of blobs that are not there.

use futures_util::StreamExt;
use futures_util::future::join_all;
use shoal::image::Layer;

use crate::faults::push;
use crate::process::{Process, Processes};
use crate::support::{Fixture, MIB, REPOSITORY, blob_path, eventually, slice};

async fn read(fixture: &Fixture, layer: Layer, start: u64, end: u64) {
    let range = format!("bytes={start}-{}", end - 1);
    let response = fixture.agent(0).get_range(&blob_path(&layer.digest), &range).await.unwrap();
    assert_eq!(response.status(), 206);
    assert!(response.bytes().await.unwrap() == slice(layer, start, end), "other bytes in {range}");
}

fn received(fixture: &Fixture) -> u64 {
    fixture.cluster.agent(0).stats().bytes_from_origins
}

async fn is_whole(fixture: &Fixture, layer: Layer) {
    let store = fixture.cluster.agent(0).store();
    eventually("the whole blob", async || store.blob(&layer.digest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_range_costs_its_piece_and_ranges_of_everything_the_blob() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(64 * MIB, 81).await;
    read(&fixture, layer, 30 * MIB + 5, 30 * MIB + 1029).await;
    assert_eq!(received(&fixture), MIB);
    // As clients pull that open several connections for a layer.
    let ends = (1..8).map(|part| part * 8 * MIB).chain([layer.length()]);
    join_all(ends.zip(0..).map(|(end, part)| read(&fixture, layer, part * 8 * MIB, end))).await;
    is_whole(&fixture, layer).await;
    assert_eq!(received(&fixture), layer.length());
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_clients_cut_cost_what_was_read_ahead_and_a_pull_gets_the_rest() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(256 * MIB, 82).await;
    let path = blob_path(&layer.digest);
    let client = fixture.agent(0);
    let cut = join_all([32, 160].map(async |start| {
        let response = client.get_range(&path, &format!("bytes={}-", start * MIB)).await.unwrap();
        let mut body = response.bytes_stream();
        body.next().await.unwrap().unwrap();
    }));
    cut.await;
    // Each had 8 MiB ahead of it, and what the sockets on the way hold.
    read(&fixture, layer, 0, 1024).await;
    assert!(received(&fixture) < 64 * MIB, "{} MiB", received(&fixture) / MIB);

    let pulled = client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
    is_whole(&fixture, layer).await;
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_prefetched_and_what_ends_soon_is_as_the_agent_is_configured() {
    let received = async |agent: &Process| {
        let from = async |source| {
            agent.metric(&format!("shoal_piece_bytes_received_total{{source=\"{source}\"}}")).await
        };
        from("origin").await + from("peer").await
    };
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 24 * MIB, 83).await;
    let path = blob_path(&layer.digest);
    let agent = |name, ranges: &'static str| cluster.agent_with(name, "capacity = \"100%\"\n", ranges);

    let eager = agent("eager", "[ranges]\nprefetch = \"always\"\n").await;
    let response = eager.client().get_range(&path, "bytes=9000000-9000099").await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 100);
    let all = async || (received(&eager).await >= layer.length() as f64).then_some(());
    eventually("the rest of the blob", all).await;

    // Each fetch ends as soon as nobody reads, and begins anew with the next range.
    let hasty = agent("hasty", "[ranges]\nidle_timeout = \"0s\"\n").await;
    let client = hasty.client();
    join_all((0..4).map(async |reader| {
        for step in 0..6 {
            let start = (reader * 6 + step) * MIB;
            let response = client.get_range(&path, &format!("bytes={start}-{}", start + 99)).await.unwrap();
            assert_eq!(response.status(), 206);
            assert!(response.bytes().await.unwrap() == slice(layer, start, start + 100));
        }
    }))
    .await;
    assert_eq!(received(&hasty).await, (24 * MIB) as f64);
}
