use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::{Value, json};
use shoal_core::{Algorithm, Digest};

use crate::rig::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Rig, descriptor, digest_of, image, index,
};

const LIMIT: usize = 4 << 20;

async fn rig_with_blobs() -> Rig {
    let rig = Rig::new();
    rig.push_blob("a", b"{}").await;
    rig.push_blob("a", b"layer").await;
    rig
}

#[tokio::test]
async fn every_kind_of_manifest_comes_back_byte_for_byte() {
    let rig = rig_with_blobs().await;
    rig.push_image("a", "child").await;
    let child = image(OCI_MANIFEST);
    for (media_type, document) in [
        (OCI_MANIFEST, image(OCI_MANIFEST)),
        (DOCKER_MANIFEST, image(DOCKER_MANIFEST)),
        (OCI_INDEX, index(OCI_INDEX, std::slice::from_ref(&child))),
        (DOCKER_LIST, index(DOCKER_LIST, std::slice::from_ref(&child))),
        (OCI_INDEX, index(OCI_INDEX, &[])),
    ] {
        let bytes = format!("{}\n ", serde_json::to_string_pretty(&document).unwrap());
        let digest = Digest::sha256(bytes.as_bytes());
        let headers = [("content-type", &*format!("{media_type}; charset=utf-8"))];
        let put = rig.send("PUT", "/v2/a/manifests/tag", &headers, bytes.clone()).await;
        let put = put.expect(StatusCode::CREATED);
        assert_eq!(put.header("docker-content-digest"), digest.to_string());
        assert_eq!(put.header("location"), format!("/v2/a/manifests/{digest}"));
        for path in ["/v2/a/manifests/tag", put.header("location")] {
            let get =
                rig.send("GET", path, &[("accept", "text/html")], Body::empty()).await.expect(StatusCode::OK);
            assert_eq!(get.body, bytes);
            assert_eq!(get.header("content-type"), media_type);
            assert_eq!(get.header("content-length"), bytes.len().to_string());
            assert_eq!(get.header("docker-content-digest"), digest.to_string());
            assert_eq!(get.header("etag"), format!("\"{digest}\""));
            let head = rig.head(path).await.expect(StatusCode::OK);
            assert_eq!(head.headers, get.headers);
            assert!(head.body.is_empty());
        }
    }
}

#[tokio::test]
async fn a_tag_moves_and_its_old_manifest_stays() {
    let rig = rig_with_blobs().await;
    let old = rig.push_image("a", "latest").await;
    let mut new = old.clone();
    new["annotations"] = json!({"version": "2"});
    rig.put_manifest("/v2/a/manifests/latest", OCI_MANIFEST, &new).await.expect(StatusCode::CREATED);
    assert_eq!(rig.get("/v2/a/manifests/latest").await.body, new.to_string());
    assert_eq!(rig.get(&format!("/v2/a/manifests/{}", digest_of(&old))).await.body, old.to_string());
}

#[tokio::test]
async fn a_manifest_by_digest_has_that_digest_whatever_the_algorithm() {
    let rig = rig_with_blobs().await;
    let document = image(OCI_MANIFEST);
    let bytes = document.to_string();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, bytes.as_bytes());
        let path = format!("/v2/a/manifests/{digest}");
        let put = rig.put_manifest(&path, OCI_MANIFEST, &document).await.expect(StatusCode::CREATED);
        assert_eq!(put.header("docker-content-digest"), digest.to_string());
        assert_eq!(
            rig.get(&path).await.expect(StatusCode::OK).header("docker-content-digest"),
            digest.to_string()
        );
        let other = Digest::of(algorithm, b"other");
        let reply = rig.put_manifest(&format!("/v2/a/manifests/{other}"), OCI_MANIFEST, &document).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        rig.get(&format!("/v2/a/manifests/{other}")).await.expect(StatusCode::NOT_FOUND);
    }
    rig.get("/v2/a/tags/list").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_manifest_is_404() {
    let rig = Rig::new();
    rig.push_image("a", "latest").await;
    let digest = digest_of(&image(OCI_MANIFEST));
    let other = Digest::sha256(b"other");
    for path in [
        "/v2/a/manifests/other",
        "/v2/a/manifests/.INVALID_MANIFEST_NAME",
        "/v2/b/manifests/latest",
        &format!("/v2/b/manifests/{digest}"),
        &format!("/v2/a/manifests/{other}"),
        // A layer is in the repository, and is no manifest.
        &format!("/v2/a/manifests/{}", Digest::sha256(b"layer")),
    ] {
        rig.get(path).await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        rig.head(path).await.expect(StatusCode::NOT_FOUND);
    }
    let reply = rig.put_manifest("/v2/a/manifests/.bad", OCI_MANIFEST, &image(OCI_MANIFEST)).await;
    reply.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let pushed = Rig::new();
    pushed.push_image("a", "latest").await;
    let rig = pushed.restarted();
    let tag = format!("\"{}\"", digest_of(&image(OCI_MANIFEST)));
    let reply = rig.send("GET", "/v2/a/manifests/latest", &[("if-none-match", &tag)], Body::empty()).await;
    assert_eq!(reply.expect(StatusCode::NOT_MODIFIED).header("etag"), tag);
    assert_eq!(rig.driver.take_calls(), ["get tag link"]);
}

