use axum::body::Body;
use http::StatusCode;
use shoal_core::Digest;
use shoal_registry::Config;

use crate::rig::{OCI_MANIFEST, Rig, image};

fn rig() -> Rig {
    let listed = [("docker.io", ""), ("registry.example.com", "example")];
    let namespaces = listed.map(|(host, prefix)| (host.to_owned(), prefix.to_owned())).into();
    Rig::with_config(Config { namespaces, ..Config::default() })
}

#[tokio::test]
async fn an_image_is_the_same_by_query_by_path_and_by_its_own_name() {
    let rig = rig();
    rig.push_image("example/team/app", "latest").await;
    for path in [
        "/v2/example/team/app/manifests/latest",
        "/v2/team/app/manifests/latest?ns=registry.example.com",
        "/v2/registry.example.com/team/app/manifests/latest",
        "/v2/example/team/app/manifests/latest?ns=docker.io",
        "/v2/docker.io/example/team/app/manifests/latest",
    ] {
        let reply = rig.get(path).await.expect(StatusCode::OK);
        let namespace = path.split_once("?ns=").map(|(_, namespace)| namespace);
        assert_eq!(reply.headers.get("oci-namespace").map(|value| value.to_str().unwrap()), namespace);
        assert_eq!(rig.head(path).await.headers, reply.headers);
    }
    rig.get("/v2/team/app/manifests/latest").await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn an_unlisted_namespace_is_refused_before_anything_is_asked() {
    let rig = rig();
    for namespace in
        ["quay.io", "", "registry.example.com:443", "u@docker.io", "docker.io/x", "169.254.169.254"]
    {
        for rest in ["manifests/latest", "tags/list", &format!("blobs/{}", Digest::sha256(b""))] {
            let reply = rig.get(&format!("/v2/team/app/{rest}?ns={namespace}")).await;
            reply.expect_error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        }
    }
    assert!(rig.driver.take_calls().is_empty());
}

#[tokio::test]
async fn an_upload_stays_in_its_namespace() {
    let rig = rig();
    for (post, expected) in [
        ("/v2/app/blobs/uploads/?ns=registry.example.com", "?ns=registry.example.com"),
        ("/v2/registry.example.com/app/blobs/uploads/", ""),
    ] {
        let location = rig.send("POST", post, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
        let location = location.header("location").to_owned();
        assert!(location.starts_with("/v2/") && location.ends_with(expected), "{location}");
        let patched = rig.send("PATCH", &location, &[], "layer").await.expect(StatusCode::ACCEPTED);
        assert_eq!(patched.header("location"), location);
        let separator = if location.contains('?') { '&' } else { '?' };
        let digest = Digest::sha256(b"layer");
        let put = format!("{location}{separator}digest={digest}");
        let created = rig.send("PUT", &put, &[], Body::empty()).await.expect(StatusCode::CREATED);
        rig.get(created.header("location")).await.expect(StatusCode::OK);
        rig.get(&format!("/v2/example/app/blobs/{digest}")).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_mount_reads_its_source_in_the_same_namespace() {
    let rig = rig();
    let digest = rig.push_blob("example/source", b"layer").await;
    let query = format!("mount={digest}&from=source&ns=registry.example.com");
    let reply = rig.send("POST", &format!("/v2/app/blobs/uploads/?{query}"), &[], Body::empty()).await;
    rig.get(reply.expect(StatusCode::CREATED).header("location")).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_manifest_pushed_in_a_namespace_can_be_pulled_from_its_location() {
    let rig = rig();
    for content in [&b"{}"[..], b"layer"] {
        rig.push_blob("example/app", content).await;
    }
    let path = "/v2/app/manifests/latest?ns=registry.example.com";
    let reply = rig.put_manifest(path, OCI_MANIFEST, &image(OCI_MANIFEST)).await.expect(StatusCode::CREATED);
    rig.get(reply.header("location")).await.expect(StatusCode::OK);
}
