//! Pieces in, blob out; what is refused; what is discarded.

use std::sync::Arc;

use bytes::Bytes;
use shoal_core::{Algorithm, Digest, Geometry, MetainfoBuilder, PieceIndex, SignedMetainfo};

use crate::progress::Progress;
use crate::testing::{
    MIB, Scene, content, create, files, lie, piece_of, proof, read_to_end, signed, write, write_all,
};
use crate::usage::Usage;
use crate::{CommitError, CreateError, Entry, ImportError, Partial, WriteError, Written};

#[tokio::test]
async fn a_corrupt_piece_is_refused_and_never_visible() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 1);
    let partial = scene.create(&content).await;
    let refused = partial.write_piece(PieceIndex(0), piece_of(&partial, &content, 1)).await;
    assert!(matches!(refused, Err(WriteError::Corrupt { .. })));
    assert_eq!(partial.bitfield().count(), 0);
    assert!(partial.read_piece(PieceIndex(0)).await.is_err());
    assert_eq!(write(&partial, &content, 0).await, Written::New);
    assert_eq!(partial.read_piece(PieceIndex(0)).await.unwrap(), content[..MIB]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_of_one_piece_one_is_first() {
    let scene = Scene::open().await;
    let content = content(MIB, 2);
    let partial = scene.create(&content).await;
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (partial, bytes) = (partial.clone(), piece_of(&partial, &content, 0));
            tokio::spawn(async move { partial.write_piece(PieceIndex(0), bytes).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for writer in writers {
        new += usize::from(writer.await.unwrap() == Written::New);
    }
    assert_eq!(new, 1);
    let blob = partial.commit().await.unwrap();
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_all_pieces_at_once_give_the_blob() {
    let scene = Scene::open().await;
    let content = Arc::new(content(12 * MIB + 5, 3));
    let partial = scene.create(&content).await;
    let writers: Vec<_> = (0..13)
        .rev()
        .map(|index| {
            let (partial, content) = (partial.clone(), content.clone());
            tokio::spawn(async move { write(&partial, &content, index).await })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), Written::New);
    }
    let blob = partial.commit().await.unwrap();
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), *content);
}

#[tokio::test]
async fn a_committed_blob_has_exactly_its_two_files() {
    let scene = Scene::open().await;
    let content = content(MIB + 1, 4);
    let partial = scene.create(&content).await;
    write_all(&partial, &content).await;
    partial.0.checkpoint();
    let blob = partial.commit().await.unwrap();
    assert_eq!(blob.signed(), signed(&content));
    let hex = blob.metainfo().digest().hex();
    let expected = ["blobs", "metainfo"].map(|tree| format!("{tree}/sha256/{}/{hex}", &hex[..2]));
    assert_eq!(files(scene.directory.path()), expected);
    assert!(matches!(scene.store.entry(blob.metainfo().digest()), Some(Entry::Whole(_))));
    assert!(matches!(scene.store.create(&signed(&content)).await, Ok(Entry::Whole(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_at_once_and_again_give_the_same_blob() {
    let scene = Scene::open().await;
    let content = content(3 * MIB, 5);
    let partial = scene.create(&content).await;
    write_all(&partial, &content).await;
    let commits: Vec<_> = (0..4)
        .map(|_| {
            let partial = partial.clone();
            tokio::spawn(async move { partial.commit().await })
        })
        .collect();
    for commit in commits {
        assert_eq!(commit.await.unwrap().unwrap().signed(), signed(&content));
    }
    assert!(partial.commit().await.is_ok());
    assert_eq!(
        partial.write_piece(PieceIndex(0), piece_of(&partial, &content, 0)).await.unwrap(),
        Written::Duplicate
    );
}

#[tokio::test]
async fn an_incomplete_partial_is_not_committed() {
    let scene = Scene::open().await;
    let content = content(3 * MIB, 6);
    let partial = scene.create(&content).await;
    write(&partial, &content, 1).await;
    assert!(matches!(partial.commit().await, Err(CommitError::Incomplete { missing: 2, .. })));
    write_all(&partial, &content).await;
    assert!(partial.commit().await.is_ok());
}

#[tokio::test]
async fn a_wrong_whole_digest_discards_the_partial() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 7);
    let signed = lie(&content);
    let partial = create(&scene.store, &signed).await;
    write_all(&partial, &content).await;
    for _ in 0..2 {
        let Err(CommitError::DigestMismatch { expected, found }) = partial.commit().await else {
            panic!("a lie was committed");
        };
        assert_eq!((expected, found), (*signed.metainfo.digest(), Digest::sha256(&content)));
    }
    assert!(scene.store.entry(signed.metainfo.digest()).is_none());
    assert_eq!(scene.store.bytes(), 0);
    assert_eq!(files(scene.directory.path()), [""; 0]);
    let refused = partial.write_piece(PieceIndex(0), piece_of(&partial, &content, 0)).await;
    assert!(matches!(refused, Err(WriteError::Gone { .. })));
    assert_eq!(create(&scene.store, &signed).await.bitfield().count(), 0);
}

#[tokio::test]
async fn an_empty_blob_is_committed_and_read() {
    let mut scene = Scene::open().await;
    let partial = scene.create(b"").await;
    let blob = partial.commit().await.unwrap();
    assert!(blob.reader(0..10).next().await.is_none());
    scene.reopen().await;
    let blob = scene.store.blob(&Digest::sha256(b"")).unwrap();
    assert_eq!(blob.metainfo().length(), 0);
    assert!(blob.reader(0..10).next().await.is_none());
}

#[tokio::test]
async fn an_empty_lie_is_refused() {
    let scene = Scene::open().await;
    let partial = create(&scene.store, &lie(b"")).await;
    assert!(matches!(partial.commit().await, Err(CommitError::DigestMismatch { .. })));
}

#[tokio::test]
async fn sha512_works_as_sha256_does() {
    let mut scene = Scene::open().await;
    let content = content(MIB + 9, 8);
    let digest = Digest::of(Algorithm::Sha512, &content);
    let mut builder = MetainfoBuilder::new(Geometry::for_blob(content.len() as u64).unwrap());
    builder.update(&content);
    let signed = SignedMetainfo { metainfo: builder.finish(digest).unwrap(), proof: proof() };
    let partial = create(&scene.store, &signed).await;
    write(&partial, &content, 1).await;
    scene.reopen().await;
    let partial = create(&scene.store, &signed).await;
    assert_eq!(partial.bitfield().count(), 1);
    write(&partial, &content, 0).await;
    let blob = partial.commit().await.unwrap();
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), content);
}

#[tokio::test]
async fn create_takes_up_the_partial_that_is_there() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 9);
    let partial = scene.create(&content).await;
    write(&partial, &content, 1).await;
    assert_eq!(scene.create(&content).await.bitfield().count(), 1);
    assert_eq!(scene.store.digests(), [(*partial.metainfo().digest(), false)]);
}

