//! The agent's driver: the call sequences of a pull, and what it refuses.

use bytes::Bytes;
use shoal_core::Digest;
use shoal_driver::{
    ByteRange, DriverError, DriverPath, MAX_CONTENT_LENGTH, RegistryPath, TagExpectation, Transferer as _,
    UploadId, WriteMode,
};

use crate::cluster::{Node, repository, signer, tag};

#[tokio::test]
async fn a_pull_by_tag_reads_manifest_and_layer_from_the_cluster() {
    let agent = Node::agent().await;
    let (manifest, layer) = (Bytes::from_static(b"{}"), Bytes::from(vec![7; 3_000_000]));
    let manifest_digest = agent.cluster.seed(&repository(), manifest.clone()).await;
    let layer_digest = agent.cluster.seed(&repository(), layer.clone()).await;
    let any = TagExpectation::anything();
    agent.cluster.put_tag(&repository(), &tag("7"), &manifest_digest, &any).await.unwrap();

    // GET manifest by tag: tag, revision link, blob.
    let current = agent.get(&RegistryPath::TagCurrentLink(repository(), tag("7"))).await.unwrap();
    assert_eq!(current, manifest_digest.to_string());
    let revision = agent.get(&RegistryPath::RevisionLink(repository(), manifest_digest)).await.unwrap();
    assert_eq!(revision, manifest_digest.to_string());
    assert_eq!(agent.stat(&RegistryPath::BlobData(manifest_digest)).await.unwrap(), 2);
    assert_eq!(agent.get(&RegistryPath::BlobData(manifest_digest)).await.unwrap(), manifest);

    // GET blob: layer link, blob.
    let link = agent.get(&RegistryPath::LayerLink(repository(), layer_digest)).await.unwrap();
    assert_eq!(link, layer_digest.to_string());
    let data = RegistryPath::BlobData(layer_digest);
    assert_eq!(agent.stat(&data).await.unwrap(), 3_000_000);
    assert_eq!(agent.read(&data, ByteRange::default()).await.unwrap(), layer);
    let range = ByteRange { start: 1_999_999, end: Some(2_000_002) };
    assert_eq!(agent.read(&data, range).await.unwrap(), layer.slice(1_999_999..2_000_002));
}

#[tokio::test]
async fn what_is_whole_in_the_store_is_read_without_the_cluster() {
    let agent = Node::agent().await;
    let content = Bytes::from(vec![3; 2_000_000]);
    let (digest, sign) = (Digest::sha256(&content), signer());
    agent.store.put(content.clone(), &digest, move |metainfo| sign(metainfo)).await.unwrap();
    agent.cluster.go_away();
    let data = RegistryPath::BlobData(digest);
    assert_eq!(agent.stat(&data).await.unwrap(), 2_000_000);
    assert_eq!(agent.get(&data).await.unwrap(), content);
    assert_eq!(agent.read(&data, ByteRange::from(1_999_000)).await.unwrap(), content.slice(1_999_000..));
}

#[tokio::test]
async fn a_repository_sees_only_its_own_blobs() {
    let agent = Node::agent().await;
    let other = shoal_core::RepositoryName::parse("other").unwrap();
    let digest = agent.cluster.seed(&other, Bytes::from_static(b"private")).await;
    for path in [
        RegistryPath::LayerLink(repository(), digest),
        RegistryPath::RevisionLink(repository(), digest),
        RegistryPath::BlobData(digest),
    ] {
        let error = agent.get(&path).await.unwrap_err();
        assert!(matches!(error, DriverError::PathNotFound { .. }), "{error}");
    }
    assert!(agent.get(&RegistryPath::LayerLink(other, digest)).await.is_ok());
}

#[tokio::test]
async fn an_absent_cluster_is_unavailable_and_not_an_absence() {
    let agent = Node::agent().await;
    agent.cluster.go_away();
    let digest = Digest::sha256(b"x");
    for path in [
        RegistryPath::TagCurrentLink(repository(), tag("7")),
        RegistryPath::LayerLink(repository(), digest),
        RegistryPath::BlobData(digest),
    ] {
        let error = agent.get(&path).await.unwrap_err();
        assert!(matches!(error, DriverError::Unavailable { .. }), "{error}");
        assert!(error.to_string().starts_with("p2p-read-only: "), "{error}");
    }
}

