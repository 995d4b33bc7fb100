//! What a frame costs to write and to read: `cargo bench -p shoal-transfer`.

use bytes::BytesMut;
use divan::{Bencher, black_box};
use shoal_core::{Bitfield, Digest, PieceIndex};
use shoal_swarm::{Message, Priority};
use shoal_transfer::wire::{Frame, PieceHeader};

fn main() {
    divan::main();
}

/// One of each that comes once a piece, and the longest.
fn frames() -> Vec<Frame> {
    let digest = Digest::sha256(b"blob");
    let piece = PieceIndex(7);
    vec![
        Frame::Message(Message::Request { digest, piece, priority: Priority::Reader }),
        Frame::Message(Message::Have { digest, pieces: vec![piece; 6] }),
        Frame::Piece(PieceHeader { digest, piece, length: 1 << 20 }),
        Frame::Message(Message::Join { digest, have: Bitfield::full(4096) }),
    ]
}

fn name(frame: &Frame) -> String {
    format!("{:?}", frame.kind())
}

fn each() -> impl Iterator<Item = String> {
    frames().into_iter().map(|frame| name(&frame))
}

fn find(wanted: &str) -> Frame {
    frames().into_iter().find(|frame| name(frame) == wanted).expect("the arguments are their names")
}

#[divan::bench(args = each())]
fn encode(bencher: Bencher<'_, '_>, kind: &str) {
    let frame = find(kind);
    let mut out = BytesMut::with_capacity(4096);
    bencher.bench_local(move || {
        out.clear();
        black_box(&frame).encode(&mut out);
    });
}

#[divan::bench(args = each())]
fn decode(bencher: Bencher<'_, '_>, kind: &str) {
    let mut encoded = BytesMut::new();
    find(kind).encode(&mut encoded);
    bencher.with_inputs(|| encoded.clone()).bench_local_refs(Frame::decode);
}
