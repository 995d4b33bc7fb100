//! What stays and what goes when everything is old. The first fourteen are the cases of distribution's collector.

use shoal_core::{Digest, Tag};
use shoal_driver::{FilesystemDriver, RegistryPath};
use shoal_registry::maintenance::{GarbagePolicy, GarbageReport, MaintenanceError};
use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::rig::{Image, MANIFEST, Rig, digest_of, image, in_a_month, index, name, policy};

#[tokio::test]
async fn whole_images_stay_to_the_last_file() {
    let rig = Rig::new();
    let image = rig.push_image("library/app", Some("v1"), "one").await;
    rig.push_index("library/app", Some("all"), &[image.digest]).await;
    rig.push_image("library/app", None, "two").await;
    let before = rig.files().await;
    let report = rig.collect(false).await;
    assert_eq!(rig.files().await, before);
    assert_eq!((report.deleted(), report.repositories, report.manifests_kept), (0, 1, 3));
    assert_eq!(report.blobs_kept, 7);
}

#[tokio::test]
async fn untagged_manifest_goes_with_its_layers_if_asked_for() {
    let rig = Rig::new();
    let tagged = rig.push_image("app", Some("v1"), "tagged").await;
    let untagged = rig.push_image("app", None, "untagged").await;
    assert_eq!(rig.collect(false).await.deleted(), 0);
    let report = rig.collect(true).await;
    assert!(rig.has_image("app", &tagged).await);
    assert_eq!(rig.blobs().await.len(), 3);
    assert!(!rig.has(RegistryPath::Revision(name("app"), untagged.digest)).await);
    assert!(!rig.has(RegistryPath::Layer(name("app"), untagged.layer)).await);
    assert_eq!((report.manifests_deleted, report.links_deleted, report.blobs_deleted), (1, 2, 3));
}

#[tokio::test]
async fn untagged_index_with_a_deleted_child_goes_whole() {
    let rig = Rig::new();
    let [one, two] = [rig.push_image("app", None, "one").await, rig.push_image("app", None, "two").await];
    rig.push_index("app", None, &[one.digest, two.digest]).await;
    rig.unlink_manifest("app", one.digest).await;
    rig.collect(true).await;
    assert!(rig.blobs().await.is_empty());
}

#[tokio::test]
async fn untagged_index_goes_and_its_tagged_children_stay() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    let list = rig.push_index("app", None, &[image.digest]).await;
    rig.collect(true).await;
    assert!(rig.has_image("app", &image).await);
    assert!(!rig.has_blob(list).await);
}

#[tokio::test]
async fn layer_link_that_no_manifest_names_goes() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    let stray = rig.put_blob("app", b"stray").await;
    let report = rig.collect(false).await;
    assert!(!rig.has(RegistryPath::Layer(name("app"), stray)).await && !rig.has_blob(stray).await);
    assert!(rig.has_image("app", &image).await);
    assert_eq!((report.links_deleted, report.blobs_deleted, report.bytes_deleted), (1, 1, 5));
}

#[tokio::test]
async fn folders_that_are_no_repository_are_passed_over_and_kept() {
    let rig = Rig::new();
    rig.push_image("library/app", Some("v1"), "one").await;
    let context = shoal_driver::Context::default();
    for stray in [
        "/repositories/UPPER/_manifests/x",
        "/repositories/lost+found",
        "/repositories/app/_what/x",
        "/blobs/sha256/zz/y/data",
        "/blobs/md5/aa",
    ] {
        let path = format!("/docker/registry/v2{}", stray.replace('+', "."));
        let path = shoal_driver::DriverPath::parse(&path).unwrap();
        rig.driver.put_content(&context, &path, "x".into()).await.unwrap();
    }
    let before = rig.files().await;
    let report = rig.collect(true).await;
    assert_eq!(rig.files().await, before);
    assert_eq!(report.repositories, 1);
}

#[tokio::test]
async fn repository_without_manifests_loses_its_layers() {
    let rig = Rig::new();
    rig.put_blob("app", b"layer").await;
    let report = rig.collect(false).await;
    assert!(rig.blobs().await.is_empty());
    assert_eq!(report.repositories, 1);
}

#[tokio::test]
async fn manifest_whose_bytes_are_gone_does_not_stop_the_collection() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    let stray = rig.put_blob("app", b"stray").await;
    rig.delete(RegistryPath::Blob(image.digest)).await;
    let report = rig.collect(false).await;
    assert_eq!(report.manifests_missing, 1);
    assert!(!rig.has_blob(stray).await);
}

