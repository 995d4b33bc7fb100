//! The shapes of manifests that the conformance suite pushes, each pulled, listed and deleted.

use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};
use shoal_core::Digest;
use shoal_registry::Config;

use crate::rig::{OCI_INDEX, OCI_MANIFEST, Rig, descriptor, digest_of, image, index};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn with(mut document: Value, key: &str, value: Value) -> Value {
    document[key] = value;
    document
}

/// Pushes by digest and by tag, pulls both ways, deletes.
async fn lives(rig: &Rig, document: &Value) {
    let media_type = document["mediaType"].as_str().unwrap();
    let by_digest = format!("/v2/a/manifests/{}", digest_of(document));
    for path in [&by_digest, "/v2/a/manifests/shape"] {
        let put = rig.put_manifest(path, media_type, document).await.expect(StatusCode::CREATED);
        assert_eq!(put.header("location"), by_digest);
        for path in [path, put.header("location")] {
            let get = rig.get(path).await.expect(StatusCode::OK);
            assert_eq!(get.body, document.to_string());
            assert_eq!(get.header("content-type"), media_type);
            assert_eq!(rig.head(path).await.headers, get.headers);
        }
    }
    rig.send("DELETE", &by_digest, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
    for path in [&by_digest, "/v2/a/manifests/shape"] {
        rig.get(path).await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn images_and_artifacts_of_every_shape_live() {
    let rig = Rig::new();
    rig.push_image("a", "child").await;
    let image = image(OCI_MANIFEST);
    let artifact = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b",
        "config": descriptor(b"{}", EMPTY), "layers": [descriptor(b"{}", EMPTY)]});
    let data = json!({"mediaType": EMPTY, "digest": Digest::sha256(b"{}"), "size": 2, "data": "e30="});
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    for document in [
        image.clone(),
        with(image.clone(), "layers", json!([])),
        with(
            image.clone(),
            "layers",
            json!([
                descriptor(b"t", foreign),
                descriptor(b"g", &format!("{foreign}+gzip")),
                descriptor(b"z", &format!("{foreign}+zstd"))
            ]),
        ),
        with(image.clone(), "annotations", json!({"a": "b"})),
        with(image.clone(), "org.example.custom", json!({"deep": [1, null, {"er": true}]})),
        with(image.clone(), "config", data.clone()),
        artifact.clone(),
        with(artifact.clone(), "layers", json!([])),
        with(artifact, "layers", json!([data])),
    ] {
        lives(&rig, &document).await;
    }
    let mut without = image;
    without.as_object_mut().unwrap().remove("layers");
    lives(&rig, &without).await;
}

#[tokio::test]
async fn indexes_of_every_shape_live() {
    let rig = Rig::new();
    let child = rig.push_image("a", "child").await;
    let inner = index(OCI_INDEX, std::slice::from_ref(&child));
    rig.put_manifest("/v2/a/manifests/inner", OCI_INDEX, &inner).await.expect(StatusCode::CREATED);
    let nested = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [descriptor(inner.to_string().as_bytes(), OCI_INDEX)]});
    for document in [
        index(OCI_INDEX, &[]),
        nested.clone(),
        with(nested.clone(), "artifactType", json!("a/b")),
        with(nested, "custom", json!([1])),
    ] {
        lives(&rig, &document).await;
    }
    lives(&rig, &inner).await;
}

#[tokio::test]
async fn indexes_nest_as_deep_as_clients_like_since_nobody_follows_them() {
    let rig = Rig::new();
    let mut document = index(OCI_INDEX, &[]);
    rig.put_manifest("/v2/a/manifests/0", OCI_INDEX, &document).await.expect(StatusCode::CREATED);
    for level in 1..1000 {
        document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
            "manifests": [descriptor(document.to_string().as_bytes(), OCI_INDEX)]});
        rig.driver.take_calls();
        let path = format!("/v2/a/manifests/{}", digest_of(&document));
        rig.put_manifest(&path, OCI_INDEX, &document).await.expect(StatusCode::CREATED);
        // One look at its child, two writes, however deep.
        assert_eq!(rig.driver.take_calls().len(), 3, "{level}");
    }
}

#[tokio::test]
async fn an_index_may_miss_children_only_where_that_is_allowed() {
    let sparse = index(OCI_INDEX, &[image(OCI_MANIFEST)]);
    let rig = Rig::new();
    let reply = rig.put_manifest("/v2/a/manifests/x", OCI_INDEX, &sparse).await;
    reply.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
    let rig = Rig::with_config(Config { sparse_indexes: true, ..Config::default() });
    lives(&rig, &sparse).await;
    // An image without its layers is never whole.
    let reply = rig.put_manifest("/v2/a/manifests/x", OCI_MANIFEST, &image(OCI_MANIFEST)).await;
    reply.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_gets_all_tags_of_its_query() {
    let rig = Rig::new();
    let document = rig.push_image("a", "other").await;
    let digest = digest_of(&document);
    let tagged = async |tags: &[String]| {
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let path = format!("/v2/a/manifests/{digest}?{}", query.join("&"));
        rig.put_manifest(&path, OCI_MANIFEST, &document).await
    };
    let tags: Vec<String> = (0..46).map(|number| format!("t{number}")).collect();
    let reply = tagged(&tags).await.expect(StatusCode::CREATED);
    let said: Vec<&str> = reply.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
    assert_eq!(said, tags);
    for tag in &tags {
        let reply = rig.get(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::OK);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    }
    let more: Vec<String> = (0..47).map(|number| format!("more{number}")).collect();
    tagged(&more).await.expect_error(StatusCode::URI_TOO_LONG, "UNSUPPORTED");
    tagged(&["good".into(), ".bad".into()]).await.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
    for tag in ["more0", "good"] {
        rig.get(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::NOT_FOUND);
    }
    let reply = rig.put_manifest("/v2/a/manifests/one?tag=two", OCI_MANIFEST, &document).await;
    assert!(!reply.expect(StatusCode::CREATED).headers.contains_key("oci-tag"));
    rig.get("/v2/a/manifests/two").await.expect(StatusCode::NOT_FOUND);
}
