//! A registry that dies between any two changes of its storage, on drivers that make each change at one instant.

use std::sync::Arc;

use axum::body::Body;
use http::StatusCode;
use serde_json::Value;
use shoal_core::Digest;
use shoal_driver::{FilesystemDriver, MemoryDriver, StorageDriver};
use shoal_registry::Config;

use crate::rig::{OCI_MANIFEST, Rig, image};

/// Pushes an image, and goes on whatever is refused. Says whether the last request was acknowledged.
async fn push(rig: &Rig, tag: &str) -> bool {
    for content in ["{}", "layer"] {
        let digest = Digest::sha256(content.as_bytes());
        rig.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], content).await;
    }
    let put = rig.put_manifest(&format!("/v2/a/manifests/{tag}"), OCI_MANIFEST, &image(OCI_MANIFEST)).await;
    put.status == StatusCode::CREATED
}

/// The tags that are listed, each of which names a whole image.
async fn whole_tags(rig: &Rig) -> Vec<String> {
    let list = rig.send("GET", "/v2/a/tags/list", &[], Body::empty()).await;
    let list: Value = serde_json::from_slice(&list.body).unwrap();
    let tags = list["tags"].as_array().into_iter().flatten();
    let tags: Vec<String> = tags.map(|tag| tag.as_str().unwrap().to_owned()).collect();
    for tag in &tags {
        rig.get(&format!("/v2/a/manifests/{tag}")).await.expect(StatusCode::OK);
        for content in [b"{}".as_slice(), b"layer"] {
            let blob = rig.get(&format!("/v2/a/blobs/{}", Digest::sha256(content))).await;
            assert_eq!(blob.expect(StatusCode::OK).body, content);
        }
    }
    tags
}

async fn dies_anywhere(storage: impl Fn() -> Arc<dyn StorageDriver>) {
    for changes in 0.. {
        let rig = Rig::on(storage(), Config::default());
        rig.driver.die_after(changes);
        let acknowledged = push(&rig, "1").await;
        let again = rig.restarted();
        let tags = whole_tags(&again).await;
        assert!(!acknowledged || tags == ["1"], "after {changes} changes: {tags:?}");
        assert!(push(&again, "2").await, "after {changes} changes nothing can be pushed");
        assert!(whole_tags(&again).await.contains(&"2".to_owned()));
        if acknowledged {
            return;
        }
    }
}

#[tokio::test]
async fn a_push_that_is_cut_between_any_two_changes_lists_no_tag_that_is_not_whole() {
    dies_anywhere(|| Arc::new(MemoryDriver::new())).await;
    let (folder, count) = (tempfile::tempdir().unwrap(), std::cell::Cell::new(0));
    dies_anywhere(|| {
        count.set(count.get() + 1);
        Arc::new(FilesystemDriver::new(folder.path().join(count.get().to_string())))
    })
    .await;
}
