//! The origin's driver: the call sequences of a push, and what it refuses.

use bytes::Bytes;
use shoal_core::{Algorithm, Digest, Digester, RepositoryName};
use shoal_driver::{
    ByteRange, DriverError, DriverPath, RegistryPath, Shard, Transferer as _, UploadId, WriteMode,
};

use crate::cluster::{Node, repository, tag};

/// Pushes a layer as a registry does: open, two patches, put with the digest, link, clean up.
async fn push_layer(origin: &Node, content: &Bytes) -> Digest {
    let (digest, id) = (Digest::sha256(content), UploadId::random());
    let data = RegistryPath::UploadData(repository(), id);
    let started = RegistryPath::UploadStartedAt(repository(), id);
    let hash_state = |at| RegistryPath::UploadHashState(repository(), id, Algorithm::Sha256, at);

    // POST
    origin.put(&started, "2026-08-21T10:00:00Z").await.unwrap();
    origin.write(&data, WriteMode::Create, &Bytes::new(), false).await.unwrap();
    origin.put(&hash_state(0), Digester::new(Algorithm::Sha256).save()).await.unwrap();

    // PATCH
    let half = content.len() / 2;
    assert_eq!(origin.get(&started).await.unwrap(), "2026-08-21T10:00:00Z");
    origin.write(&data, WriteMode::Append, &content.slice(..half), false).await.unwrap();
    let mut digester = Digester::new(Algorithm::Sha256);
    digester.update(&content[..half]);
    origin.put(&hash_state(half as u64), digester.save()).await.unwrap();

    // PUT: the digester is taken up where it was.
    let states = RegistryPath::UploadHashStates(repository(), id, Algorithm::Sha256);
    assert_eq!(origin.list(&states).await.unwrap().len(), 2);
    let saved = origin.get(&hash_state(half as u64)).await.unwrap();
    let mut digester = Digester::restore(Algorithm::Sha256, &saved).unwrap();
    digester.update(&content[half..]);
    assert_eq!(digester.finish(), digest);
    let size = origin.write(&data, WriteMode::Append, &content.slice(half..), true).await.unwrap();
    assert_eq!(size, content.len() as u64);
    assert_eq!(origin.stat(&data).await.unwrap(), content.len() as u64);
    assert_eq!(origin.read(&data, ByteRange::default()).await.unwrap(), content);
    origin.rename(&data, &RegistryPath::BlobData(digest)).await.unwrap();
    origin.link(&RegistryPath::LayerLink(repository(), digest), &digest).await.unwrap();
    origin.delete(&RegistryPath::Upload(repository(), id)).await.unwrap();
    assert!(matches!(origin.stat(&started).await, Err(DriverError::PathNotFound { .. })));
    digest
}

/// Puts a manifest by tag: blob, revision, index, and at last the tag.
async fn push_manifest(origin: &Node, content: &Bytes, name: &str) -> Digest {
    let digest = Digest::sha256(content);
    origin.put(&RegistryPath::BlobData(digest), content.clone()).await.unwrap();
    origin.link(&RegistryPath::RevisionLink(repository(), digest), &digest).await.unwrap();
    origin.link(&RegistryPath::TagIndexEntryLink(repository(), tag(name), digest), &digest).await.unwrap();
    origin.link(&RegistryPath::TagCurrentLink(repository(), tag(name)), &digest).await.unwrap();
    digest
}

