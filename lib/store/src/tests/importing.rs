//! Finished files and small content become blobs.

use std::path::PathBuf;
use std::pin::pin;

use bytes::Bytes;
use shoal_core::Digest;

use crate::testing::{MIB, Scene, assert_waits, content, files, lie, proof, read_to_end, signed, write};
use crate::{CommitError, Entry, ImportError};

/// An upload that is finished, beside the store.
fn upload(scene: &Scene, content: &[u8]) -> PathBuf {
    let path = scene.directory.path().join("upload");
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn an_imported_file_is_the_blob_and_survives_a_crash() {
    for length in [0, 1, MIB, 2 * MIB + 17] {
        let scene = Scene::open().await;
        let content = content(length, 1);
        let file = upload(&scene, &content);
        let blob = scene.store.import(&file, &Digest::sha256(&content), |_| proof()).await.unwrap();
        assert!(!file.exists());
        assert_eq!(blob.signed(), signed(&content));
        let after = scene.crash().await;
        let blob = after.store.blob(&Digest::sha256(&content)).unwrap();
        assert_eq!(blob.signed(), signed(&content));
        assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), content);
    }
}

#[tokio::test]
async fn a_mismatch_leaves_the_file_where_it_is() {
    let scene = Scene::open().await;
    let file = upload(&scene, b"this");
    let refused = scene.store.import(&file, &Digest::sha256(b"that"), |_| panic!("nothing to sign")).await;
    let Err(ImportError::DigestMismatch { expected, found }) = refused else { panic!("{refused:?}") };
    assert_eq!((expected, found), (Digest::sha256(b"that"), Digest::sha256(b"this")));
    assert_eq!(std::fs::read(file).unwrap(), b"this");
    assert_eq!(files(scene.directory.path()), ["upload"]);
    assert!(scene.store.digests().is_empty());
}

#[tokio::test]
async fn importing_again_removes_the_file_and_gives_the_blob() {
    let scene = Scene::open().await;
    let first = scene.put(b"twice").await;
    let file = upload(&scene, b"twice");
    let again = scene.store.import(&file, &Digest::sha256(b"twice"), |_| proof()).await.unwrap();
    assert_eq!(again.signed(), first.signed());
    assert!(!file.exists());
}

#[tokio::test]
async fn naming_a_digest_is_not_having_the_content() {
    let scene = Scene::open().await;
    let secret = scene.put(b"secret").await;
    let digest = secret.metainfo().digest();
    let file = upload(&scene, b"garbage");
    assert!(scene.store.import(&file, digest, |_| proof()).await.is_err());
    assert!(scene.store.put(Bytes::from_static(b"garbage"), digest, |_| proof()).await.is_err());
    assert!(file.exists());
}

#[tokio::test]
async fn a_missing_file_is_an_error() {
    let scene = Scene::open().await;
    let nowhere = scene.directory.path().join("nowhere");
    let refused = scene.store.import(&nowhere, &Digest::sha256(b""), |_| proof()).await;
    assert!(matches!(refused, Err(ImportError::Disk { .. })));
}

#[tokio::test]
async fn put_leaves_no_temporary_file() {
    let scene = Scene::open().await;
    scene.put(b"one").await;
    scene.put(b"one").await;
    scene.put(b"").await;
    assert_eq!(scene.store.digests().len(), 2);
    assert_eq!(files(scene.directory.path()).len(), 4);
}

#[tokio::test]
async fn an_import_overtakes_the_partial_and_its_readers_go_on() {
    let scene = Scene::open().await;
    let content = content(3 * MIB, 2);
    let partial = scene.create(&content).await;
    write(&partial, &content, 0).await;
    partial.0.checkpoint();
    let mut reader = partial.reader(0..u64::MAX);
    let mut bytes = reader.next().await.unwrap().unwrap().to_vec();
    let mut tail = partial.reader(2 * MIB as u64..u64::MAX);
    assert_waits(pin!(tail.next()));

    let blob = scene.put(&content).await;
    bytes.extend(read_to_end(&mut reader).await.unwrap());
    assert_eq!(bytes, content);
    assert_eq!(read_to_end(&mut tail).await.unwrap(), content[2 * MIB..]);
    assert!(partial.bitfield().is_full());
    assert_eq!(partial.commit().await.unwrap().signed(), blob.signed());
    assert!(matches!(scene.store.entry(blob.metainfo().digest()), Some(Entry::Whole(_))));
    assert_eq!(scene.store.bytes(), content.len() as u64);
    assert_eq!(files(scene.directory.path()).len(), 2);
}

#[tokio::test]
async fn an_import_ends_a_partial_of_another_length() {
    let scene = Scene::open().await;
    let liar = lie(&content(2 * MIB, 3));
    let partial = crate::testing::create(&scene.store, &liar).await;
    let mut reader = partial.reader(0..u64::MAX);
    scene.put(b"something else").await;
    assert!(reader.next().await.unwrap().is_err());
    assert!(matches!(partial.commit().await, Err(CommitError::Gone { .. })));
    assert_eq!(scene.store.bytes(), b"something else".len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_of_one_blob_at_once_give_the_same_blob() {
    let scene = Scene::open().await;
    let puts: Vec<_> = (0..8)
        .map(|_| {
            let store = scene.store.clone();
            let content = Bytes::from_static(b"popular");
            tokio::spawn(async move { store.put(content, &Digest::sha256(b"popular"), |_| proof()).await })
        })
        .collect();
    for put in puts {
        assert_eq!(put.await.unwrap().unwrap().signed(), signed(b"popular"));
    }
    assert_eq!(files(scene.directory.path()).len(), 2);
}