#[tokio::test]
async fn a_blob_over_the_limit_is_for_readers() {
    let agent = Node::agent().await;
    let large = Bytes::from(vec![1; MAX_CONTENT_LENGTH as usize + 1]);
    let digest = agent.cluster.seed(&repository(), large.clone()).await;
    let error = agent.get(&RegistryPath::BlobData(digest)).await.unwrap_err();
    assert!(matches!(error, DriverError::InvalidRequest { .. }), "{error}");
    assert!(error.to_string().contains("use reader"), "{error}");
    assert_eq!(agent.read(&RegistryPath::BlobData(digest), ByteRange::default()).await.unwrap(), large);
}

#[tokio::test]
async fn tags_are_listed_from_the_cluster() {
    let agent = Node::agent().await;
    let tags = RegistryPath::Tags(repository());
    let manifests = RegistryPath::Manifests(repository());
    assert!(matches!(agent.list(&tags).await, Err(DriverError::PathNotFound { .. })));
    assert!(matches!(agent.stat(&manifests).await, Err(DriverError::PathNotFound { .. })));
    let digest = agent.cluster.seed(&repository(), Bytes::from_static(b"{}")).await;
    for name in ["b", "a"] {
        let any = TagExpectation::anything();
        agent.cluster.put_tag(&repository(), &tag(name), &digest, &any).await.unwrap();
    }
    let listed = agent.list(&tags).await.unwrap();
    assert!(agent.stat(&manifests).await.is_ok());
    assert_eq!(listed, ["a", "b"].map(|name| RegistryPath::Tag(repository(), tag(name))));
}

#[tokio::test]
async fn every_write_is_unsupported() {
    let agent = Node::agent().await;
    let digest = Digest::sha256(b"x");
    let (data, blob) = (RegistryPath::BlobData(digest), RegistryPath::Blob(digest));
    let upload = RegistryPath::UploadData(repository(), UploadId::random());
    let errors = [
        agent.put(&data, "x").await.unwrap_err(),
        agent.write(&upload, WriteMode::Create, &Bytes::new(), false).await.unwrap_err(),
        agent.rename(&upload, &data).await.unwrap_err(),
        agent.delete(&blob).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, DriverError::Unsupported { .. }), "{error}");
    }
    assert!(matches!(agent.stat(&upload).await, Err(DriverError::PathNotFound { .. })));
}

#[tokio::test]
async fn the_root_is_there_and_paths_outside_of_the_layout_are_invalid() {
    let agent = Node::agent().await;
    assert_eq!(agent.stat(&RegistryPath::Root).await.unwrap(), 0);
    assert_eq!(agent.list(&RegistryPath::Root).await.unwrap(), [RegistryPath::Docker]);
    let outside = DriverPath::parse("/etc/passwd").unwrap();
    let read = agent.driver.get_content(&agent.context, &outside).await;
    assert!(matches!(read, Err(DriverError::InvalidPath { .. })));
    let list = agent.list(&RegistryPath::BlobData(Digest::sha256(b"x"))).await;
    assert!(matches!(list, Err(DriverError::InvalidRequest { .. })));
}

#[tokio::test]
async fn a_walk_passes_on_the_error_that_it_meets() {
    let agent = Node::agent().await;
    let root = DriverPath::root();
    let mut walk = shoal_driver::walk(&*agent.driver, &agent.context, &root);
    for expected in ["/docker", "/docker/registry", "/docker/registry/v2", "/docker/registry/v2/blobs"] {
        assert_eq!(walk.next().await.unwrap().unwrap().path.as_str(), expected);
    }
    // An agent cannot list its blobs.
    assert!(matches!(walk.next().await, Err(DriverError::Unsupported { .. })));
}
