//! A crash between any two steps: the directory is copied at that instant, and another store opens the copy.

use shoal_core::PieceIndex;

use crate::commit::Step;
use crate::testing::{MIB, Scene, content, files, read_to_end, signed, write, write_all};
use crate::{Entry, Written};

#[tokio::test]
async fn pieces_before_the_checkpoint_survive_and_later_ones_are_not_claimed() {
    let scene = Scene::open().await;
    let content = content(4 * MIB, 1);
    let partial = scene.create(&content).await;
    write(&partial, &content, 2).await;
    partial.0.checkpoint();
    let after = scene.crash().await;
    let resumed = after.create(&content).await;
    assert_eq!(resumed.bitfield().iter().collect::<Vec<_>>(), [PieceIndex(2)]);
    assert_eq!(resumed.read_piece(PieceIndex(2)).await.unwrap(), content[2 * MIB..3 * MIB]);
    assert_eq!(write(&resumed, &content, 2).await, Written::Duplicate);
    write_all(&resumed, &content).await;
    let blob = resumed.commit().await.unwrap();
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), content);
}

#[tokio::test]
async fn a_crash_between_any_two_commit_steps_leaves_a_partial_or_the_blob() {
    for steps in 0..=Step::ALL.len() {
        let scene = Scene::open().await;
        let content = content(2 * MIB + 1, 2);
        let partial = scene.create(&content).await;
        write_all(&partial, &content).await;
        partial.0.checkpoint();
        partial.0.prove_and_sync().unwrap();
        for step in &Step::ALL[..steps] {
            partial.0.take(*step, &signed(&content)).unwrap();
        }
        let after = scene.crash().await;
        let blob = match after.store.create(&signed(&content)).await.unwrap() {
            Entry::Whole(blob) => {
                assert!(steps >= 2, "whole before the move");
                blob
            }
            Entry::Partial(partial) => {
                assert!(steps < 2, "not whole after {steps} steps");
                assert!(partial.bitfield().is_full());
                partial.commit().await.unwrap()
            }
        };
        assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), content);
        assert_eq!(files(after.directory.path()).len(), 2, "leftovers after {steps} steps");
        // Who did not die goes on from there.
        assert!(partial.commit().await.is_ok());
        assert_eq!(files(scene.directory.path()).len(), 2);
    }
}

#[tokio::test]
async fn what_was_being_written_is_removed() {
    let scene = Scene::open().await;
    let incoming = scene.directory.path().join("incoming");
    std::fs::write(incoming.join("0"), b"half").unwrap();
    std::fs::create_dir(incoming.join("folder")).unwrap();
    std::fs::write(incoming.join("folder/1"), b"half").unwrap();
    let after = scene.crash().await;
    assert_eq!(files(after.directory.path()), [""; 0]);
    assert!(after.store.digests().is_empty());
}

#[tokio::test]
async fn a_crash_during_create_leaves_nothing() {
    let scene = Scene::open().await;
    let partial = scene.create(&content(2 * MIB, 3)).await;
    let path = partial.0.path();
    for half in [0, MIB as u64] {
        // As between making the file and giving it its length, or with a length that was not made durable.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
        let after = scene.crash().await;
        assert!(after.store.digests().is_empty());
        assert_eq!(files(after.directory.path()), [""; 0]);
    }
}
