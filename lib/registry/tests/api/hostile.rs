use axum::body::Body;
use http::StatusCode;
use shoal_core::Digest;

use crate::rig::Rig;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn no_path_leads_out_of_a_repository() {
    let rig = Rig::new();
    let long = "a".repeat(300);
    let longer = "a/".repeat(2500) + "a";
    for name in [
        "..",
        ".",
        "a/..",
        "../a",
        "%2e%2e",
        "a/%2e%2e/b",
        "%252e%252e",
        "a%2fb",
        "a%2Fb",
        "%00",
        "a%00",
        "a%5cb",
        "a//b",
        "",
        "A",
        "a_/b",
        "_a",
        "a;b",
        "a:80/b",
        "a%20b",
        "a%0d%0ab",
        "%ff",
        "%",
        "%zz",
        "a..b",
        &long,
        &longer,
    ] {
        for (method, rest) in [
            ("GET", format!("blobs/{DIGEST}")),
            ("HEAD", format!("blobs/{DIGEST}")),
            ("GET", "manifests/latest".to_owned()),
            ("PUT", "manifests/latest".to_owned()),
            ("HEAD", "manifests/latest".to_owned()),
            ("DELETE", "manifests/latest".to_owned()),
            ("DELETE", format!("blobs/{DIGEST}")),
            ("GET", format!("referrers/{DIGEST}")),
            ("GET", "tags/list".to_owned()),
            ("POST", "blobs/uploads/".to_owned()),
            ("PATCH", "blobs/uploads/4b8ce1b1-3f42-4c5b-8f0a-0f2f3a9c1d2e".to_owned()),
            ("GET", "blobs/uploads/4b8ce1b1-3f42-4c5b-8f0a-0f2f3a9c1d2e".to_owned()),
            ("PUT", "blobs/uploads/4b8ce1b1-3f42-4c5b-8f0a-0f2f3a9c1d2e".to_owned()),
            ("DELETE", "blobs/uploads/4b8ce1b1-3f42-4c5b-8f0a-0f2f3a9c1d2e".to_owned()),
        ] {
            let reply = rig.send(method, &format!("/v2/{name}/{rest}"), &[], Body::empty()).await;
            if method == "HEAD" {
                reply.expect(StatusCode::BAD_REQUEST);
            } else {
                reply.expect_error(StatusCode::BAD_REQUEST, "NAME_INVALID");
            }
        }
    }
    assert!(rig.driver.take_calls().is_empty());
}

#[tokio::test]
async fn only_digests_are_taken_as_digests() {
    let rig = Rig::new();
    let upper = DIGEST.to_uppercase();
    let short_sha512 = DIGEST.replace("sha256", "sha512");
    for digest in [
        "sha256:totallywrong",
        "sha256:",
        "sha256",
        ":",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        &upper,
        &DIGEST[..DIGEST.len() - 1],
        &format!("{DIGEST}0"),
        &DIGEST.replace("e3", "E3"),
        &DIGEST.replace("e3", "g3"),
        &short_sha512,
        "sha256:%2e%2e",
    ] {
        if digest.contains(':') {
            for method in ["GET", "PUT", "DELETE"] {
                let reply = rig.send(method, &format!("/v2/a/manifests/{digest}"), &[], "{}").await;
                reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
            }
        }
        rig.get(&format!("/v2/a/blobs/{digest}"))
            .await
            .expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        let reply = rig.send("DELETE", &format!("/v2/a/blobs/{digest}"), &[], Body::empty()).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        let reply = rig.get(&format!("/v2/a/referrers/{digest}")).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        for query in [format!("digest={digest}"), format!("mount={digest}&from=b")] {
            let reply = rig.send("POST", &format!("/v2/a/blobs/uploads/?{query}"), &[], Body::empty()).await;
            reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        }
    }
    assert!(rig.driver.take_calls().is_empty());
}

#[tokio::test]
async fn only_upload_ids_are_taken_as_upload_ids() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let id = location.rsplit('/').next().unwrap();
    rig.driver.take_calls();
    for other in [
        &id.to_uppercase(),
        &id.replace('-', ""),
        &format!("{{{id}}}"),
        "x",
        "...",
        &format!("urn:uuid:{id}"),
    ] {
        let path = format!("/v2/a/blobs/uploads/{other}").replace('{', "%7B").replace('}', "%7D");
        rig.get(&path).await.expect_error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    }
    assert!(rig.driver.take_calls().is_empty());
    rig.get(&location).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_clients_write_comes_back_as_json_only() {
    let rig = Rig::new();
    let reply = rig.get("/v2/%3Cscript%3E%22/tags/list").await;
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    reply.expect_error(StatusCode::BAD_REQUEST, "NAME_INVALID");
    let digest = Digest::sha256(b"x");
    rig.get(&format!("/v2/a/blobs/{digest}?ns=%0d%0aX:y"))
        .await
        .expect_error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
}
