//! Readers: in order, ahead of the download, across commit and delete, and never a byte too many.

use std::pin::pin;

use futures_util::StreamExt;
use shoal_core::PieceIndex;

use crate::testing::{MIB, Scene, assert_waits, content, create, lie, read_to_end, signed, write, write_all};
use crate::{ReadError, WriteError};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_ahead_of_the_download_waits_and_reads_in_order() {
    let scene = Scene::open().await;
    let content = content(6 * MIB + 3, 1);
    let partial = scene.create(&content).await;
    let mut reader = partial.reader(0..u64::MAX);
    let read = tokio::spawn(async move { read_to_end(&mut reader).await.unwrap() });
    for index in [6, 2, 0, 1, 5, 3, 4] {
        write(&partial, &content, index).await;
    }
    partial.commit().await.unwrap();
    assert_eq!(read.await.unwrap(), content);
}

#[tokio::test]
async fn a_piece_can_be_read_as_soon_as_it_is_in() {
    let scene = Scene::open().await;
    let content = content(3 * MIB, 2);
    let partial = scene.create(&content).await;
    let mut reader = partial.reader(0..u64::MAX);
    assert_waits(pin!(reader.next()));
    write(&partial, &content, 0).await;
    let first = reader.next().await.unwrap().unwrap();
    assert_eq!(first, content[..first.len()]);
    assert!(!first.is_empty() && first.len() <= 256 << 10);
}

/// Everything but the last piece, and then it waits.
async fn read_up_to_the_last_piece(reader: &mut crate::BlobReader, content: &[u8], last: usize) {
    let mut bytes = Vec::new();
    while bytes.len() < content.len() - last {
        bytes.extend_from_slice(&reader.next().await.unwrap().unwrap());
    }
    assert_eq!(bytes, content[..content.len() - last]);
    // Were it not withheld, its read would begin here and be given even if the proof fails.
    assert_waits(pin!(reader.next()));
}

#[tokio::test]
async fn the_last_piece_is_withheld_until_the_digest_is_proved() {
    let scene = Scene::open().await;
    let content = content(2 * MIB + 10, 3);
    let partial = scene.create(&content).await;
    write_all(&partial, &content).await;
    let mut reader = partial.reader(0..u64::MAX);
    read_up_to_the_last_piece(&mut reader, &content, 10).await;
    partial.commit().await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), content[2 * MIB..]);
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn a_wrong_digest_fails_readers_before_the_last_piece() {
    let scene = Scene::open().await;
    let content = content(2 * MIB + 10, 4);
    let partial = create(&scene.store, &lie(&content)).await;
    write_all(&partial, &content).await;
    let mut reader = partial.reader(0..u64::MAX);
    read_up_to_the_last_piece(&mut reader, &content, 10).await;
    partial.commit().await.unwrap_err();
    assert!(matches!(reader.next().await, Some(Err(ReadError::WrongDigest { .. }))));
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn a_reader_of_an_empty_lie_does_not_end_well() {
    let scene = Scene::open().await;
    let partial = create(&scene.store, &lie(b"")).await;
    let mut reader = partial.reader(0..u64::MAX);
    assert_waits(pin!(reader.next()));
    partial.commit().await.unwrap_err();
    assert!(matches!(reader.next().await, Some(Err(ReadError::WrongDigest { .. }))));
}

#[tokio::test]
async fn a_range_reader_gets_the_last_piece_as_it_lands() {
    let scene = Scene::open().await;
    let content = content(2 * MIB + 10, 5);
    let partial = scene.create(&content).await;
    let mut reader = partial.reader(2 * MIB as u64 - 5..u64::MAX);
    assert_waits(pin!(reader.next()));
    write(&partial, &content, 2).await;
    assert_waits(pin!(reader.next()));
    write(&partial, &content, 1).await;
    assert_eq!(read_to_end(&mut reader).await.unwrap(), content[2 * MIB - 5..]);
}

#[tokio::test]
async fn a_range_beyond_the_blob_is_clamped() {
    let scene = Scene::open().await;
    let content = content(1000, 6);
    let blob = scene.put(&content).await;
    for range in [0..0, 1000..2000, u64::MAX..u64::MAX, 0..1, 999..u64::MAX, 10..500] {
        let clamped = (range.start.min(1000) as usize)..(range.end.min(1000) as usize);
        assert_eq!(
            read_to_end(&mut blob.reader(range.clone())).await.unwrap(),
            content[clamped],
            "{range:?}"
        );
    }
    #[expect(clippy::reversed_empty_ranges, reason = "somebody may ask for it")]
    let reversed = 500..10;
    assert!(blob.reader(reversed).next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_mind_each_other_or_one_that_leaves() {
    let scene = Scene::open().await;
    let content = content(4 * MIB, 7);
    let partial = scene.create(&content).await;
    let mut whole = partial.reader(0..u64::MAX);
    let mut tail = partial.reader(3 * MIB as u64..4 * MIB as u64);
    let mut leaves = partial.reader(0..u64::MAX);
    write(&partial, &content, 0).await;
    leaves.next().await.unwrap().unwrap();
    drop(leaves);
    let whole = tokio::spawn(async move { read_to_end(&mut whole).await.unwrap() });
    let tail = tokio::spawn(async move { read_to_end(&mut tail).await.unwrap() });
    write_all(&partial, &content).await;
    partial.commit().await.unwrap();
    assert_eq!(whole.await.unwrap(), content);
    assert_eq!(tail.await.unwrap(), content[3 * MIB..]);
}

#[tokio::test]
async fn a_reader_goes_on_across_commit_and_delete() {
    let scene = Scene::open().await;
    let content = content(3 * MIB, 8);
    let partial = scene.create(&content).await;
    let mut reader = partial.reader(0..u64::MAX);
    write_all(&partial, &content).await;
    let mut bytes = reader.next().await.unwrap().unwrap().to_vec();
    partial.commit().await.unwrap();
    drop(partial);
    bytes.extend_from_slice(&reader.next().await.unwrap().unwrap());
    assert!(scene.store.delete(signed(&content).metainfo.digest()).await.unwrap());
    bytes.extend(read_to_end(&mut reader).await.unwrap());
    assert_eq!(bytes, content);
}

#[tokio::test]
async fn a_blob_that_is_deleted_is_read_to_the_end_by_those_who_began() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 9);
    let blob = scene.put(&content).await;
    let mut reader = blob.reader(0..u64::MAX);
    scene.store.delete(blob.metainfo().digest()).await.unwrap();
    assert_eq!(read_to_end(&mut reader).await.unwrap(), content);
    assert!(matches!(blob.reader(0..10).next().await, Some(Err(ReadError::Gone { .. }))));
    assert!(matches!(blob.read_piece(PieceIndex(0)).await, Err(ReadError::Gone { .. })));
}

#[tokio::test]
async fn deleting_a_partial_ends_its_readers() {
    let scene = Scene::open().await;
    let partial = scene.create(&content(2 * MIB, 10)).await;
    let mut reader = partial.reader(0..u64::MAX);
    assert_waits(pin!(reader.next()));
    scene.store.delete(partial.metainfo().digest()).await.unwrap();
    assert!(matches!(reader.next().await, Some(Err(ReadError::Gone { .. }))));
    assert!(matches!(partial.read_piece(PieceIndex(0)).await, Err(ReadError::Missing { .. })));
}

#[tokio::test]
async fn a_failed_fetch_ends_readers_and_a_new_one_serves_new_readers() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 11);
    let partial = scene.create(&content).await;
    write(&partial, &content, 0).await;
    let mut before = partial.reader(0..u64::MAX);
    partial.fail("no peer has it");
    let mut during = partial.reader(MIB as u64..u64::MAX);
    let Some(Err(ReadError::FetchFailed { reason, .. })) = during.next().await else {
        panic!("it waited for nobody");
    };
    assert_eq!(&*reason, "no peer has it");

    let again = scene.create(&content).await;
    let mut after = again.reader(0..u64::MAX);
    // What was in when the fetch failed can be read; then the old reader is told, though another fetch is on.
    assert!(matches!(read_to_end(&mut before).await, Err(ReadError::FetchFailed { .. })));
    assert!(before.next().await.is_none());
    write(&partial, &content, 1).await;
    again.commit().await.unwrap();
    assert_eq!(read_to_end(&mut after).await.unwrap(), content);
}

