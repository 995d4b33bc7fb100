use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use shoal_core::{Algorithm, Digest};
use shoal_driver::{FilesystemDriver, MemoryDriver, StorageDriver};
use shoal_registry::Config;
use tokio::sync::mpsc;

use crate::rig::{Reply, Rig};

/// A body whose parts the test sends one by one.
fn open_body() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let parts = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (sender, Body::from_stream(parts))
}

async fn patch(rig: &Rig, location: &str, range: Option<&str>, body: impl Into<Body>) -> Reply {
    let headers: Vec<(&str, &str)> = range.map(|range| ("content-range", range)).into_iter().collect();
    rig.send("PATCH", location, &headers, body).await
}

async fn put(rig: &Rig, location: &str, digest: &Digest, body: impl Into<Body>) -> Reply {
    rig.send("PUT", &format!("{location}?digest={digest}"), &[], body).await
}

#[track_caller]
fn assert_stands_at(reply: &Reply, location: &str, range: &str) {
    assert_eq!(reply.header("location"), location);
    assert_eq!(reply.header("range"), range);
    assert_eq!(reply.header("docker-upload-uuid"), location.rsplit('/').next().unwrap());
}

#[tokio::test]
async fn post_then_put_makes_a_blob() {
    let rig = Rig::new();
    let digest = Digest::sha256(b"layer");
    for path in ["/v2/a/b/blobs/uploads/", "/v2/a/b/blobs/uploads"] {
        let reply = rig.send("POST", path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
        let location = reply.header("location");
        assert!(location.starts_with("/v2/a/b/blobs/uploads/"), "{location}");
        assert_stands_at(&reply, location, "0-0");
        assert_eq!(reply.header("content-length"), "0");
        let put = put(&rig, location, &digest, "layer").await.expect(StatusCode::CREATED);
        assert_eq!(put.header("location"), format!("/v2/a/b/blobs/{digest}"));
        assert_eq!(put.header("docker-content-digest"), digest.to_string());
        assert_eq!(rig.get(put.header("location")).await.expect(StatusCode::OK).body, "layer");
        rig.get(location).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn one_post_makes_a_blob() {
    let rig = Rig::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, b"layer");
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let reply = rig.send("POST", &path, &[], "layer").await.expect(StatusCode::CREATED);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        assert_eq!(rig.get(reply.header("location")).await.expect(StatusCode::OK).body, "layer");
    }
}

#[tokio::test]
async fn a_stream_then_an_empty_put_makes_a_blob() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let parts = ["la", "y", "", "er"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
    let reply = patch(&rig, &location, None, Body::from_stream(stream::iter(parts))).await;
    assert_stands_at(&reply.expect(StatusCode::ACCEPTED), &location, "0-4");
    let digest = Digest::sha256(b"layer");
    put(&rig, &location, &digest, Body::empty()).await.expect(StatusCode::CREATED);
    assert_eq!(rig.get(&format!("/v2/a/blobs/{digest}")).await.body, "layer");
}

#[tokio::test]
async fn chunks_in_order_make_a_blob_and_the_last_may_come_with_the_put() {
    let rig = Rig::new();
    for last_in_put in [false, true] {
        let location = rig.start_upload("a").await;
        let reply = patch(&rig, &location, Some("0-3"), "0123").await.expect(StatusCode::ACCEPTED);
        assert_stands_at(&reply, &location, "0-3");
        let reply = patch(&rig, &location, Some("4-5"), "45").await.expect(StatusCode::ACCEPTED);
        assert_stands_at(&reply, &location, "0-5");
        let digest = Digest::sha256(b"0123456789");
        let path = format!("{location}?digest={digest}");
        let created = if last_in_put {
            rig.send("PUT", &path, &[("content-range", "6-9")], "6789").await
        } else {
            patch(&rig, &location, Some("6-9"), "6789").await.expect(StatusCode::ACCEPTED);
            rig.send("PUT", &path, &[], Body::empty()).await
        };
        let created = created.expect(StatusCode::CREATED);
        assert_eq!(rig.get(created.header("location")).await.body, "0123456789");
    }
}

#[tokio::test]
async fn a_chunk_out_of_order_is_416_and_the_session_survives() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    patch(&rig, &location, Some("0-3"), "0123").await.expect(StatusCode::ACCEPTED);
    let digest = Digest::sha256(b"01234567");
    for (method, path) in [("PATCH", location.clone()), ("PUT", format!("{location}?digest={digest}"))] {
        for range in ["0-3", "8-11", "5-8"] {
            let reply = rig.send(method, &path, &[("content-range", range)], "4567").await;
            assert_stands_at(&reply, &location, "0-3");
            reply.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
            let status = rig.get(&location).await.expect(StatusCode::NO_CONTENT);
            assert_stands_at(&status, &location, "0-3");
        }
    }
    let put =
        rig.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "4-7")], "4567").await;
    put.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_chunk_has_the_length_that_it_says() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    for range in [
        "0-",
        "-3",
        "a-b",
        "3-0",
        "bytes 0-3",
        "bytes=0-3",
        "0-3/4",
        "0-18446744073709551615",
        "+0-3",
        "0-2,3-3",
    ] {
        let reply = patch(&rig, &location, Some(range), "0123").await;
        reply.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
    }
    let headers = [("content-range", "0-9"), ("content-length", "4")];
    let reply = rig.send("PATCH", &location, &headers, "0123").await;
    reply.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
    for range in ["0-2", "0-9"] {
        let location = rig.start_upload("a").await;
        let reply = patch(&rig, &location, Some(range), "0123").await;
        reply.expect_error(StatusCode::BAD_REQUEST, "SIZE_INVALID");
        rig.get(&location).await.expect(StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_wrong_digest_is_400_and_ends_the_session() {
    let rig = Rig::new();
    let wrong = Digest::sha256(b"other");
    for (patched, last) in [("", "layer"), ("layer", ""), ("lay", "er"), ("", "")] {
        let location = rig.start_upload("a").await;
        patch(&rig, &location, None, patched).await.expect(StatusCode::ACCEPTED);
        put(&rig, &location, &wrong, last).await.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        rig.get(&location).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    }
    let reply = rig.send("POST", &format!("/v2/a/blobs/uploads/?digest={wrong}"), &[], "layer").await;
    reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    rig.get(&format!("/v2/a/blobs/{wrong}")).await.expect(StatusCode::NOT_FOUND);
    rig.get(&format!("/v2/a/blobs/{}", Digest::sha256(b"layer"))).await.expect(StatusCode::NOT_FOUND);
    assert!(!rig.events.take().iter().any(|event| event.starts_with("pushed")));
}

#[tokio::test]
async fn a_put_without_a_digest_leaves_the_session() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    for query in ["", "?digest=", "?digest=sha256:abc"] {
        let reply = rig.send("PUT", &format!("{location}{query}"), &[], "layer").await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    put(&rig, &location, &Digest::sha256(b"layer"), "layer").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_session_outlives_the_process_and_is_not_hashed_again() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    patch(&rig, &location, None, "first ").await.expect(StatusCode::ACCEPTED);
    let rig = rig.restarted();
    let status = rig.get(&location).await.expect(StatusCode::NO_CONTENT);
    assert_stands_at(&status, &location, "0-5");
    rig.driver.take_calls();
    put(&rig, &location, &Digest::sha256(b"first second"), "second").await.expect(StatusCode::CREATED);
    assert_eq!(
        rig.driver.take_calls(),
        ["get startedat", "write upload", "get hash state", "rename blob", "put layer link", "delete upload"]
    );
}

#[tokio::test]
async fn bytes_are_read_again_where_their_digest_state_is_of_another_algorithm() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    patch(&rig, &location, None, "first ").await.expect(StatusCode::ACCEPTED);
    let digest = Digest::of(Algorithm::Sha512, b"first second");
    let created = put(&rig, &location, &digest, "second").await.expect(StatusCode::CREATED);
    assert!(rig.driver.take_calls().contains(&"read upload".to_owned()));
    assert_eq!(created.header("docker-content-digest"), digest.to_string());
    assert_eq!(rig.get(created.header("location")).await.body, "first second");
    let location = rig.start_upload("a").await;
    patch(&rig, &location, None, "other").await.expect(StatusCode::ACCEPTED);
    put(&rig, &location, &digest, "").await.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    rig.get(&location).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_session_belongs_to_its_repository() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let other = location.replace("/v2/a/", "/v2/b/");
    let digest = Digest::sha256(b"");
    for (method, path) in [
        ("GET", other.clone()),
        ("PATCH", other.clone()),
        ("DELETE", other.clone()),
        ("PUT", format!("{other}?digest={digest}")),
    ] {
        let reply = rig.send(method, &path, &[], "").await;
        reply.expect_error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    }
    rig.get(&location).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_cancelled_session_is_gone() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    patch(&rig, &location, None, "layer").await.expect(StatusCode::ACCEPTED);
    rig.send("DELETE", &location, &[], "").await.expect(StatusCode::NO_CONTENT);
    for method in ["GET", "PATCH", "DELETE"] {
        let reply = rig.send(method, &location, &[], "").await;
        reply.expect_error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn a_session_has_one_writer_and_the_other_hears_so_at_once() {
    let rig = Arc::new(Rig::new());
    let location = rig.start_upload("a").await;
    let (sender, body) = open_body();
    let first = tokio::spawn({
        let (rig, location) = (Arc::clone(&rig), location.clone());
        async move { patch(&rig, &location, None, body).await }
    });
    // The second part is taken only when the first was written.
    for part in ["one", "two", "six"] {
        sender.send(Ok(Bytes::from(part))).await.unwrap();
    }
    for method in ["PATCH", "DELETE"] {
        let reply = rig.send(method, &location, &[], "late").await;
        reply.expect_error(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID");
    }
    let status = rig.get(&location).await.expect(StatusCode::NO_CONTENT);
    assert_ne!(status.header("range"), "0-0");
    drop(sender);
    assert_stands_at(&first.await.unwrap().expect(StatusCode::ACCEPTED), &location, "0-8");
    put(&rig, &location, &Digest::sha256(b"onetwosix"), "").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn the_number_of_writers_is_bounded() {
    let rig = Arc::new(Rig::with_config(Config { max_concurrent_uploads: 1, ..Config::default() }));
    let location = rig.start_upload("a").await;
    let (sender, body) = open_body();
    let first = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { patch(&rig, &location, None, body).await }
    });
    for part in ["one", "two", "six"] {
        sender.send(Ok(Bytes::from(part))).await.unwrap();
    }
    let reply = rig.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(reply.header("retry-after"), "1");
    reply.expect_error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    drop(sender);
    first.await.unwrap().expect(StatusCode::ACCEPTED);
    rig.start_upload("a").await;
}

/// The listener ends a body that is too slow; here its error is all that there is of it.
#[tokio::test]
async fn a_body_that_is_too_slow_is_408_and_what_came_before_is_kept() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let too_slow = std::io::Error::new(std::io::ErrorKind::TimedOut, "no byte came");
    let body = Body::from_stream(stream::iter([Ok(Bytes::from("first ")), Err(too_slow)]));
    patch(&rig, &location, None, body).await.expect_error(StatusCode::REQUEST_TIMEOUT, "SIZE_INVALID");
    let status = rig.get(&location).await.expect(StatusCode::NO_CONTENT);
    assert_stands_at(&status, &location, "0-5");
    put(&rig, &location, &Digest::sha256(b"first second"), "second").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_broken_body_is_400_and_what_came_before_is_kept() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let parts = [Ok(Bytes::from("first ")), Err(std::io::Error::other("connection reset"))];
    let reply =
        put(&rig, &location, &Digest::sha256(b"first "), Body::from_stream(stream::iter(parts))).await;
    reply.expect_error(StatusCode::BAD_REQUEST, "SIZE_INVALID");
    let reply = patch(&rig, &location, Some("6-11"), "second").await.expect(StatusCode::ACCEPTED);
    assert_stands_at(&reply, &location, "0-11");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_session_that_goes_on() {
    let rig = Arc::new(Rig::new());
    let location = rig.start_upload("a").await;
    let (sender, body) = open_body();
    let request = tokio::spawn({
        let (rig, location) = (Arc::clone(&rig), location.clone());
        async move { patch(&rig, &location, None, body).await }
    });
    for part in ["one", "two", "six"] {
        sender.send(Ok(Bytes::from(part))).await.unwrap();
    }
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    sender.send(Err(std::io::Error::other("connection reset"))).await.unwrap();
    // Once the write let go of the body, all it has to do is to close the session.
    drop(sender);
    let reply = loop {
        let reply = patch(&rig, &location, Some("9-12"), "four").await;
        if reply.status != StatusCode::CONFLICT {
            break reply;
        }
        tokio::task::yield_now().await;
    };
    reply.expect(StatusCode::ACCEPTED);
    put(&rig, &location, &Digest::sha256(b"onetwosixfour"), "").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_blob_that_is_too_large_is_413() {
    let rig = Rig::with_config(Config { max_blob_size: ByteSize::b(5), ..Config::default() });
    rig.push_blob("a", b"layer").await;
    let location = rig.start_upload("a").await;
    patch(&rig, &location, None, "laye").await.expect(StatusCode::ACCEPTED);
    for method in ["PATCH", "PUT"] {
        let path = format!("{location}?digest={}", Digest::sha256(b"layers"));
        let reply = rig.send(method, &path, &[], "rs").await;
        reply.expect_error(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID");
    }
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_repository_that_has_it() {
    let rig = Rig::new();
    let digest = rig.push_blob("a/b", b"layer").await;
    let path = |repository: &str, query: &str| format!("/v2/{repository}/blobs/uploads/?{query}");
    let mount = path("c", &format!("mount={digest}&from=a/b"));
    let reply = rig.send("POST", &mount, &[], "").await.expect(StatusCode::CREATED);
    assert_eq!(reply.header("location"), format!("/v2/c/blobs/{digest}"));
    assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    assert_eq!(rig.get(reply.header("location")).await.expect(StatusCode::OK).body, "layer");
    let itself = path("a/b", &format!("mount={digest}&from=a/b"));
    rig.send("POST", &itself, &[], "").await.expect(StatusCode::CREATED);
    for query in [
        format!("mount={digest}&from=x"),
        format!("mount={}&from=a/b", Digest::sha256(b"other")),
        format!("mount={digest}&from=d"),
        format!("mount={digest}"),
        "from=a/b".to_owned(),
    ] {
        let reply = rig.send("POST", &path("d", &query), &[], "").await.expect(StatusCode::ACCEPTED);
        rig.get(reply.header("location")).await.expect(StatusCode::NO_CONTENT);
        rig.head(&format!("/v2/d/blobs/{digest}")).await.expect(StatusCode::NOT_FOUND);
    }
    let reply = rig.send("POST", &path("d", &format!("mount={digest}&from=../a")), &[], "").await;
    reply.expect_error(StatusCode::BAD_REQUEST, "NAME_INVALID");
}

#[tokio::test]
async fn large_blobs_stream_through_every_driver() {
    let folder = tempfile::tempdir().unwrap();
    let drivers: [Arc<dyn StorageDriver>; 2] =
        [Arc::new(MemoryDriver::new()), Arc::new(FilesystemDriver::new(folder.path()))];
    let part = Bytes::from((0..=255).cycle().take(3 << 20).collect::<Vec<u8>>());
    let digest = Digest::sha256(&part.repeat(4));
    for driver in drivers {
        let rig = Rig::on(driver, Config::default());
        let location = rig.start_upload("a").await;
        let parts = stream::iter([Ok::<_, std::io::Error>(part.clone()), Ok(part.clone())]);
        patch(&rig, &location, None, Body::from_stream(parts)).await.expect(StatusCode::ACCEPTED);
        patch(&rig, &location, None, part.clone()).await.expect(StatusCode::ACCEPTED);
        let created = put(&rig, &location, &digest, part.clone()).await.expect(StatusCode::CREATED);
        let response = rig.start("GET", created.header("location"), &[], Body::empty()).await;
        let (mut parts, mut received) =
            (response.into_body().into_data_stream(), shoal_core::Digester::new(Algorithm::Sha256));
        while let Some(part) = parts.next().await {
            received.update(&part.unwrap());
        }
        assert_eq!(received.finish(), digest);
        rig.push_image("a", "latest").await;
        rig.get("/v2/a/tags/list").await.expect(StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_the_writes_under_way() {
    let driver = Arc::new(MemoryDriver::new());
    let registry = shoal_registry::Registry::new(
        Config::default(),
        driver.clone(),
        Arc::new(crate::rig::Events::default()),
    );
    let rig = Rig::on(driver, Config::default());
    let location = rig.start_upload("a").await;
    let (sender, body) = open_body();
    let request = http::Request::builder().method("PATCH").uri(&location).body(body).unwrap();
    let patching = tokio::spawn(tower::ServiceExt::oneshot(registry.router(), request));
    for part in ["one", "two", "six"] {
        sender.send(Ok(Bytes::from(part))).await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_secs(1), registry.drain()).await.is_err());
    drop(sender);
    registry.drain().await;
    assert_eq!(patching.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
}
