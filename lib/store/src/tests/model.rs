//! Random histories of one partial against a set of piece numbers.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use shoal_core::PieceIndex;

use crate::testing::{MIB, Scene, content, piece_of, read_to_end, signed};
use crate::{Entry, Partial, WriteError, Written};

const PIECES: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    WriteCorrupt(u32, prop::sample::Index),
    WriteShort(u32),
    Checkpoint,
    Restart,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let piece = || 0..PIECES + 1;
    prop_oneof![
        8 => piece().prop_map(Step::Write),
        2 => (piece(), any::<prop::sample::Index>()).prop_map(|(piece, at)| Step::WriteCorrupt(piece, at)),
        1 => piece().prop_map(Step::WriteShort),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
    ]
}

/// One store with one partial, and what should be in it.
struct Run {
    scene: Scene,
    partial: Partial,
    content: Vec<u8>,
    /// Pieces that are in.
    present: BTreeSet<u32>,
    /// Those of them that a crash must not take.
    saved: BTreeSet<u32>,
}

impl Run {
    async fn begin() -> Self {
        let content = content((PIECES as usize - 1) * MIB + 77_777, 7);
        let scene = Scene::open().await;
        let partial = scene.create(&content).await;
        Self { scene, partial, content, present: BTreeSet::new(), saved: BTreeSet::new() }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write(piece) if piece < PIECES => {
                let expected = if self.present.insert(piece) { Written::New } else { Written::Duplicate };
                let bytes = piece_of(&self.partial, &self.content, piece);
                assert_eq!(self.partial.write_piece(PieceIndex(piece), bytes).await.unwrap(), expected);
            }
            Step::WriteCorrupt(piece, at) if piece < PIECES => {
                let mut bytes = piece_of(&self.partial, &self.content, piece).to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= 1;
                self.assert_corrupt(piece, bytes.into()).await;
            }
            Step::WriteShort(piece) if piece < PIECES => {
                let bytes = piece_of(&self.partial, &self.content, piece).split_off(1);
                self.assert_corrupt(piece, bytes).await;
            }
            Step::Write(piece) | Step::WriteCorrupt(piece, _) | Step::WriteShort(piece) => {
                let refused = self.partial.write_piece(PieceIndex(piece), Bytes::new()).await;
                assert!(matches!(refused, Err(WriteError::NoSuchPiece { .. })));
            }
            Step::Checkpoint => {
                self.partial.0.checkpoint();
                self.saved = self.present.clone();
            }
            Step::Restart => {
                self.scene.reopen().await;
                self.saved = self.present.clone();
                self.take_up();
            }
            Step::Crash => {
                self.scene = self.scene.crash().await;
                self.take_up();
                let found = self.found();
                assert!(found.is_superset(&self.saved) && found.is_subset(&self.present));
                self.present = found.clone();
                self.saved = found;
            }
        }
    }

    async fn assert_corrupt(&self, piece: u32, bytes: Bytes) {
        let refused = self.partial.write_piece(PieceIndex(piece), bytes).await;
        assert!(matches!(refused, Err(WriteError::Corrupt { piece: found, .. }) if found.0 == piece));
    }

    fn take_up(&mut self) {
        let Some(Entry::Partial(partial)) = self.scene.store.entry(self.partial.metainfo().digest()) else {
            panic!("the partial is lost");
        };
        self.partial = partial;
    }

    fn found(&self) -> BTreeSet<u32> {
        self.partial.bitfield().iter().map(|piece| piece.0).collect()
    }

    async fn check(&self) {
        assert_eq!(self.found(), self.present);
        for piece in 0..PIECES {
            let read = self.partial.read_piece(PieceIndex(piece)).await;
            let expected =
                self.present.contains(&piece).then(|| piece_of(&self.partial, &self.content, piece));
            assert_eq!(read.ok(), expected, "piece {piece}");
        }
    }

    async fn end(mut self) {
        for piece in 0..PIECES {
            self.take(Step::Write(piece)).await;
        }
        let blob = self.partial.commit().await.unwrap();
        assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), self.content);
        self.scene.reopen().await;
        let blob = self.scene.store.blob(signed(&self.content).metainfo.digest()).unwrap();
        assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), self.content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_marked_pieces_are_right_and_the_blob_comes_whole(
        steps in prop::collection::vec(step(), 0..16)
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut run = Run::begin().await;
            for step in steps {
                run.take(step).await;
                run.check().await;
            }
            run.end().await;
        });
    }
}
