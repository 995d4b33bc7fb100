//! How fast one thread hashes.

use std::hint::black_box;

use shoal_core::{Algorithm, Digester, PieceHash};

use super::content::Content;
use super::task::Hash;
use super::usage::{Meter, Usage};

pub(super) fn run(hash: Hash, bytes: u64) -> anyhow::Result<Usage> {
    let content = Content::new(bytes)?;
    let meter = Meter::start();
    match hash {
        Hash::Sha256 => digest(Algorithm::Sha256, &content),
        Hash::Sha512 => digest(Algorithm::Sha512, &content),
        Hash::Blake3 => content.pieces().for_each(|(_, piece)| {
            black_box(PieceHash::of(&piece));
        }),
    }
    Ok(meter.stop())
}

fn digest(algorithm: Algorithm, content: &Content) {
    let mut digester = Digester::new(algorithm);
    content.pieces().for_each(|(_, piece)| digester.update(&piece));
    black_box(digester.finish());
}
