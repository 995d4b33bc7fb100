//! What an origin's signature costs to make and to check: `cargo bench -p shoal-identity`.

use divan::{Bencher, black_box};
use shoal_core::{Digest, Geometry, Metainfo, PieceHash, Role, SignedMetainfo};
use shoal_identity::{Authority, Identity};

const GIB: u64 = 1 << 30;

fn main() {
    divan::main();
}

fn nodes() -> (Identity, Identity) {
    let authority = Authority::generate("bench").expect("a valid name");
    let issue = |role| authority.issue(role, "node").expect("a valid name");
    (issue(Role::Origin), issue(Role::Agent))
}

fn metainfo(length: u64) -> Metainfo {
    let geometry = Geometry::for_blob(length).expect("not too long");
    let hashes = (0..geometry.piece_count()).map(|at| PieceHash([at as u8; 32])).collect();
    Metainfo::new(Digest::sha256(b"blob"), geometry, hashes).expect("a hash a piece")
}

/// By the blob's length: 1 piece, 1,024, 4,096 at most for common blobs.
#[divan::bench(args = [GIB / 1024, GIB, 4 * GIB])]
fn sign(bencher: Bencher<'_, '_>, length: u64) {
    let ((origin, _), metainfo) = (nodes(), metainfo(length));
    bencher.bench_local(|| origin.sign(black_box(&metainfo)));
}

#[divan::bench(args = [GIB / 1024, GIB, 4 * GIB])]
fn verify(bencher: Bencher<'_, '_>, length: u64) {
    let ((origin, agent), metainfo) = (nodes(), metainfo(length));
    let signed = SignedMetainfo { proof: origin.sign(&metainfo), metainfo };
    bencher.bench_local(|| agent.verify(black_box(&signed)).expect("signed by an origin"));
}