#[tokio::test]
async fn deleted_manifest_takes_its_layers_along() {
    let rig = Rig::new();
    let kept = rig.push_image("app", Some("v1"), "kept").await;
    let deleted = rig.push_image("app", Some("v2"), "deleted").await;
    rig.unlink_manifest("app", deleted.digest).await;
    rig.collect(false).await;
    assert!(rig.has_image("app", &kept).await);
    assert_eq!(rig.blobs().await.len(), 3);
}

#[tokio::test]
async fn layer_that_another_image_shares_stays() {
    let rig = Rig::new();
    let kept = rig.push_image("app", Some("v1"), "kept").await;
    let config = rig.put_blob("app", b"other config").await;
    let sharing = image(config, kept.layer);
    assert_eq!(rig.put_manifest("app", None, &sharing).await, StatusCode::CREATED);
    rig.unlink_manifest("app", digest_of(&sharing)).await;
    rig.collect(false).await;
    assert!(rig.has_image("app", &kept).await);
    assert!(!rig.has_blob(config).await && !rig.has_blob(digest_of(&sharing)).await);
}

#[tokio::test]
async fn layer_that_another_repository_shares_stays_there_only() {
    let rig = Rig::new();
    let kept = rig.push_image("kept", Some("v1"), "one").await;
    let deleted = rig.push_image("deleted", Some("v1"), "one").await;
    rig.unlink_manifest("deleted", deleted.digest).await;
    let report = rig.collect(false).await;
    assert!(rig.has_image("kept", &kept).await);
    assert!(!rig.has(RegistryPath::Layer(name("deleted"), kept.layer)).await);
    assert_eq!((report.links_deleted, report.blobs_deleted), (2, 0));
}

#[tokio::test]
async fn blob_that_no_repository_links_goes() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    let orphan = Digest::sha256(b"orphan");
    rig.put(RegistryPath::BlobData(orphan), "orphan").await;
    let report = rig.collect(false).await;
    assert!(!rig.has(RegistryPath::Blob(orphan)).await);
    assert!(rig.has_image("app", &image).await);
    assert_eq!((report.blobs_deleted, report.bytes_deleted), (1, 6));
}

#[tokio::test]
async fn tagged_index_keeps_its_untagged_children() {
    let rig = Rig::new();
    let image = rig.push_image("app", None, "one").await;
    let inner = rig.push_index("app", None, &[image.digest]).await;
    let outer = rig.push_index("app", Some("all"), &[inner]).await;
    assert_eq!(rig.collect(true).await.deleted(), 0);
    assert!(rig.has_image("app", &image).await);
    assert!(rig.has_blobs(&[inner, outer]).await);
}

#[tokio::test]
async fn untagged_index_goes_with_its_untagged_children() {
    let rig = Rig::new();
    let images = [rig.push_image("app", None, "one").await, rig.push_image("app", None, "two").await];
    rig.push_index("app", None, &images.map(|image| image.digest)).await;
    rig.collect(true).await;
    assert!(rig.blobs().await.is_empty());
}

#[tokio::test]
async fn tagged_index_stays_and_its_deleted_children_do_not_come_back() {
    let rig = Rig::new();
    let [gone, kept] = [rig.push_image("app", None, "gone").await, rig.push_image("app", None, "kept").await];
    let list = rig.push_index("app", Some("all"), &[gone.digest, kept.digest]).await;
    rig.unlink_manifest("app", gone.digest).await;
    rig.collect(true).await;
    assert!(rig.has_image("app", &kept).await && rig.has_blob(list).await);
    assert!(!rig.has_blob(gone.layer).await && !rig.has_blob(gone.config).await);
}

#[tokio::test]
async fn signatures_stay_as_long_as_their_image_and_go_with_it() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "image").await;
    let (signature, of_signature) = (attached(&rig, &image).await, "signature of the signature");
    let mut second = crate::rig::image(rig.put_blob("app", of_signature.as_bytes()).await, image.config);
    second["subject"] = json!({"mediaType": MANIFEST, "digest": signature, "size": 1});
    assert_eq!(rig.put_manifest("app", None, &second).await, StatusCode::CREATED);
    assert_eq!(rig.collect(true).await.deleted(), 0);
    rig.untag("app", "v1").await;
    let report = rig.collect(true).await;
    assert_eq!(
        (report.lists_deleted, report.manifests_deleted),
        (2, 5),
        "image, two signatures, their two lists"
    );
    assert!(rig.blobs().await.is_empty());
    assert!(!rig.files().await.iter().any(|file| file.contains("/_manifests/tags/")), "no tag names nothing");
}

