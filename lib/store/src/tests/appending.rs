//! Blobs that come in order and uncut: their hashes are learned, and nobody has the end before the proof.

use std::pin::pin;

use bytes::Bytes;
use shoal_core::{Digest, Geometry, Metainfo, PieceIndex, SignedMetainfo};

use crate::testing::{MIB, Scene, assert_waits, content, create, piece_of, proof, read_to_end, signed};
use crate::{Arrived, CommitError, Entry, Partial, ReadError, WriteError, Written};

fn outline(digest: Digest, length: usize) -> SignedMetainfo {
    let geometry = Geometry::for_blob(length as u64).unwrap();
    SignedMetainfo { metainfo: Metainfo::outline(digest, geometry), proof: proof() }
}

async fn begin(scene: &Scene, content: &[u8]) -> Partial {
    create(&scene.store, &outline(Digest::sha256(content), content.len())).await
}

async fn append(partial: &Partial, content: &[u8], index: u32) {
    let piece = piece_of(partial, content, index);
    assert_eq!(partial.append_piece(PieceIndex(index), piece).await.unwrap(), Written::New);
}

#[tokio::test]
async fn a_blob_that_nobody_has_cut_is_read_while_it_comes_and_signed_when_it_is_proved() {
    let (scene, content) = (Scene::open().await, content(2 * MIB + 7, 1));
    let partial = begin(&scene, &content).await;
    let mut reader = partial.reader(0..u64::MAX);
    let mut read = Vec::new();
    for index in 0..3 {
        append(&partial, &content, index).await;
        while read.len() < (index as usize + 1).min(2) * MIB {
            read.extend_from_slice(&reader.next().await.unwrap().unwrap());
        }
    }
    assert_eq!(partial.hashes(PieceIndex(0)).len(), 3);
    assert_waits(pin!(reader.next()));
    assert_waits(pin!(partial.commit()));
    assert!(partial.signed().is_none());
    let blob = partial.commit_signed(|_| proof()).await.unwrap();
    assert_eq!(blob.signed(), signed(&content));
    read.extend(read_to_end(&mut reader).await.unwrap());
    assert_eq!(read, content);
}

#[tokio::test]
async fn no_part_of_a_wrong_blob_is_read_to_its_end() {
    let (scene, content) = (Scene::open().await, content(3 * MIB, 2));
    let wrong = Digest::sha256(b"another");
    let partial = create(&scene.store, &outline(wrong, content.len())).await;
    let mut part = partial.reader(10..20);
    for index in 0..3 {
        append(&partial, &content, index).await;
    }
    assert_waits(pin!(part.next()));
    let refused = partial.commit_signed(|_| panic!("nobody signs what is wrong")).await;
    assert!(matches!(refused, Err(CommitError::DigestMismatch { .. })), "{refused:?}");
    assert!(matches!(part.next().await, Some(Err(ReadError::WrongDigest { .. }))));
    assert!(scene.store.entry(&wrong).is_none());
}

#[tokio::test]
async fn a_piece_is_refused_until_its_hash_was_learned_and_then_if_it_is_another() {
    let (scene, content) = (Scene::open().await, content(2 * MIB, 3));
    let partial = begin(&scene, &content).await;
    let piece = piece_of(&partial, &content, 0);
    let refused = partial.write_piece(PieceIndex(0), piece.clone()).await;
    assert!(matches!(refused, Err(WriteError::HashUnknown { .. })));
    let hash = *signed(&content).metainfo.hash(PieceIndex(0)).unwrap();
    partial.learn(PieceIndex(0), &[hash]).unwrap();
    let other = Bytes::from(vec![0; MIB]);
    assert!(matches!(
        partial.write_piece(PieceIndex(0), other.clone()).await,
        Err(WriteError::Corrupt { .. })
    ));
    assert!(matches!(partial.append_piece(PieceIndex(0), other).await, Err(WriteError::Corrupt { .. })));
    assert_eq!(partial.write_piece(PieceIndex(0), piece).await.unwrap(), Written::New);
    assert!(partial.learn(PieceIndex(0), &[hash; 3]).is_err(), "more than the blob has");
}

