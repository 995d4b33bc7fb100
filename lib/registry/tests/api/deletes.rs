use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};
use shoal_core::Digest;
use shoal_registry::Config;

use crate::rig::{OCI_MANIFEST, Reply, Rig, digest_of, image};

async fn delete(rig: &Rig, path: &str) -> Reply {
    rig.send("DELETE", path, &[], Body::empty()).await
}

async fn tags(rig: &Rig, repository: &str) -> Vec<String> {
    let reply = rig.get(&format!("/v2/{repository}/tags/list")).await;
    if reply.status == StatusCode::NOT_FOUND {
        return vec![];
    }
    let body: Value = serde_json::from_slice(&reply.expect(StatusCode::OK).body).unwrap();
    serde_json::from_value(body["tags"].clone()).unwrap()
}

#[tokio::test]
async fn a_deleted_tag_is_gone_and_its_manifest_stays() {
    let rig = Rig::new();
    let document = rig.push_image("a", "one").await;
    rig.push_image("a", "two").await;
    let reply = delete(&rig, "/v2/a/manifests/one").await.expect(StatusCode::ACCEPTED);
    assert_eq!(reply.header("content-length"), "0");
    rig.get("/v2/a/manifests/one").await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    assert_eq!(tags(&rig, "a").await, ["two"]);
    rig.get("/v2/a/manifests/two").await.expect(StatusCode::OK);
    rig.get(&format!("/v2/a/manifests/{}", digest_of(&document))).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_with_it_and_no_others() {
    let rig = Rig::new();
    let document = rig.push_image("a", "one").await;
    rig.push_image("a", "two").await;
    rig.push_image("b", "one").await;
    let mut other = document.clone();
    other["annotations"] = json!({"version": "2"});
    rig.put_manifest("/v2/a/manifests/three", OCI_MANIFEST, &other).await.expect(StatusCode::CREATED);
    let path = format!("/v2/a/manifests/{}", digest_of(&document));
    delete(&rig, &path).await.expect(StatusCode::ACCEPTED);
    for gone in ["/v2/a/manifests/one", "/v2/a/manifests/two", &path] {
        rig.get(gone).await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        rig.head(gone).await.expect(StatusCode::NOT_FOUND);
    }
    assert_eq!(tags(&rig, "a").await, ["three"]);
    for stays in ["/v2/a/manifests/three", "/v2/b/manifests/one"] {
        rig.get(stays).await.expect(StatusCode::OK);
    }
    // Its bytes are still there: a push needs no blob again.
    rig.put_manifest("/v2/a/manifests/one", OCI_MANIFEST, &document).await.expect(StatusCode::CREATED);
    rig.get(&path).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_at_once_and_stays_in_others() {
    let rig = Rig::new();
    let digest = rig.push_blob("a", b"layer").await;
    rig.push_blob("b", b"layer").await;
    let path = format!("/v2/a/blobs/{digest}");
    // Seen a moment ago, and so remembered.
    rig.head(&path).await.expect(StatusCode::OK);
    delete(&rig, &path).await.expect(StatusCode::ACCEPTED);
    rig.get(&path).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    rig.head(&path).await.expect(StatusCode::NOT_FOUND);
    rig.get(&format!("/v2/b/blobs/{digest}")).await.expect(StatusCode::OK);
    let mount = format!("/v2/c/blobs/uploads/?mount={digest}&from=a");
    rig.send("POST", &mount, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
    rig.push_blob("a", b"layer").await;
    rig.get(&path).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_deleted() {
    let rig = Rig::new();
    let manifest = digest_of(&rig.push_image("a", "latest").await);
    let layer = Digest::sha256(b"layer");
    for path in [
        "/v2/a/manifests/other",
        "/v2/a/manifests/.not-a-tag",
        "/v2/b/manifests/latest",
        &format!("/v2/b/manifests/{manifest}"),
        &format!("/v2/a/manifests/{layer}"),
    ] {
        delete(&rig, path).await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    }
    for path in [format!("/v2/b/blobs/{layer}"), format!("/v2/a/blobs/{}", Digest::sha256(b"other"))] {
        delete(&rig, &path).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    }
    for path in ["/v2/a/manifests/sha256:wrong", "/v2/a/blobs/sha256:wrong", "/v2/a/blobs/latest"] {
        delete(&rig, path).await.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    for path in [format!("/v2/a/manifests/{manifest}"), format!("/v2/a/blobs/{layer}")] {
        delete(&rig, &path).await.expect(StatusCode::ACCEPTED);
        delete(&rig, &path).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn one_switch_refuses_all_three_deletes() {
    let writable = Rig::new();
    let manifest = digest_of(&writable.push_image("a", "latest").await);
    let rig = Rig::on(writable.driver.clone(), Config { delete: false, ..Config::default() });
    let layer = Digest::sha256(b"layer");
    let paths = [
        "/v2/a/manifests/latest".to_owned(),
        format!("/v2/a/manifests/{manifest}"),
        format!("/v2/a/blobs/{layer}"),
    ];
    for path in &paths {
        delete(&rig, path).await.expect_error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    }
    assert!(rig.driver.take_calls().is_empty());
    for path in &paths {
        rig.get(path).await.expect(StatusCode::OK);
    }
    // An upload is nobody's content yet.
    let location = rig.start_upload("a").await;
    delete(&rig, &location).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_delete_that_was_cut_short_can_be_done_again() {
    let rig = Rig::new();
    let document = rig.push_image("a", "latest").await;
    let path = format!("/v2/a/manifests/{}", digest_of(&document));
    rig.driver.take_calls();
    rig.driver.fail("delete", crate::rig::Fault::Failed);
    delete(&rig, &path).await.expect_error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
    rig.driver.heal();
    delete(&rig, &path).await.expect(StatusCode::ACCEPTED);
    rig.get("/v2/a/manifests/latest").await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_push_beside_a_delete_is_whole_or_gone() {
    let rig = Rig::new();
    let document = image(OCI_MANIFEST);
    let path = format!("/v2/a/manifests/{}", digest_of(&document));
    // Each starts at every moment of the other.
    for (push_later, delete_later) in (0..10).flat_map(|rounds| [(rounds, 0), (0, rounds)]) {
        rig.push_image("a", "latest").await;
        let push = async {
            wait(push_later).await;
            rig.put_manifest("/v2/a/manifests/latest", OCI_MANIFEST, &document).await
        };
        let deletion = async {
            wait(delete_later).await;
            delete(&rig, &path).await
        };
        let (put, deleted) = tokio::join!(push, deletion);
        put.expect(StatusCode::CREATED);
        assert!(matches!(deleted.status, StatusCode::ACCEPTED | StatusCode::NOT_FOUND));
        let by_tag = rig.get("/v2/a/manifests/latest").await.status;
        assert_eq!(rig.get(&path).await.status, by_tag);
        assert_eq!(tags(&rig, "a").await.len(), usize::from(by_tag == StatusCode::OK));
    }
}

async fn wait(rounds: usize) {
    for _ in 0..rounds {
        tokio::task::yield_now().await;
    }
}
