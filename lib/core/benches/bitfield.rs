//! What is asked of bitfields all the time: `cargo bench -p shoal-core`.

use divan::{Bencher, black_box};
use shoal_core::{Bitfield, PieceIndex};

/// Of a blob of 4 GiB, and of the most that a blob may have.
const PIECES: [u32; 2] = [4096, 65_536];

fn main() {
    divan::main();
}

/// The pieces that are wanted.
fn every(length: u32, wanted: impl Fn(u32) -> bool) -> Bitfield {
    let mut field = Bitfield::empty(length);
    (0..length).filter(|&piece| wanted(piece)).for_each(|piece| {
        field.insert(PieceIndex(piece));
    });
    field
}

#[divan::bench(args = PIECES)]
fn contains(bencher: Bencher<'_, '_>, pieces: u32) {
    let field = every(pieces, |piece| piece % 3 == 0);
    bencher.bench_local(|| black_box(&field).contains(black_box(PieceIndex(pieces / 2))));
}

#[divan::bench(args = PIECES)]
fn count(bencher: Bencher<'_, '_>, pieces: u32) {
    let field = every(pieces, |piece| piece % 3 == 0);
    bencher.bench_local(|| black_box(&field).count());
}

#[divan::bench(args = PIECES)]
fn what_the_other_lacks(bencher: Bencher<'_, '_>, pieces: u32) {
    let (ours, theirs) = (every(pieces, |piece| piece % 3 == 0), every(pieces, |piece| piece % 2 == 0));
    bencher.bench_local(|| black_box(&ours).difference(black_box(&theirs)).count());
}

#[divan::bench(args = PIECES)]
fn the_last_missing(bencher: Bencher<'_, '_>, pieces: u32) {
    let field = every(pieces, |piece| piece != pieces - 1);
    bencher.bench_local(|| black_box(&field).first_missing(PieceIndex(0)));
}

#[divan::bench(args = PIECES)]
fn there_and_back(bencher: Bencher<'_, '_>, pieces: u32) {
    let field = every(pieces, |piece| piece % 3 == 0);
    bencher.bench_local(|| Bitfield::from_bytes(pieces, &black_box(&field).to_bytes()));
}
