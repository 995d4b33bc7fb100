use http::StatusCode;
use serde_json::json;

use crate::rig::{Fault, OCI_MANIFEST, Rig, image};

#[tokio::test]
async fn content_that_cannot_be_reached_is_unknown_so_that_mirrors_fail_over() {
    let pushed = Rig::new();
    pushed.push_image("a", "latest").await;
    let layer = pushed.push_blob("a", b"layer").await;
    let blob = format!("/v2/a/blobs/{layer}");
    for operation in ["", "stat", "read"] {
        let rig = pushed.restarted();
        rig.driver.fail(operation, Fault::Unavailable);
        let errors = rig.get(&blob).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        assert_eq!(errors[0]["detail"]["unavailable"], "no peer answers");
    }
    for operation in ["", "get", "read"] {
        let rig = pushed.restarted();
        rig.driver.fail(operation, Fault::Unavailable);
        let errors =
            rig.get("/v2/a/manifests/latest").await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        assert_eq!(errors[0]["detail"]["unavailable"], "no peer answers");
    }
}

#[tokio::test]
async fn a_failure_inside_is_500_and_tells_nothing() {
    let pushed = Rig::new();
    pushed.push_image("a", "latest").await;
    let layer = pushed.push_blob("a", b"layer").await;
    let rig = pushed.restarted();
    rig.driver.fail("", Fault::Failed);
    for path in [format!("/v2/a/blobs/{layer}"), "/v2/a/manifests/latest".into(), "/v2/a/tags/list".into()] {
        let errors = rig.get(&path).await.expect_error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
        assert!(!errors.to_string().contains("secret"), "{errors}");
    }
}

#[tokio::test]
async fn a_write_that_storage_cannot_take_now_may_be_tried_later() {
    let rig = Rig::new();
    rig.driver.fail("put", Fault::Unavailable);
    let reply = rig.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(reply.header("retry-after"), "5");
    let errors = reply.expect_error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
    assert_eq!(errors[0]["detail"]["unavailable"], "no peer answers");
}

#[tokio::test]
async fn a_driver_that_only_reads_answers_reads_and_refuses_writes() {
    let rig = Rig::new();
    for operation in ["put", "write", "stat"] {
        rig.driver.fail(operation, Fault::Unsupported);
    }
    rig.get("/v2/unknown/tags/list").await.expect_error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    let reply = rig.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    reply.expect_error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
}

#[tokio::test]
async fn an_upload_whose_last_step_failed_can_be_finished_again() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    rig.send("PATCH", &location, &[], "layer").await.expect(StatusCode::ACCEPTED);
    let put = format!("{location}?digest={}", shoal_core::Digest::sha256(b"layer"));
    rig.driver.fail("write", Fault::Failed);
    rig.send("PUT", &put, &[], "").await.expect_error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
    rig.driver.heal();
    rig.send("PUT", &put, &[], "").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn damaged_manifests_are_not_handed_out() {
    let rig = Rig::new();
    let document = rig.push_image("a", "latest").await;
    let path = shoal_driver::RegistryPath::BlobData(crate::rig::digest_of(&document)).to_driver_path();
    let other = json!({"schemaVersion": 2, "config": image(OCI_MANIFEST)["config"]}).to_string().into();
    shoal_driver::StorageDriver::put_content(&*rig.driver, &Default::default(), &path, other).await.unwrap();
    let reply = rig.get("/v2/a/manifests/latest").await;
    reply.expect_error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
}