#[tokio::test]
async fn signature_of_a_deleted_image_goes_and_one_that_is_tagged_stays() {
    let rig = Rig::new();
    let [gone, kept] =
        [rig.push_image("app", Some("v1"), "one").await, rig.push_image("app", Some("v2"), "two").await];
    let signatures = [attached(&rig, &gone).await, attached(&rig, &kept).await];
    let tagged = rig.put_blob("app", b"an attestation").await;
    let mut document = image(tagged, gone.config);
    document["subject"] = json!({"mediaType": MANIFEST, "digest": gone.digest, "size": 1});
    assert_eq!(rig.put_manifest("app", Some("attestation"), &document).await, StatusCode::CREATED);
    let path = format!("/v2/app/manifests/{}", gone.digest);
    assert_eq!(rig.send("DELETE", &path, "").await, StatusCode::ACCEPTED);
    let report = rig.collect(true).await;
    assert_eq!(report.lists_deleted, 1);
    assert!(rig.has_image("app", &kept).await && rig.has_blob(signatures[1]).await);
    assert!(!rig.has_blob(signatures[0]).await && !rig.has_blob(gone.layer).await);
    assert!(rig.has_blob(digest_of(&document)).await && rig.has_blob(tagged).await, "somebody tagged it");
    assert_eq!(rig.collect(true).await.deleted(), 0);
}

#[tokio::test]
async fn signatures_stay_where_untagged_manifests_do() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "image").await;
    let signature = attached(&rig, &image).await;
    rig.unlink_manifest("app", image.digest).await;
    rig.untag("app", "v1").await;
    rig.collect(false).await;
    assert!(rig.has_blob(signature).await);
}

#[tokio::test]
async fn what_only_looks_like_a_list_of_referrers_stays_as_any_tagged_manifest() {
    let rig = Rig::new();
    let absent = Digest::sha256(b"never pushed");
    let tag = |digest: Digest| format!("sha256-{}", digest.hex());
    let tagged = rig.push_image("app", Some(&tag(absent)), "an image under such a name").await;
    let entry = rig.push_image("app", None, "attached to nothing").await;
    let other = Digest::sha256(b"never pushed either");
    let index = rig.push_index("app", Some(&tag(other)), &[entry.digest]).await;
    assert_eq!(rig.collect(true).await.deleted(), 0);
    assert!(rig.has_image("app", &tagged).await && rig.has_image("app", &entry).await);
    assert!(rig.has_blob(index).await);
}

#[tokio::test]
async fn list_of_an_image_that_comes_back_is_whole() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "image").await;
    attached(&rig, &image).await;
    let path = format!("/v2/app/manifests/{}", image.digest);
    assert_eq!(rig.send("DELETE", &path, "").await, StatusCode::ACCEPTED);
    rig.collect(true).await;
    let again = rig.push_image("app", Some("v1"), "image").await;
    let signature = attached(&rig, &again).await;
    assert_eq!(rig.collect(true).await.deleted(), 0);
    assert!(rig.has_image("app", &image).await && rig.has_blob(signature).await);
}

async fn attached(rig: &Rig, to: &Image) -> Digest {
    let config = rig.put_blob("app", b"signature").await;
    let mut document = image(config, to.config);
    document["subject"] = json!({"mediaType": MANIFEST, "digest": to.digest, "size": 1});
    assert_eq!(rig.put_manifest("app", None, &document).await, StatusCode::CREATED);
    digest_of(&document)
}

#[tokio::test]
async fn tag_forgets_the_manifests_that_are_gone_and_no_others() {
    let rig = Rig::new();
    let old = rig.push_image("app", Some("v1"), "old").await;
    let new = rig.push_image("app", Some("v1"), "new").await;
    let report = rig.collect(true).await;
    let entry = |digest| RegistryPath::TagIndexEntry(name("app"), Tag::parse("v1").unwrap(), digest);
    assert!(!rig.has(entry(old.digest)).await && rig.has(entry(new.digest)).await);
    assert_eq!((report.manifests_deleted, report.tag_entries_deleted), (1, 1));
    assert!(rig.has_image("app", &new).await);
}