#[tokio::test]
async fn demand_is_where_the_readers_are() {
    let scene = Scene::open().await;
    let content = content(4 * MIB, 12);
    let partial = scene.create(&content).await;
    assert!(partial.demand().is_empty());
    assert_waits(pin!(partial.demand_changed()));

    let mut one = partial.reader(0..u64::MAX);
    let two = partial.reader(MIB as u64 + 1..2 * MIB as u64 + 1);
    assert_eq!(partial.demand(), [0..4, 1..3]);
    partial.clone().demand_changed().await;
    assert_waits(pin!(partial.demand_changed()));

    write(&partial, &content, 0).await;
    for _ in 0..4 {
        one.next().await.unwrap().unwrap();
    }
    partial.demand_changed().await;
    assert_eq!(partial.demand(), [1..4, 1..3]);

    drop((one, two));
    partial.demand_changed().await;
    assert!(partial.demand().is_empty());
}

#[tokio::test]
async fn a_reader_that_is_dropped_while_it_waits_loses_no_byte() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 13);
    let blob = scene.put(&content).await;
    let mut reader = blob.reader(0..u64::MAX);
    let mut bytes = Vec::new();
    loop {
        // Begins the read and drops the future, every time.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(part) = pin!(reader.next()).poll(&mut context) {
            let Some(part) = part else { break };
            bytes.extend_from_slice(&part.unwrap());
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(bytes, content);
}

#[tokio::test]
async fn a_reader_is_a_stream_too() {
    let scene = Scene::open().await;
    let content = content(MIB + 1, 14);
    let blob = scene.put(&content).await;
    let parts: Vec<_> = blob.reader(5..u64::MAX).into_stream().collect().await;
    let parts: Vec<_> = parts.into_iter().map(Result::unwrap).collect();
    assert_eq!(parts.concat(), content[5..]);
}

#[tokio::test]
async fn closing_the_store_ends_waiting_readers() {
    let scene = Scene::open().await;
    let content = content(2 * MIB, 15);
    let partial = scene.create(&content).await;
    let mut reader = partial.reader(0..u64::MAX);
    scene.store.close().await;
    assert!(matches!(reader.next().await, Some(Err(ReadError::Gone { .. }))));
    let refused = partial.write_piece(PieceIndex(0), crate::testing::piece_of(&partial, &content, 0)).await;
    assert!(matches!(refused, Err(WriteError::Gone { .. })));
    assert!(scene.store.create(&signed(b"other")).await.is_err());
}