#[tokio::test]
async fn a_push_is_durable_in_the_cluster_and_can_be_pulled() {
    let origin = Node::origin().await;
    let (layer, manifest) = (Bytes::from(vec![7; 2_500_001]), Bytes::from_static(b"{\"layers\":[]}"));
    let layer_digest = push_layer(&origin, &layer).await;
    let manifest_digest = push_manifest(&origin, &manifest, "7").await;

    assert!(origin.cluster.has(&layer_digest) && origin.cluster.has(&manifest_digest));
    let resolved = origin.cluster.resolve_tag(&repository(), &tag("7")).await.unwrap();
    assert_eq!(resolved.digest, manifest_digest);
    let current = origin.get(&RegistryPath::TagCurrentLink(repository(), tag("7"))).await.unwrap();
    assert_eq!(current, manifest_digest.to_string());
    let link = origin.get(&RegistryPath::LayerLink(repository(), layer_digest)).await.unwrap();
    assert_eq!(link, layer_digest.to_string());
    assert_eq!(origin.get(&RegistryPath::BlobData(manifest_digest)).await.unwrap(), manifest);
    let data = RegistryPath::BlobData(layer_digest);
    assert_eq!(origin.stat(&data).await.unwrap(), layer.len() as u64);
    assert_eq!(origin.read(&data, ByteRange::from(2_500_000)).await.unwrap(), layer.slice(2_500_000..));
}

#[tokio::test]
async fn the_same_layer_can_be_pushed_twice() {
    let origin = Node::origin().await;
    let layer = Bytes::from(vec![7; 100_000]);
    assert_eq!(push_layer(&origin, &layer).await, push_layer(&origin, &layer).await);
}

#[tokio::test]
async fn an_upload_of_another_digest_is_refused() {
    let origin = Node::origin().await;
    let data = RegistryPath::UploadData(repository(), UploadId::random());
    let (expected, found) = (Digest::sha256(b"promised"), Digest::sha256(b"delivered"));
    origin.write(&data, WriteMode::Create, &Bytes::from_static(b"delivered"), true).await.unwrap();
    match origin.rename(&data, &RegistryPath::BlobData(expected)).await.unwrap_err() {
        DriverError::DigestMismatch { expected: said, found: is, .. } => {
            assert_eq!((*said, *is), (expected, found));
        }
        other => panic!("{other}"),
    }
    assert!(matches!(
        origin.put(&RegistryPath::BlobData(expected), "delivered").await,
        Err(DriverError::DigestMismatch { .. })
    ));
    for digest in [expected, found] {
        assert!(matches!(
            origin.stat(&RegistryPath::BlobData(digest)).await,
            Err(DriverError::PathNotFound { .. })
        ));
        assert!(!origin.cluster.has(&digest));
    }
}

#[tokio::test]
async fn an_upload_that_is_not_committed_cannot_become_a_blob() {
    let origin = Node::origin().await;
    let data = RegistryPath::UploadData(repository(), UploadId::random());
    let digest = Digest::sha256(b"content");
    let blob = RegistryPath::BlobData(digest);
    assert!(matches!(origin.rename(&data, &blob).await, Err(DriverError::PathNotFound { .. })));
    origin.write(&data, WriteMode::Create, &Bytes::from_static(b"content"), false).await.unwrap();
    assert!(matches!(origin.rename(&data, &blob).await, Err(DriverError::PathNotFound { .. })));
    assert!(origin.store.blob(&digest).is_none());
}

#[tokio::test]
async fn a_link_must_name_a_blob_that_is_there() {
    let origin = Node::origin().await;
    let (digest, other) = (Digest::sha256(b"content"), Digest::sha256(b"other"));
    let link = RegistryPath::LayerLink(repository(), digest);
    assert!(matches!(origin.link(&link, &digest).await, Err(DriverError::PathNotFound { .. })));
    let current = RegistryPath::TagCurrentLink(repository(), tag("7"));
    assert!(matches!(origin.link(&current, &digest).await, Err(DriverError::PathNotFound { .. })));

    origin.put(&RegistryPath::BlobData(digest), "content").await.unwrap();
    origin.put(&RegistryPath::BlobData(other), "other").await.unwrap();
    for content in ["", "latest", "sha256:", &other.to_string(), "\u{e9}"] {
        let error = origin.put(&link, content.to_owned()).await.unwrap_err();
        assert!(matches!(error, DriverError::InvalidRequest { .. }), "{content:?}: {error}");
    }
    assert!(matches!(origin.get(&link).await, Err(DriverError::PathNotFound { .. })));
    origin.link(&link, &digest).await.unwrap();
}

