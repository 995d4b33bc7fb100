use axum::body::Body;
use http::StatusCode;
use shoal_registry::Config;

use crate::rig::Rig;

#[tokio::test]
async fn the_base_says_that_this_is_a_registry() {
    let rig = Rig::new();
    for path in ["/v2/", "/v2"] {
        let reply = rig.get(path).await.expect(StatusCode::OK);
        assert_eq!(&reply.body[..], b"{}");
        assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        rig.head(path).await.expect(StatusCode::OK);
    }
    assert!(rig.driver.take_calls().is_empty());
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_errors_of_the_specification() {
    let rig = Rig::new();
    for path in ["/", "/v1/_ping", "/v2/_other", "/v2/a", "/v2/a/b/c", "/metrics"] {
        rig.get(path).await.expect_error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    }
    for (method, path) in [
        ("POST", "/v2/"),
        ("PUT", "/v2/a/tags/list"),
        ("DELETE", "/v2/a/tags/list"),
        ("GET", "/v2/a/blobs/uploads/"),
        ("OPTIONS", "/v2/a/manifests/x"),
        ("PATCH", "/v2/a/blobs/sha256:x"),
        ("BREW", "/v2/a/manifests/x"),
    ] {
        let reply = rig.send(method, path, &[], Body::empty()).await;
        assert!(!reply.header("allow").is_empty());
        reply.expect_error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_read_only_registry_refuses_every_write_and_answers_reads() {
    let writable = Rig::new();
    writable.push_image("a", "latest").await;
    let config = Config { read_only: true, ..Config::default() };
    let rig = Rig::on(writable.driver.clone(), config);
    let session = "/v2/a/blobs/uploads/4b8ce1b1-3f42-4c5b-8f0a-0f2f3a9c1d2e";
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PATCH", session),
        ("PUT", session),
        ("DELETE", session),
        ("PUT", "/v2/a/manifests/latest"),
        ("DELETE", "/v2/a/manifests/latest"),
        ("DELETE", "/v2/a/manifests/sha256:x"),
        ("DELETE", "/v2/a/blobs/sha256:x"),
    ] {
        let reply = rig.send(method, path, &[], "x").await;
        reply.expect_error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    }
    assert!(rig.driver.take_calls().is_empty());
    rig.get("/v2/a/manifests/latest").await.expect(StatusCode::OK);
    rig.get("/v2/a/tags/list").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn encoded_request_bodies_are_refused() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    for (method, path) in [("PATCH", location.as_str()), ("PUT", "/v2/a/manifests/x")] {
        let reply = rig.send(method, path, &[("content-encoding", "gzip")], "x").await;
        reply.expect_error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED");
    }
    let reply = rig.send("PATCH", &location, &[("content-encoding", "identity")], "x").await;
    reply.expect(StatusCode::ACCEPTED);
}
