//! The origin's driver: links that others of the cluster have, and writes that the cluster cannot take.

use bytes::Bytes;
use shoal_core::Digest;
use shoal_driver::{DriverError, Link, LinkKind, RegistryPath, Transferer as _, UploadId, WriteMode};

use crate::cluster::{Node, repository};

fn links(digest: Digest) -> [Link; 2] {
    [LinkKind::Layer, LinkKind::Revision].map(|kind| Link { repository: repository(), kind, digest })
}

#[tokio::test]
async fn a_link_that_only_others_have_is_read_and_shows_their_blob() {
    let origin = Node::origin().await;
    let digest = origin.cluster.seed(&repository(), Bytes::from_static(b"layer")).await;
    for link in links(digest) {
        assert!(matches!(origin.get(&link.path()).await, Err(DriverError::PathNotFound { .. })));
        origin.cluster.put_link(&link, &digest).await.unwrap();
        let text = digest.to_string();
        assert_eq!(origin.get(&link.path()).await.unwrap(), text);
        assert_eq!(origin.stat(&link.path()).await.unwrap(), text.len() as u64);
    }
    assert_eq!(origin.get(&RegistryPath::BlobData(digest)).await.unwrap(), "layer");
}

#[tokio::test]
async fn a_link_is_put_and_deleted_everywhere() {
    let origin = Node::origin().await;
    let digest = Digest::sha256(b"layer");
    origin.put(&RegistryPath::BlobData(digest), "layer").await.unwrap();
    for link in links(digest) {
        origin.link(&link.path(), &digest).await.unwrap();
        assert_eq!(origin.cluster.link(&link), Some(digest));
        origin.delete(&link.folder()).await.unwrap();
        assert_eq!(origin.cluster.link(&link), None);
        assert!(matches!(origin.get(&link.path()).await, Err(DriverError::PathNotFound { .. })));
        // What only others have is deleted, too.
        origin.cluster.put_link(&link, &digest).await.unwrap();
        origin.delete(&link.folder()).await.unwrap();
        assert_eq!(origin.cluster.link(&link), None);
        assert!(matches!(origin.delete(&link.folder()).await, Err(DriverError::PathNotFound { .. })));
    }
}

#[tokio::test]
async fn what_the_cluster_notes_behind_a_link_is_not_shown() {
    let origin = Node::origin().await;
    let digest = origin.cluster.seed(&repository(), Bytes::from_static(b"layer")).await;
    let text = digest.to_string();
    for link in links(digest) {
        let noted = format!("{text}\n{{\"stamp\":5,\"by\":null}}");
        origin.file(&link.path(), noted).await;
        assert_eq!(origin.get(&link.path()).await.unwrap(), text);
        assert_eq!(origin.stat(&link.path()).await.unwrap(), text.len() as u64);
    }
}

#[tokio::test]
async fn an_upload_is_ended_once_the_cluster_can_take_it() {
    let origin = Node::origin().await;
    let (content, id) = (Bytes::from_static(b"layer"), UploadId::random());
    let (digest, data) = (Digest::sha256(&content), RegistryPath::UploadData(repository(), id));
    origin.write(&data, WriteMode::Create, &content, true).await.unwrap();

    origin.cluster.go_away();
    let other = RegistryPath::UploadData(repository(), UploadId::random());
    let begun = origin.write(&other, WriteMode::Create, &content, true).await;
    assert!(matches!(begun, Err(DriverError::Unavailable { .. })));
    let blob = RegistryPath::BlobData(digest);
    let ended = origin.rename(&data, &blob).await;
    assert!(matches!(ended, Err(DriverError::Unavailable { .. })));
    assert!(origin.store.blob(&digest).is_none());

    origin.cluster.come_back();
    origin.rename(&data, &blob).await.unwrap();
    assert!(origin.cluster.has(&digest));
}