#[tokio::test]
async fn a_link_of_another_algorithm_is_an_alias() {
    let origin = Node::origin().await;
    let digest = Digest::sha256(b"content");
    origin.put(&RegistryPath::BlobData(digest), "content").await.unwrap();
    let alias = RegistryPath::LayerLink(repository(), Digest::of(Algorithm::Sha512, b"content"));
    origin.link(&alias, &digest).await.unwrap();
    assert_eq!(origin.get(&alias).await.unwrap(), digest.to_string());
}

#[tokio::test]
async fn a_sha512_blob_is_itself_and_no_alias() {
    let origin = Node::origin().await;
    let content = Bytes::from(vec![2; 100_000]);
    let digest = Digest::of(Algorithm::Sha512, &content);
    let upload = RegistryPath::UploadData(repository(), UploadId::random());
    origin.write(&upload, WriteMode::Create, &content, true).await.unwrap();
    origin.rename(&upload, &RegistryPath::BlobData(digest)).await.unwrap();
    origin.link(&RegistryPath::LayerLink(repository(), digest), &digest).await.unwrap();
    assert_eq!(origin.get(&RegistryPath::BlobData(digest)).await.unwrap(), content);
    let shards = origin.list(&RegistryPath::BlobsByAlgorithm(Algorithm::Sha512)).await.unwrap();
    assert_eq!(shards, [RegistryPath::BlobShard(Algorithm::Sha512, Shard::of(&digest))]);
    let other = origin.list(&RegistryPath::BlobsByAlgorithm(Algorithm::Sha256)).await;
    assert!(matches!(other, Err(DriverError::PathNotFound { .. })));
}

#[tokio::test]
async fn a_mount_makes_the_blob_the_other_repositorys_in_the_cluster() {
    let origin = Node::origin().await;
    let digest = push_layer(&origin, &Bytes::from_static(b"shared")).await;
    let other = RepositoryName::parse("other").unwrap();
    assert!(!origin.cluster.is_member(&other, &digest));
    origin.link(&RegistryPath::LayerLink(other.clone(), digest), &digest).await.unwrap();
    assert!(origin.cluster.is_member(&other, &digest));
}

#[tokio::test]
async fn deleting_a_tag_leaves_those_whose_names_begin_with_it() {
    let origin = Node::origin().await;
    let digest = push_manifest(&origin, &Bytes::from_static(b"{}"), "7").await;
    for name in ["7-alpine", "7.1", "70"] {
        push_manifest(&origin, &Bytes::from_static(b"{}"), name).await;
    }
    origin.delete(&RegistryPath::Tag(repository(), tag("7"))).await.unwrap();
    for name in ["7-alpine", "7.1", "70"] {
        let current = origin.get(&RegistryPath::TagCurrentLink(repository(), tag(name))).await.unwrap();
        assert_eq!(current, digest.to_string());
        let history = origin.get(&RegistryPath::TagIndexEntryLink(repository(), tag(name), digest)).await;
        assert_eq!(history.unwrap(), digest.to_string());
    }
}

#[tokio::test]
async fn a_blob_is_as_old_as_its_stay_in_the_store() {
    let origin = Node::origin().await;
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(2);
    let digest = push_layer(&origin, &Bytes::from_static(b"content")).await;
    let path = RegistryPath::BlobData(digest).to_driver_path();
    let info = origin.driver.stat(&origin.context, &path).await.unwrap();
    assert!(info.modified > before && info.modified <= std::time::SystemTime::now(), "{info:?}");
    let elsewhere = origin.cluster.seed(&repository(), Bytes::from_static(b"elsewhere")).await;
    let path = RegistryPath::BlobData(elsewhere).to_driver_path();
    let info = origin.driver.stat(&origin.context, &path).await.unwrap();
    assert_eq!(info.modified, std::time::SystemTime::UNIX_EPOCH, "nobody here knows");
}