/// Every file that the store is about to write is a disk without room.
fn fill_disk(scene: &Scene) {
    for number in 0..16 {
        std::os::unix::fs::symlink("/dev/full", scene.directory.path().join(format!("incoming/{number}")))
            .unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_a_new_partial_and_a_new_blob_by_that_name() {
    let scene = Scene::open().await;
    fill_disk(&scene);
    let refused = scene.store.create(&signed(b"partial")).await;
    assert!(matches!(refused, Err(CreateError::NoSpace { .. })), "{refused:?}");
    let refused = scene.store.put(Bytes::from_static(b"blob"), &Digest::sha256(b"blob"), |_| proof()).await;
    assert!(matches!(refused, Err(ImportError::NoSpace { .. })), "{refused:?}");
    let upload = scene.directory.path().join("upload");
    std::fs::write(&upload, b"blob").unwrap();
    let refused = scene.store.import(&upload, &Digest::sha256(b"blob"), |_| proof()).await;
    assert!(matches!(refused, Err(ImportError::NoSpace { .. })), "{refused:?}");
    assert_eq!(std::fs::read(upload).unwrap(), b"blob");
    assert!(scene.store.digests().is_empty());
    assert_eq!(scene.store.bytes(), 0);
}

/// The same partial over another file.
fn over(scene: &Scene, partial: &Partial, file: std::fs::File) -> Partial {
    let usage = Usage::begin(&scene.store.space.clock);
    Partial::new(&scene.store.space, usage, partial.0.signed.clone(), file, Progress::new(partial.bitfield()))
}

#[tokio::test]
async fn a_full_disk_refuses_a_piece_and_does_not_mark_it() {
    let scene = Scene::open().await;
    let good = scene.create(b"piece").await;
    let full = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    let partial = over(&scene, &good, full);
    let refused = partial.write_piece(PieceIndex(0), Bytes::from_static(b"piece")).await;
    assert!(matches!(refused, Err(WriteError::NoSpace { .. })), "{refused:?}");
    assert_eq!(partial.bitfield().count(), 0);
}

#[tokio::test]
async fn a_commit_without_room_for_the_metainfo_can_be_tried_again() {
    let scene = Scene::open().await;
    let content = content(MIB, 12);
    let partial = scene.create(&content).await;
    write_all(&partial, &content).await;
    fill_disk(&scene);
    assert!(matches!(partial.commit().await, Err(CommitError::NoSpace { .. })));
    for number in 0..16 {
        let _ = std::fs::remove_file(scene.directory.path().join(format!("incoming/{number}")));
    }
    assert!(partial.commit().await.is_ok());
}

#[tokio::test]
async fn what_a_failed_sync_lost_is_never_committed() {
    let scene = Scene::open().await;
    let good = scene.create(b"piece").await;
    // A file that cannot be synced: the bytes are readable, and as good as lost.
    let (pipe, _writer) = std::io::pipe().unwrap();
    let unsyncable = std::fs::File::from(std::os::fd::OwnedFd::from(pipe));
    let partial = over(&scene, &good, unsyncable);
    for _ in 0..2 {
        assert!(partial.0.sync().is_err());
    }
    assert!(matches!(partial.commit().await, Err(CommitError::Gone { .. })));
    let refused = partial.write_piece(PieceIndex(0), Bytes::from_static(b"piece")).await;
    assert!(matches!(refused, Err(WriteError::Gone { .. })));
    assert_eq!(files(scene.directory.path()), [""; 0]);
}

#[tokio::test]
async fn a_deleted_partial_is_gone_and_can_begin_anew() {
    let scene = Scene::open().await;
    let content = content(MIB, 10);
    let partial = scene.create(&content).await;
    write_all(&partial, &content).await;
    assert!(scene.store.delete(partial.metainfo().digest()).await.unwrap());
    assert!(!scene.store.delete(partial.metainfo().digest()).await.unwrap());
    assert!(matches!(partial.commit().await, Err(CommitError::Gone { .. })));
    partial.0.checkpoint();
    assert_eq!(files(scene.directory.path()), [""; 0]);
    assert!(scene.create(&content).await.bitfield().iter().next().is_none());
}

#[tokio::test]
async fn a_piece_is_saved_soon_without_being_asked() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 11);
    let partial = scene.create(&content).await;
    write(&partial, &content, 1).await;
    // What is waited for is the file; `fail` only makes it come sooner.
    partial.fail("the test is in a hurry");
    let saved = || files(scene.directory.path()).iter().any(|name| name.ends_with(".bitfield"));
    while !saved() {
        tokio::task::yield_now().await;
    }
    let after = scene.crash().await;
    assert_eq!(after.create(&content).await.bitfield().iter().collect::<Vec<_>>(), [PieceIndex(1)]);
}

#[tokio::test]
async fn hostile_piece_numbers_are_errors() {
    let scene = Scene::open().await;
    let partial = scene.create(b"small").await;
    for piece in [1, 64, u32::MAX] {
        let refused = partial.write_piece(PieceIndex(piece), Bytes::from_static(b"small")).await;
        assert!(matches!(refused, Err(WriteError::NoSuchPiece { .. })));
        assert!(partial.read_piece(PieceIndex(piece)).await.is_err());
    }
}