#[tokio::test]
async fn signed_hashes_end_the_waiting_of_who_reads_a_part_and_replace_what_contradicts_them() {
    let (scene, content) = (Scene::open().await, content(2 * MIB, 4));
    let partial = begin(&scene, &content).await;
    append(&partial, &content, 0).await;
    let mut part = partial.reader(5..9);
    assert_waits(pin!(part.next()));
    assert!(matches!(scene.store.create(&signed(&content)).await.unwrap(), Entry::Partial(_)));
    assert_eq!(part.next().await.unwrap().unwrap(), content[5..9]);
    assert_eq!(partial.signed(), Some(signed(&content)));

    let other = self::content(2 * MIB, 5);
    let wrong = begin(&scene, &other).await;
    append(&wrong, &content, 0).await;
    let anew = create(&scene.store, &signed(&other)).await;
    assert_eq!(anew.bitfield().count(), 0);
    assert!(matches!(wrong.reader(0..1).next().await, Some(Err(ReadError::Gone { .. }))));
}

#[tokio::test]
async fn a_commit_waits_for_somebody_to_vouch_and_not_beyond_the_end_of_the_fetch() {
    let (scene, content) = (Scene::open().await, content(MIB, 7));
    let partial = begin(&scene, &content).await;
    append(&partial, &content, 0).await;
    assert_waits(pin!(partial.commit()));
    partial.fail("nobody vouches");
    assert!(matches!(partial.commit().await, Err(CommitError::Unsigned { .. })));
    partial.vouch(&signed(&content)).unwrap();
    assert_eq!(partial.commit().await.unwrap().signed(), signed(&content));
}

#[tokio::test]
async fn who_passes_it_on_hears_of_every_piece_and_of_the_end() {
    let (scene, content) = (Scene::open().await, content(2 * MIB, 8));
    let partial = begin(&scene, &content).await;
    append(&partial, &content, 0).await;
    let mut arrivals = partial.arrivals(shoal_core::Bitfield::empty(2));
    assert!(matches!(arrivals.next().await, Arrived::Pieces(have) if have.count() == 1));
    assert_waits(pin!(arrivals.next()));
    append(&partial, &content, 1).await;
    assert!(matches!(arrivals.next().await, Arrived::Pieces(have) if have.is_full()));
    let mut deaf = partial.arrivals(partial.bitfield());
    let blob = partial.commit_signed(|_| proof()).await.unwrap();
    for arrivals in [&mut arrivals, &mut deaf] {
        assert!(matches!(arrivals.next().await, Arrived::Whole(whole) if whole.signed() == blob.signed()));
    }
    let gone = begin(&scene, b"gone").await;
    let mut arrivals = gone.arrivals(gone.bitfield());
    scene.store.delete(&Digest::sha256(b"gone")).await.unwrap();
    assert!(matches!(arrivals.next().await, Arrived::Gone));
}

#[tokio::test]
async fn what_came_before_a_restart_is_kept_and_its_hashes_are_learned_again() {
    let (mut scene, content) = (Scene::open().await, content(3 * MIB, 6));
    let partial = begin(&scene, &content).await;
    append(&partial, &content, 0).await;
    append(&partial, &content, 1).await;
    drop(partial);
    scene.reopen().await;
    let partial = begin(&scene, &content).await;
    assert_eq!((partial.bitfield().count(), partial.hashes(PieceIndex(0)).len()), (2, 0));
    for index in 0..2 {
        let piece = partial.read_piece(PieceIndex(index)).await.unwrap();
        assert_eq!(partial.append_piece(PieceIndex(index), piece).await.unwrap(), Written::Duplicate);
    }
    append(&partial, &content, 2).await;
    assert_eq!(partial.commit_signed(|_| proof()).await.unwrap().signed(), signed(&content));
}
