//! SHA-512 beside SHA-256: what is pushed by one is answered by that one, and the other names nothing.

use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};
use shoal_core::{Algorithm, Digest};

use crate::rig::{OCI_MANIFEST, Rig};

fn sha512(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, content)
}

async fn check_pulls(rig: &Rig, location: &str, digest: &Digest, content: &[u8]) {
    assert!(location.ends_with(&digest.to_string()), "{location}");
    let get = rig.get(location).await.expect(StatusCode::OK);
    assert_eq!(&get.body[..], content);
    assert_eq!(get.header("docker-content-digest"), digest.to_string());
    assert_eq!(get.header("etag"), format!("\"{digest}\""));
    assert_eq!(rig.head(location).await.headers, get.headers);
}

#[tokio::test]
async fn blobs_are_pushed_in_every_way() {
    for (number, query) in ["", "?digest-algorithm=sha512", "?digest-algorithm=sha256"].iter().enumerate() {
        let rig = Rig::new();
        let content = format!("content {number}").into_bytes();
        let digest = sha512(&content);
        let path = format!("/v2/a/blobs/uploads/{query}");
        let start = async || {
            let reply = rig.send("POST", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
            reply.header("location").to_owned()
        };
        let with_digest = |location: &str, digest: &Digest| {
            format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' })
        };
        // Nothing before, the whole with the PUT.
        let put = with_digest(&start().await, &digest);
        let reply = rig.send("PUT", &put, &[], content.clone()).await.expect(StatusCode::CREATED);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        check_pulls(&rig, reply.header("location"), &digest, &content).await;
        // In parts, by the address that each answer gives.
        let mut location = start().await;
        for part in content.chunks(4) {
            let reply = rig.send("PATCH", &location, &[], part.to_vec()).await.expect(StatusCode::ACCEPTED);
            location = reply.header("location").to_owned();
        }
        rig.get(&location).await.expect(StatusCode::NO_CONTENT);
        let reply = rig.send("PUT", &with_digest(&location, &digest), &[], Body::empty()).await;
        check_pulls(&rig, reply.expect(StatusCode::CREATED).header("location"), &digest, &content).await;
        // A wrong one is refused, and not kept.
        let wrong = sha512(b"wrong");
        let put = with_digest(&start().await, &wrong);
        let reply = rig.send("PUT", &put, &[], content.clone()).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        rig.get(&format!("/v2/a/blobs/{wrong}")).await.expect(StatusCode::NOT_FOUND);
        rig.get(&format!("/v2/a/blobs/{}", Digest::sha256(&content))).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn one_post_a_mount_and_a_delete_work() {
    let rig = Rig::new();
    let digest = sha512(b"content");
    let post = format!("/v2/a/blobs/uploads/?digest={digest}");
    let reply = rig.send("POST", &post, &[], "content").await.expect(StatusCode::CREATED);
    check_pulls(&rig, reply.header("location"), &digest, b"content").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    let reply = rig.send("POST", &mount, &[], Body::empty()).await.expect(StatusCode::CREATED);
    check_pulls(&rig, reply.header("location"), &digest, b"content").await;
    let path = format!("/v2/a/blobs/{digest}");
    rig.send("DELETE", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
    rig.get(&path).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_announced_algorithm_spares_a_second_reading() {
    for (query, read_again) in [("?digest-algorithm=sha512", false), ("", true)] {
        let rig = Rig::new();
        let path = format!("/v2/a/blobs/uploads/{query}");
        let reply = rig.send("POST", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
        let reply = rig.send("PATCH", reply.header("location"), &[], "content").await;
        let location = reply.expect(StatusCode::ACCEPTED).header("location").to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        rig.driver.take_calls();
        let put = format!("{location}{separator}digest={}", sha512(b"content"));
        rig.send("PUT", &put, &[], Body::empty()).await.expect(StatusCode::CREATED);
        assert_eq!(rig.driver.take_calls().contains(&"read upload".to_owned()), read_again);
    }
    let rig = Rig::new();
    for algorithm in ["sha384", "md5", "", "SHA512"] {
        let path = format!("/v2/a/blobs/uploads/?digest-algorithm={algorithm}");
        let reply = rig.send("POST", &path, &[], Body::empty()).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn an_image_is_sha512_throughout() {
    let rig = Rig::new();
    let descriptor = |content: &[u8], media_type: &str| json!({"mediaType": media_type, "digest": sha512(content), "size": content.len()});
    for content in [&b"{}"[..], b"layer"] {
        let post = format!("/v2/a/blobs/uploads/?digest={}", sha512(content));
        rig.send("POST", &post, &[], content.to_vec()).await.expect(StatusCode::CREATED);
    }
    let document: Value = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip")],
    });
    let bytes = document.to_string();
    let digest = sha512(bytes.as_bytes());
    let reply = rig.put_manifest(&format!("/v2/a/manifests/{digest}?tag=v1"), OCI_MANIFEST, &document).await;
    let reply = reply.expect(StatusCode::CREATED);
    assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    check_pulls(&rig, reply.header("location"), &digest, bytes.as_bytes()).await;
    let tagged = rig.get("/v2/a/manifests/v1").await.expect(StatusCode::OK);
    assert_eq!(tagged.header("docker-content-digest"), digest.to_string());
    let path = format!("/v2/a/manifests/{digest}");
    rig.send("DELETE", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
    rig.get("/v2/a/manifests/v1").await.expect(StatusCode::NOT_FOUND);
}