#[tokio::test]
async fn the_driver_is_asked_in_the_order_that_keeps_a_tag_right() {
    let rig = rig_with_blobs().await;
    let rig = rig.restarted();
    rig.put_manifest("/v2/a/manifests/t", OCI_MANIFEST, &image(OCI_MANIFEST))
        .await
        .expect(StatusCode::CREATED);
    let calls = rig.driver.take_calls();
    let (checks, writes) = calls.split_at(4);
    assert_eq!(checks.iter().filter(|call| *call == "get layer link").count(), 2);
    assert_eq!(writes, ["put blob", "put revision link", "put tag link", "put index link"]);
    rig.get("/v2/a/manifests/t").await.expect(StatusCode::OK);
    assert_eq!(rig.driver.take_calls(), ["get tag link", "get revision link", "read blob"]);
    let rig = rig.restarted();
    rig.get(&format!("/v2/a/manifests/{}", digest_of(&image(OCI_MANIFEST)))).await.expect(StatusCode::OK);
    assert_eq!(rig.driver.take_calls(), ["get revision link", "read blob"]);
}

#[tokio::test]
async fn a_warm_manifest_costs_no_driver_call_but_that_for_its_tag() {
    let pushed = Rig::new();
    let document = pushed.push_image("a", "t").await;
    let rig = pushed.restarted();
    let (by_tag, by_digest) = ("/v2/a/manifests/t", format!("/v2/a/manifests/{}", digest_of(&document)));
    let cold = rig.get(by_tag).await.expect(StatusCode::OK);
    rig.driver.take_calls();
    for (path, calls) in [(by_tag, vec!["get tag link"]), (&by_digest, vec![])] {
        let warm = rig.get(path).await.expect(StatusCode::OK);
        assert_eq!((&warm.headers, &warm.body), (&cold.headers, &cold.body));
        assert_eq!(rig.driver.take_calls(), calls);
        let head = rig.head(path).await.expect(StatusCode::OK);
        assert_eq!((&head.headers, head.body.len()), (&cold.headers, 0));
        assert_eq!(rig.driver.take_calls(), calls);
    }
}

