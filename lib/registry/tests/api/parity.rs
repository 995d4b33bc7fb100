use axum::body::Body;
use http::StatusCode;
use shoal_core::Digest;

use crate::rig::{Rig, digest_of};

#[tokio::test]
async fn head_says_what_get_says_on_every_route() {
    let rig = Rig::new();
    let manifest = digest_of(&rig.push_image("a", "latest").await);
    let empty = rig.push_blob("a", b"").await;
    let layer = Digest::sha256(b"layer");
    let unknown = Digest::sha256(b"unknown");
    let paths = [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/_catalog?n=x".to_owned(),
        "/v2/a/tags/list".to_owned(),
        "/v2/a/tags/list?n=0".to_owned(),
        "/v2/unknown/tags/list".to_owned(),
        "/v2/a/manifests/latest".to_owned(),
        "/v2/a/manifests/unknown".to_owned(),
        "/v2/a/manifests/sha256:wrong".to_owned(),
        format!("/v2/a/manifests/{manifest}"),
        format!("/v2/a/manifests/{unknown}"),
        format!("/v2/a/blobs/{layer}"),
        format!("/v2/a/blobs/{empty}"),
        format!("/v2/a/blobs/{unknown}"),
        format!("/v2/a/referrers/{manifest}"),
        format!("/v2/a/referrers/{manifest}?artifactType=a/b"),
        "/v2/a/referrers/wrong".to_owned(),
        "/elsewhere".to_owned(),
        rig.start_upload("a").await,
    ];
    let tags = [format!("\"{manifest}\""), format!("\"{layer}\"")];
    let conditions = [vec![], vec![("if-none-match", &*tags[0])], vec![("if-none-match", &*tags[1])]];
    for path in &paths {
        for headers in &conditions {
            let get = rig.send("GET", path, headers, Body::empty()).await;
            let head = rig.send("HEAD", path, headers, Body::empty()).await;
            assert_eq!((head.status, &head.headers), (get.status, &get.headers), "{path} {headers:?}");
            if get.status == StatusCode::OK && path != "/v2/" {
                assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
            }
        }
    }
}
