//! Pulls through agents, in one process.

use futures_util::StreamExt;
use serde_json::Value;
use shoal::image::Image;
use shoal_core::{Digest, PieceIndex};
use shoal_store::Entry;

use crate::support::{Fixture, MIB, REPOSITORY, blob_path, eventually, slice};

/// How many of a blob's pieces an agent has, and of how many; all, once it is whole.
fn progress(fixture: &Fixture, agent: usize, digest: &Digest) -> (u32, u32) {
    match fixture.cluster.agent(agent).store().entry(digest) {
        Some(Entry::Partial(partial)) => {
            (partial.bitfield().count(), partial.metainfo().geometry().piece_count())
        }
        Some(Entry::Whole(blob)) => {
            let count = blob.metainfo().geometry().piece_count();
            (count, count)
        }
        None => (0, 0),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_through_every_agent_and_mostly_from_peers() {
    let fixture = Fixture::start(3).await;
    let image = Image::generate(48 * MIB, 4, 1);
    fixture.origin().push(REPOSITORY, "1", &image, |_| ()).await.unwrap();
    let pull = async |agent: usize| {
        let client = fixture.agent(agent);
        assert_eq!(client.pull_manifest(REPOSITORY, "1").await.unwrap(), image.manifest);
        for layer in &image.layers {
            let pulled = client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
            assert_eq!(pulled.bytes, layer.length());
        }
    };
    pull(0).await;
    assert_eq!(fixture.cluster.agent(0).stats().bytes_from_peers, 0);
    // The next has a peer that holds everything.
    pull(1).await;
    let stats = fixture.cluster.agent(1).stats();
    assert!(stats.bytes_from_peers > stats.bytes_from_origins, "{stats:?}");
    pull(2).await;
    // A second pull moves nothing.
    let before = fixture.cluster.agent(2).stats();
    pull(2).await;
    let after = fixture.cluster.agent(2).stats();
    assert_eq!(
        after.bytes_from_peers + after.bytes_from_origins,
        before.bytes_from_peers + before.bytes_from_origins
    );
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_comes_before_a_twentieth_of_the_pieces() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(1024 * MIB, 2).await;
    let response = fixture.agent(0).get(&blob_path(&layer.digest)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.content_length(), Some(layer.length()));
    let mut body = response.bytes_stream();
    let first = body.next().await.unwrap().unwrap();
    let (have, of) = progress(&fixture, 0, &layer.digest);
    assert!(!first.is_empty());
    assert!(of >= 1024 && have * 20 < of, "{have} of {of} pieces were in when the first byte came");
    drop(body);
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_costs_the_next_one_nothing() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(64 * MIB, 3).await;
    let client = fixture.agent(0);
    let mut body = client.get(&blob_path(&layer.digest)).await.unwrap().bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    let pulled = client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
    // Both readers were fed by one fetch: no byte came twice.
    let stats = fixture.cluster.agent(0).stats();
    assert!(stats.bytes_from_origins < layer.length() + 8 * MIB, "{stats:?}");
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_blob_share_one_fetch() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(64 * MIB, 4).await;
    let client = fixture.agent(0);
    let pulls = (0..8).map(|_| client.pull_blob(REPOSITORY, &layer.digest, |_| ()));
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap().bytes, layer.length());
    }
    let stats = fixture.cluster.agent(0).stats();
    assert!(stats.bytes_from_origins < layer.length() + 8 * MIB, "{stats:?}");
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_into_a_part_that_is_not_there_is_fetched_first() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(256 * MIB, 5).await;
    let (start, end) = (200 * MIB - 7, 200 * MIB + 100);
    let range = format!("bytes={start}-{}", end - 1);
    let response = fixture.agent(0).get_range(&blob_path(&layer.digest), &range).await.unwrap();
    assert_eq!(response.status(), 206);
    let expected = format!("bytes {start}-{}/{}", end - 1, layer.length());
    assert_eq!(response.headers()["content-range"], expected.as_str());
    let bytes = response.bytes().await.unwrap();
    let (have, of) = progress(&fixture, 0, &layer.digest);
    assert_eq!(bytes, slice(layer, start, end));
    assert!(have * 2 < of, "{have} of {of} pieces were in before the range came");
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_answered_404_with_json() {
    let fixture = Fixture::start(1).await;
    fixture.push(MIB, 6).await;
    let missing = Digest::sha256(b"nobody has this");
    for path in [
        format!("v2/{REPOSITORY}/blobs/{missing}"),
        format!("v2/{REPOSITORY}/manifests/{missing}"),
        format!("v2/{REPOSITORY}/manifests/no-such-tag"),
        "v2/no/such/repository/manifests/latest".to_owned(),
        "v2/no/such/repository/tags/list".to_owned(),
    ] {
        let response = fixture.agent(0).get(&path).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        let body: Value = response.json().await.unwrap();
        assert!(body["errors"][0]["code"].is_string(), "{path}: {body}");
    }
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_seen_only_through_a_repository_that_links_it() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(MIB, 7).await;
    let client = fixture.agent(0);
    let foreign = format!("v2/other/blobs/{}", layer.digest);
    assert_eq!(client.get(&foreign).await.unwrap().status(), 404);
    client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    // Also when the agent holds it by now.
    assert_eq!(client.get(&foreign).await.unwrap().status(), 404);
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_seen_after_its_time() {
    let fixture = Fixture::start(1).await;
    let (one, two) = (Image::generate(MIB, 1, 8), Image::generate(MIB, 1, 9));
    fixture.origin().push(REPOSITORY, "latest", &one, |_| ()).await.unwrap();
    let client = fixture.agent(0);
    assert_eq!(client.pull_manifest(REPOSITORY, "latest").await.unwrap(), one.manifest);
    fixture.origin().push(REPOSITORY, "latest", &two, |_| ()).await.unwrap();
    let moved = eventually("the moved tag", async || {
        let manifest = client.pull_manifest(REPOSITORY, "latest").await.unwrap();
        (manifest == two.manifest).then_some(manifest)
    });
    moved.await;
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_and_one_of_a_single_byte_are_pulled() {
    let fixture = Fixture::start(1).await;
    for content in [&b""[..], b"x"] {
        let digest = Digest::sha256(content);
        let body = futures_util::stream::iter([Ok(bytes::Bytes::from_static(content))]);
        fixture.origin().push_blob(REPOSITORY, &digest, body).await.unwrap();
        let pulled = fixture.agent(0).pull_blob(REPOSITORY, &digest, |_| ()).await.unwrap();
        assert_eq!(pulled.bytes, content.len() as u64);
    }
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_takes_no_push() {
    let fixture = Fixture::start(1).await;
    let body = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"x"))]);
    let error = fixture.agent(0).push_blob(REPOSITORY, &Digest::sha256(b"x"), body).await.unwrap_err();
    assert!(error.to_string().contains("405"), "{error}");
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_serves_what_it_holds_while_everybody_else_is_away() {
    let mut fixture = Fixture::start(1).await;
    let layer = fixture.push(8 * MIB, 10).await;
    fixture.agent(0).pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    fixture.cluster.stop_agent(0).await;
    fixture.cluster.stop_origin().await;
    fixture.cluster.stop_tracker().await;
    fixture.cluster.start_agent(0).await.unwrap();
    let pulled = fixture.agent(0).pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_resumes_with_the_pieces_it_has() {
    let mut fixture = Fixture::start(1).await;
    let layer = fixture.push(1024 * MIB, 11).await;
    let mut body = fixture.agent(0).get(&blob_path(&layer.digest)).await.unwrap().bytes_stream();
    body.next().await.unwrap().unwrap();
    eventually("some pieces", async || (progress(&fixture, 0, &layer.digest).0 > 8).then_some(())).await;
    drop(body);
    fixture.cluster.stop_agent(0).await;
    fixture.cluster.start_agent(0).await.unwrap();
    let (have, _) = progress(&fixture, 0, &layer.digest);
    assert!(have > 0, "no piece outlived the restart");
    let Some(Entry::Partial(partial)) = fixture.cluster.agent(0).store().entry(&layer.digest) else {
        panic!("the blob was whole before the agent was stopped: make it longer");
    };
    assert!(partial.metainfo().geometry().piece(PieceIndex(0)).is_some());
    fixture.agent(0).pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    let stats = fixture.cluster.agent(0).stats();
    assert!(
        stats.bytes_from_origins <= layer.length() - u64::from(have - 1) * MIB,
        "{have} pieces, {stats:?}"
    );
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_name_in_the_request_is_mapped_or_refused() {
    let fixture = Fixture::start(1).await;
    let image = Image::generate(MIB, 1, 12);
    fixture.origin().push(REPOSITORY, "1", &image, |_| ()).await.unwrap();
    let client = fixture.agent(0);
    let known = client.get(&format!("v2/{REPOSITORY}/manifests/1?ns=registry.example.com")).await.unwrap();
    assert_eq!(known.status(), 200);
    assert_eq!(known.bytes().await.unwrap(), image.manifest);
    let prefixed = client.get(&format!("v2/registry.example.com/{REPOSITORY}/manifests/1")).await.unwrap();
    assert_eq!(prefixed.status(), 200);
    let unknown = client.get(&format!("v2/{REPOSITORY}/manifests/1?ns=docker.io")).await.unwrap();
    assert_eq!(unknown.status(), 404);
    fixture.shutdown().await;
}