#[tokio::test]
async fn a_warm_manifest_is_unknown_to_a_repository_without_a_link_to_it() {
    let rig = Rig::new();
    let path = digest_of(&rig.push_image("a", "t").await);
    rig.get(&format!("/v2/a/manifests/{path}")).await.expect(StatusCode::OK);
    let reply = rig.get(&format!("/v2/b/manifests/{path}")).await;
    reply.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn what_went_away_behind_the_registry_is_unknown_after_a_while() {
    let rig = Rig::new();
    let digest = digest_of(&rig.push_image("a", "t").await);
    let path = format!("/v2/a/manifests/{digest}");
    rig.get(&path).await.expect(StatusCode::OK);
    let link = shoal_driver::RegistryPath::RevisionLink("a".parse().unwrap(), digest).to_driver_path();
    shoal_driver::StorageDriver::delete(&*rig.driver, &Default::default(), &link).await.unwrap();
    rig.get(&path).await.expect(StatusCode::OK);
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    rig.get(&path).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_missing_blob_is_named() {
    let rig = Rig::new();
    rig.push_blob("b", b"layer").await;
    let reply = rig.put_manifest("/v2/a/manifests/x", OCI_MANIFEST, &image(OCI_MANIFEST)).await;
    let errors = reply.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
    let missing: Vec<&Value> =
        errors.as_array().unwrap().iter().map(|error| &error["detail"]["digest"]).collect();
    assert_eq!(missing, [&json!(Digest::sha256(b"{}")), &json!(Digest::sha256(b"layer"))]);
    rig.get("/v2/a/manifests/x").await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_index_needs_its_children_as_manifests_of_the_repository() {
    let rig = rig_with_blobs().await;
    let child = image(OCI_MANIFEST);
    let document = index(OCI_INDEX, std::slice::from_ref(&child));
    rig.push_blob("a", child.to_string().as_bytes()).await;
    let reply = rig.put_manifest("/v2/a/manifests/x", OCI_INDEX, &document).await;
    reply.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
    rig.push_image("a", "child").await;
    rig.put_manifest("/v2/a/manifests/x", OCI_INDEX, &document).await.expect(StatusCode::CREATED);
    let nested = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [descriptor(document.to_string().as_bytes(), OCI_INDEX)]});
    rig.put_manifest("/v2/a/manifests/y", OCI_INDEX, &nested).await.expect(StatusCode::CREATED);
    // BuildKit's cache is an index of layers.
    let cache = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip")]});
    rig.put_manifest("/v2/a/manifests/cache", OCI_INDEX, &cache).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn foreign_layers_and_subjects_need_not_be_there() {
    let rig = rig_with_blobs().await;
    let mut document = image(OCI_MANIFEST);
    document["layers"] = json!([
        descriptor(b"far away", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        descriptor(b"windows", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    ]);
    document["subject"] = descriptor(b"not yet", OCI_MANIFEST);
    rig.put_manifest("/v2/a/manifests/x", OCI_MANIFEST, &document).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn documents_that_are_not_what_they_say_are_refused() {
    let rig = rig_with_blobs().await;
    let mut confused = index(OCI_INDEX, &[]);
    confused["layers"] = image(OCI_MANIFEST)["layers"].clone();
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let deep = json!({"x": 1}).to_string().replace('1', &("[".repeat(10_000) + &"]".repeat(10_000)));
    for (media_type, body, status) in [
        (OCI_INDEX, confused.to_string(), StatusCode::BAD_REQUEST),
        (OCI_INDEX, image(OCI_INDEX).to_string(), StatusCode::BAD_REQUEST),
        (DOCKER_MANIFEST, image(OCI_MANIFEST).to_string(), StatusCode::BAD_REQUEST),
        (schema1, image(OCI_MANIFEST).to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", image(OCI_MANIFEST).to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (OCI_MANIFEST, image(schema1).to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (OCI_MANIFEST, "not json".to_owned(), StatusCode::BAD_REQUEST),
        (OCI_MANIFEST, String::new(), StatusCode::BAD_REQUEST),
        (OCI_MANIFEST, deep, StatusCode::BAD_REQUEST),
    ] {
        let reply = rig.send("PUT", "/v2/a/manifests/x", &[("content-type", media_type)], body).await;
        reply.expect_error(status, "MANIFEST_INVALID");
    }
    rig.get("/v2/a/manifests/x").await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_manifest_may_be_4_mib_and_no_byte_more() {
    let rig = rig_with_blobs().await;
    for (length, status) in [
        (LIMIT - 1, StatusCode::CREATED),
        (LIMIT, StatusCode::CREATED),
        (LIMIT + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let mut document = image(OCI_MANIFEST);
        document["annotations"] = json!({"padding": ""});
        let padding = "x".repeat(length - document.to_string().len());
        document["annotations"]["padding"] = json!(padding);
        let bytes = Bytes::from(document.to_string());
        assert_eq!(bytes.len(), length);
        // In parts, without a length in the headers: it is counted as it comes.
        let parts: Vec<Result<Bytes, std::io::Error>> =
            bytes.chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let path = format!("/v2/a/manifests/{}", Digest::sha256(&bytes));
        let body = Body::from_stream(stream::iter(parts));
        let reply = rig.send("PUT", &path, &[("content-type", OCI_MANIFEST)], body).await.expect(status);
        if status == StatusCode::CREATED {
            assert_eq!(rig.get(&path).await.expect(StatusCode::OK).body, bytes);
        } else {
            reply.expect_error(status, "SIZE_INVALID");
        }
    }
}

#[tokio::test]
async fn a_blob_larger_than_any_manifest_is_not_read_as_one() {
    let rig = rig_with_blobs().await;
    let large = vec![b' '; LIMIT + 1];
    let digest = rig.push_blob("a", &large).await;
    let link = shoal_driver::RegistryPath::RevisionLink("a".parse().unwrap(), digest).to_driver_path();
    let content = digest.to_string().into();
    shoal_driver::StorageDriver::put_content(&*rig.driver, &Default::default(), &link, content)
        .await
        .unwrap();
    let reply = rig.get(&format!("/v2/a/manifests/{digest}")).await;
    reply.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn the_observer_hears_of_manifests_too() {
    let rig = Rig::new();
    let length = rig.push_image("a", "latest").await.to_string().len();
    assert_eq!(rig.events.take(), ["pushed 2", "pushed 5", &format!("pushed {length}")]);
    rig.get("/v2/a/manifests/latest").await.expect(StatusCode::OK);
    assert_eq!(rig.events.take(), ["first byte", &format!("finished {length}")]);
}
