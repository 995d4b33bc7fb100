//! Disks that are full: pushes are told so at once, and go on where they were once there is room.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use shoal_core::Digest;
use shoal_driver::FilesystemDriver;
use shoal_registry::Config;
use tempfile::TempDir;

use crate::rig::{OCI_MANIFEST, Rig, image};

/// A registry on files, of whose file system so much is not for uploads.
fn rig(folder: &TempDir, reserve: u64) -> Rig {
    Rig::on(Arc::new(FilesystemDriver::with_reserve(folder.path(), reserve)), Config::default())
}

const ALL: u64 = u64::MAX;

#[tokio::test]
async fn no_upload_begins_on_a_full_disk_and_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(&folder, ALL);
    let digest = Digest::sha256(b"layer");
    for query in [String::new(), format!("?digest={digest}")] {
        let reply = rig.send("POST", &format!("/v2/a/blobs/uploads/{query}"), &[], "layer").await;
        let errors = reply.expect_error(StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE");
        assert!(errors[0]["message"].as_str().unwrap().contains("disk is full"), "{errors}");
    }
    assert!(
        !folder
            .path()
            .join("tree/docker/registry/v2/repositories/a/_uploads")
            .read_dir()
            .is_ok_and(|mut uploads| uploads.next().is_some())
    );
}

#[tokio::test]
async fn an_upload_that_fills_the_disk_is_507_and_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let location = rig(&folder, 0).start_upload("a").await;
    let first = rig(&folder, 0).send("PATCH", &location, &[], "first ").await;
    first.expect(StatusCode::ACCEPTED);
    let full = rig(&folder, ALL);
    // What would not fit is refused before a byte of it comes.
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let reply = full.send("PATCH", &location, &[("content-length", "6")], never).await;
    reply.expect_error(StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE");
    // And what says nothing of its length when there is something to write.
    for length in [6, 1 << 20] {
        let parts = [Ok::<_, std::io::Error>(Bytes::from(vec![7; length]))];
        let reply = full.send("PATCH", &location, &[], Body::from_stream(stream::iter(parts))).await;
        reply.expect_error(StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE");
        let status = full.get(&location).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(status.header("range"), "0-5");
    }
    let put = format!("{location}?digest={}", Digest::sha256(b"first second"));
    let end = full.send("PUT", &put, &[("content-length", "6")], "second").await;
    end.expect_error(StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE");
    rig(&folder, 0).send("PUT", &put, &[], "second").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_there_can_be_tagged_pulled_cancelled_and_deleted_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (roomy, full) = (rig(&folder, 0), rig(&folder, ALL));
    let location = roomy.start_upload("a").await;
    roomy.push_image("a", "one").await;
    full.put_manifest("/v2/a/manifests/two", OCI_MANIFEST, &image(OCI_MANIFEST))
        .await
        .expect(StatusCode::CREATED);
    full.get("/v2/a/manifests/two").await.expect(StatusCode::OK);
    full.send("DELETE", &location, &[], Body::empty()).await.expect(StatusCode::NO_CONTENT);
    full.send("DELETE", "/v2/a/manifests/one", &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_large_is_refused_before_it_comes() {
    let config = Config { max_blob_size: bytesize::ByteSize::b(5), ..Config::default() };
    let rig = Rig::with_config(config);
    let location = rig.start_upload("a").await;
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let reply = rig.send("PATCH", &location, &[("content-length", "6")], never).await;
    reply.expect_error(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID");
}