#[tokio::test]
async fn repository_with_an_unreadable_manifest_keeps_everything() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    let stray = rig.put_blob("app", b"stray").await;
    let elsewhere = rig.put_blob("elsewhere", b"stray elsewhere").await;
    rig.put(RegistryPath::BlobData(image.digest), r#"{"layers": []}"#).await;
    let report = rig.collect(true).await;
    assert_eq!(report.manifests_unreadable, 1);
    assert!(rig.has_image("app", &image).await && rig.has_blob(stray).await);
    assert!(!rig.has_blob(elsewhere).await);
}

#[tokio::test]
async fn foreign_layer_that_was_pushed_all_the_same_stays() {
    let rig = Rig::new();
    let [config, layer] = [rig.put_blob("app", b"config").await, rig.put_blob("app", b"layer").await];
    let mut document = image(config, layer);
    document["layers"][0]["mediaType"] =
        json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    assert_eq!(rig.put_manifest("app", Some("v1"), &document).await, StatusCode::CREATED);
    assert_eq!(rig.collect(true).await.deleted(), 0);
}

#[tokio::test]
async fn indexes_a_thousand_deep_are_marked_to_the_bottom() {
    let rig = Rig::new();
    let image = rig.push_image("app", None, "bottom").await;
    let mut top = image.digest;
    for _ in 0..1_000 {
        let document = index(&[top]);
        top = digest_of(&document);
        rig.put(RegistryPath::BlobData(top), document.to_string()).await;
        rig.put(RegistryPath::RevisionLink(name("app"), top), top.to_string()).await;
    }
    rig.put(RegistryPath::TagCurrentLink(name("app"), Tag::parse("v1").unwrap()), top.to_string()).await;
    assert_eq!(rig.collect(true).await.deleted(), 0);
}

#[tokio::test]
async fn dry_run_counts_the_same_and_removes_nothing() {
    let rig = Rig::new();
    rig.push_image("app", Some("v1"), "old").await;
    rig.push_image("app", Some("v1"), "new").await;
    rig.put_blob("app", b"stray").await;
    let before = rig.files().await;
    let dry = GarbagePolicy { delete_untagged: true, dry_run: true, ..policy() };
    let dry = rig.maintenance().collect_garbage(in_a_month(), &dry).await.unwrap();
    assert_eq!(rig.files().await, before);
    let expected = GarbageReport {
        repositories: 1,
        manifests_kept: 1,
        manifests_deleted: 1,
        tag_entries_deleted: 1,
        links_deleted: 3,
        blobs_kept: 3,
        blobs_deleted: 4,
        ..dry.clone()
    };
    assert_eq!(dry, expected);
    assert_eq!(rig.collect(true).await, dry);
    assert_eq!(rig.collect(true).await.deleted(), 0);
}

#[tokio::test]
async fn tag_that_names_no_digest_stops_the_collection_before_it_removes_anything() {
    let rig = Rig::new();
    rig.push_image("app", None, "one").await;
    rig.put(RegistryPath::TagCurrentLink(name("app"), Tag::parse("v1").unwrap()), "nonsense").await;
    let before = rig.files().await;
    let policy = GarbagePolicy { delete_untagged: true, ..policy() };
    let error = rig.maintenance().collect_garbage(in_a_month(), &policy).await.unwrap_err();
    assert!(matches!(&error, MaintenanceError::TagDamaged(link) if link.contains("/app/")), "{error}");
    assert_eq!(rig.files().await, before);
}

#[tokio::test]
async fn blobs_without_any_repository_are_a_disk_that_is_not_mounted() {
    let rig = Rig::new();
    let orphan = Digest::sha256(b"orphan");
    rig.put(RegistryPath::BlobData(orphan), "orphan").await;
    assert_eq!(rig.collect(true).await.deleted(), 0);
    assert!(rig.has_blob(orphan).await);
}

#[tokio::test]
async fn empty_registry_has_no_garbage() {
    assert_eq!(Rig::new().collect(true).await, GarbageReport::default());
}

#[tokio::test]
async fn files_are_collected_as_memory_is() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::on(Arc::new(FilesystemDriver::new(directory.path())));
    let kept = rig.push_image("library/app", Some("v1"), "kept").await;
    rig.push_image("library/app", None, "untagged").await;
    rig.put_blob("library/app/deeper", b"stray").await;
    let report = rig.collect(true).await;
    assert_eq!((report.repositories, report.manifests_deleted, report.blobs_deleted), (2, 1, 4));
    assert!(rig.has_image("library/app", &kept).await);
    assert_eq!(rig.blobs().await.len(), 3);
    assert_eq!(rig.collect(true).await.deleted(), 0);
}
