use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use shoal_core::Digest;

use crate::rig::{Fault, Rig};

const CONTENT: &[u8] = b"0123456789";

#[tokio::test]
async fn a_blob_comes_back_with_the_headers_that_clients_need() {
    let rig = Rig::new();
    let digest = rig.push_blob("a/b", CONTENT).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let get = rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!(&get.body[..], CONTENT);
    let head = rig.head(&path).await.expect(StatusCode::OK);
    assert!(head.body.is_empty());
    assert_eq!(get.headers, head.headers);
    for (name, value) in [
        ("content-length", "10"),
        ("content-type", "application/octet-stream"),
        ("accept-ranges", "bytes"),
        ("cache-control", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("docker-distribution-api-version", "registry/2.0"),
        ("docker-content-digest", &digest.to_string()),
        ("etag", &format!("\"{digest}\"")),
    ] {
        assert_eq!(get.header(name), value);
    }
    let accept = [("accept-encoding", "gzip, zstd")];
    let reply = rig.send("GET", &path, &accept, Body::empty()).await;
    assert!(!reply.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn a_blob_is_seen_only_in_the_repository_that_links_it() {
    let rig = Rig::new();
    let digest = rig.push_blob("a", CONTENT).await;
    for path in [format!("/v2/b/blobs/{digest}"), format!("/v2/a/blobs/{}", Digest::sha256(b"other"))] {
        let errors = rig.get(&path).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        assert!(errors[0]["detail"]["digest"].is_string());
        rig.head(&path).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn one_range_is_served_exactly() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", CONTENT).await);
    for (range, content_range, body) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=8-100", "bytes 8-9/10", "89"),
        ("bytes=0-0", "bytes 0-0/10", "0"),
    ] {
        let reply = rig.send("GET", &path, &[("range", range)], Body::empty()).await;
        let reply = reply.expect(StatusCode::PARTIAL_CONTENT);
        assert_eq!(reply.header("content-range"), content_range);
        assert_eq!(reply.header("content-length"), body.len().to_string());
        assert_eq!(reply.body, body);
    }
    for range in ["bytes=10-", "bytes=50-100", "bytes=5-0", "bytes=-0"] {
        let reply = rig.send("GET", &path, &[("range", range)], Body::empty()).await;
        assert_eq!(reply.header("content-range"), "bytes */10");
        reply.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
    }
}

#[tokio::test]
async fn several_ranges_and_ranges_of_other_content_get_the_whole_blob() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", CONTENT).await);
    let many = (0..1000).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",");
    let many = format!("bytes={many}");
    for headers in [
        vec![("range", "bytes=0-1,4-5")],
        vec![("range", "bytes=0-5,4-9")],
        vec![("range", "bytes=a-")],
        vec![("range", "bytes=-")],
        vec![("range", many.as_str())],
        vec![("range", "lines=0-1")],
        vec![("range", "bytes=0-1"), ("if-range", "\"sha256:other\"")],
    ] {
        let reply = rig.send("GET", &path, &headers, Body::empty()).await.expect(StatusCode::OK);
        assert_eq!(&reply.body[..], CONTENT);
        assert_eq!(reply.header("content-length"), "10");
        assert!(!reply.headers.contains_key("content-range"));
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let rig = Rig::new();
    let digest = rig.push_blob("a", CONTENT).await;
    let path = format!("/v2/a/blobs/{digest}");
    let reply = rig.send("GET", &path, &[("if-none-match", &format!("\"{digest}\""))], Body::empty()).await;
    let reply = reply.expect(StatusCode::NOT_MODIFIED);
    assert!(reply.body.is_empty() && !reply.headers.contains_key("content-length"));
    assert_eq!(reply.header("etag"), format!("\"{digest}\""));
}

#[tokio::test]
async fn a_blob_without_a_byte_works() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", b"").await);
    rig.events.take();
    let reply = rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!((reply.header("content-length"), reply.body.len()), ("0", 0));
    assert_eq!(rig.events.take(), ["finished 0"]);
    rig.head(&path).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn the_driver_is_asked_as_little_as_can_be() {
    let pushed = Rig::new();
    let path = format!("/v2/a/blobs/{}", pushed.push_blob("a", CONTENT).await);
    let rig = pushed.restarted();
    rig.head(&path).await.expect(StatusCode::OK);
    assert_eq!(rig.driver.take_calls(), ["get layer link", "stat blob"]);
    rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!(rig.driver.take_calls(), ["read blob"]);
    let rig = pushed.restarted();
    rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!(rig.driver.take_calls(), ["get layer link", "stat blob", "read blob"]);
    rig.get(&path.replace("/a/", "/b/")).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(rig.driver.take_calls(), ["get layer link"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_is_asked_again_after_a_while() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", CONTENT).await);
    rig.driver.take_calls();
    rig.head(&path).await.expect(StatusCode::OK);
    assert!(rig.driver.take_calls().is_empty());
    tokio::time::advance(Duration::from_secs(10)).await;
    rig.head(&path).await.expect(StatusCode::OK);
    assert_eq!(rig.driver.take_calls(), ["get layer link", "stat blob"]);
}

#[tokio::test]
async fn a_blob_that_vanished_is_unknown_at_once() {
    let rig = Rig::new();
    let digest = rig.push_blob("a", CONTENT).await;
    let path = format!("/v2/a/blobs/{digest}");
    let blob = shoal_driver::RegistryPath::Blob(digest).to_driver_path();
    shoal_driver::StorageDriver::delete(&*rig.driver, &Default::default(), &blob).await.unwrap();
    rig.get(&path).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    rig.head(&path).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn headers_do_not_wait_for_a_slow_reader() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", CONTENT).await);
    rig.driver.fail("read", Fault::Hangs);
    let response = rig.start("GET", &path, &[], Body::empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-length"], "10");
}

#[tokio::test]
async fn the_observer_hears_how_a_pull_went() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", CONTENT).await);
    assert_eq!(rig.events.take(), ["pushed 10"]);
    rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!(rig.events.take(), ["first byte", "finished 10"]);
    rig.head(&path).await.expect(StatusCode::OK);
    assert!(rig.events.take().is_empty());
    drop(rig.start("GET", &path, &[], Body::empty()).await);
    assert_eq!(rig.events.take(), ["aborted 0"]);
}

#[tokio::test]
async fn a_body_that_goes_wrong_is_cut_and_never_padded() {
    for (fault, sent) in [(Fault::CutAfter(4), 4), (Fault::TooLong, 10)] {
        let rig = Rig::new();
        let path = format!("/v2/a/blobs/{}", rig.push_blob("a", CONTENT).await);
        rig.events.take();
        rig.driver.fail("read", fault);
        let response = rig.start("GET", &path, &[], Body::empty()).await;
        assert_eq!(response.headers()["content-length"], "10");
        let mut body = response.into_body();
        let mut received = vec![];
        while let Some(Ok(frame)) = body.frame().await {
            received.extend_from_slice(frame.data_ref().unwrap());
        }
        assert_eq!(received, &CONTENT[..sent]);
        drop(body);
        let end = if sent == 10 { "finished 10" } else { "aborted 4" };
        assert_eq!(rig.events.take(), ["first byte", end]);
    }
}