#[tokio::test]
async fn a_blob_that_only_the_cluster_has_is_read_from_there() {
    let origin = Node::origin().await;
    let content = Bytes::from(vec![9; 1_500_000]);
    let digest = origin.cluster.seed(&repository(), content.clone()).await;
    let data = RegistryPath::BlobData(digest);
    assert_eq!(origin.stat(&data).await.unwrap(), 1_500_000);
    assert_eq!(origin.read(&data, ByteRange::from(10)).await.unwrap(), content.slice(10..));
    origin.link(&RegistryPath::LayerLink(repository(), digest), &digest).await.unwrap();
}

#[tokio::test]
async fn a_push_is_not_acknowledged_while_the_cluster_is_away() {
    let origin = Node::origin().await;
    let digest = Digest::sha256(b"content");
    let data = RegistryPath::UploadData(repository(), UploadId::random());
    origin.write(&data, WriteMode::Create, &Bytes::from_static(b"content"), true).await.unwrap();
    origin.cluster.go_away();
    let renamed = origin.rename(&data, &RegistryPath::BlobData(digest)).await;
    assert!(matches!(renamed, Err(DriverError::Unavailable { .. })));
    let linked = origin.link(&RegistryPath::LayerLink(repository(), digest), &digest).await;
    assert!(matches!(linked, Err(DriverError::Unavailable { .. })), "what is not durable was linked");
}

#[tokio::test]
async fn a_tag_is_committed_once_by_its_current_link() {
    let origin = Node::origin().await;
    let first = push_manifest(&origin, &Bytes::from_static(b"{\"a\":1}"), "7").await;
    assert_eq!(origin.cluster.tag_puts(), 1);
    let second = push_manifest(&origin, &Bytes::from_static(b"{\"a\":2}"), "7").await;
    assert_eq!(origin.cluster.tag_puts(), 2);
    let current = RegistryPath::TagCurrentLink(repository(), tag("7"));
    assert_eq!(origin.get(&current).await.unwrap(), second.to_string());
    let history = RegistryPath::TagIndexByAlgorithm(repository(), tag("7"), Algorithm::Sha256);
    let mut expected =
        [first, second].map(|digest| RegistryPath::TagIndexEntry(repository(), tag("7"), digest));
    expected.sort_by_key(RegistryPath::to_driver_path);
    assert_eq!(origin.list(&history).await.unwrap(), expected);
}

#[tokio::test]
async fn a_deleted_tag_is_gone_with_its_history() {
    let origin = Node::origin().await;
    let digest = push_manifest(&origin, &Bytes::from_static(b"{}"), "7").await;
    push_manifest(&origin, &Bytes::from_static(b"{}"), "8").await;
    let folder = RegistryPath::Tag(repository(), tag("7"));
    origin.delete(&folder).await.unwrap();
    assert!(matches!(
        origin.get(&RegistryPath::TagCurrentLink(repository(), tag("7"))).await,
        Err(DriverError::PathNotFound { .. })
    ));
    let entry = RegistryPath::TagIndexEntryLink(repository(), tag("7"), digest);
    assert!(matches!(origin.get(&entry).await, Err(DriverError::PathNotFound { .. })));
    assert!(matches!(origin.delete(&folder).await, Err(DriverError::PathNotFound { .. })));
    let tags = origin.list(&RegistryPath::Tags(repository())).await.unwrap();
    assert_eq!(tags, [RegistryPath::Tag(repository(), tag("8"))]);
}

#[tokio::test]
async fn deleting_a_link_leaves_the_blob_and_deleting_the_blob_takes_it() {
    let origin = Node::origin().await;
    let digest = push_layer(&origin, &Bytes::from_static(b"content")).await;
    let link = RegistryPath::LayerLink(repository(), digest);
    origin.delete(&link).await.unwrap();
    assert!(matches!(origin.get(&link).await, Err(DriverError::PathNotFound { .. })));
    assert!(matches!(origin.delete(&link).await, Err(DriverError::PathNotFound { .. })));
    assert!(origin.store.blob(&digest).is_some());
    origin.delete(&RegistryPath::Blob(digest)).await.unwrap();
    assert!(origin.store.blob(&digest).is_none());
    let again = origin.delete(&RegistryPath::Blob(digest)).await;
    assert!(matches!(again, Err(DriverError::PathNotFound { .. })));
}

#[tokio::test]
async fn an_upload_is_cancelled_with_all_that_belongs_to_it() {
    let origin = Node::origin().await;
    let id = UploadId::random();
    let data = RegistryPath::UploadData(repository(), id);
    origin.put(&RegistryPath::UploadStartedAt(repository(), id), "2026-08-21T10:00:00Z").await.unwrap();
    origin.write(&data, WriteMode::Create, &Bytes::from(vec![1; 500_000]), false).await.unwrap();
    origin.delete(&RegistryPath::Upload(repository(), id)).await.unwrap();
    let resumed = origin.write(&data, WriteMode::Append, &Bytes::new(), false).await;
    assert!(matches!(resumed, Err(DriverError::PathNotFound { .. })));
    assert_eq!(origin.list(&RegistryPath::Uploads(repository())).await.unwrap(), []);
}

#[tokio::test]
async fn two_uploads_of_one_blob_may_end_at_the_same_time() {
    let origin = Node::origin().await;
    let content = Bytes::from(vec![5; 300_000]);
    let blob = RegistryPath::BlobData(Digest::sha256(&content));
    let uploads =
        [UploadId::random(), UploadId::random()].map(|id| RegistryPath::UploadData(repository(), id));
    for upload in &uploads {
        origin.write(upload, WriteMode::Create, &content, true).await.unwrap();
    }
    let (first, second) = tokio::join!(origin.rename(&uploads[0], &blob), origin.rename(&uploads[1], &blob));
    first.unwrap();
    second.unwrap();
    assert_eq!(origin.read(&blob, ByteRange::default()).await.unwrap(), content);
}

#[tokio::test]
async fn a_walk_sees_repositories_tags_and_blobs() {
    let origin = Node::origin().await;
    assert_eq!(
        origin.walk(&DriverPath::root()).await,
        [
            "/docker",
            "/docker/registry",
            "/docker/registry/v2",
            "/docker/registry/v2/blobs",
            "/docker/registry/v2/repositories"
        ]
    );
    let layer = push_layer(&origin, &Bytes::from_static(b"content")).await;
    push_manifest(&origin, &Bytes::from_static(b"{}"), "7").await;
    let seen = origin.walk(&DriverPath::root()).await;
    for path in [
        RegistryPath::Repository(RepositoryName::parse("library").unwrap()),
        RegistryPath::Manifests(repository()),
        RegistryPath::TagCurrentLink(repository(), tag("7")),
        RegistryPath::LayerLink(repository(), layer),
        RegistryPath::BlobData(layer),
    ] {
        assert!(seen.contains(&path.to_string()), "{path} was not seen");
    }
    let sorted: Vec<DriverPath> = seen.iter().map(|path| DriverPath::parse(path).unwrap()).collect();
    assert!(sorted.is_sorted());
}

#[tokio::test]
async fn what_the_table_does_not_allow_is_refused_by_name() {
    let origin = Node::origin().await;
    let digest = Digest::sha256(b"x");
    let written = origin.write(&RegistryPath::BlobData(digest), WriteMode::Create, &Bytes::new(), true).await;
    let error = written.unwrap_err();
    assert!(matches!(error, DriverError::InvalidRequest { operation: "writer", .. }), "{error}");
    let error = origin.delete(&RegistryPath::Repository(repository())).await.unwrap_err();
    assert!(matches!(error, DriverError::InvalidRequest { .. }), "{error}");
    let outside = DriverPath::parse("/etc/passwd").unwrap();
    let error = origin.driver.get_content(&origin.context, &outside).await.unwrap_err();
    assert!(matches!(error, DriverError::InvalidPath { .. }), "{error}");
    assert!(error.to_string().starts_with("p2p-read-write: "), "{error}");
}
