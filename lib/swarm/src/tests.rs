//! The engine, alone with a script and in clusters with virtual time.

mod bench;
mod choice;
mod cluster;
mod faults;
mod hostile;
mod peers;
mod record;
mod requests;
mod scope;
mod serving;
mod spread;
mod states;

use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex};

use crate::{Candidate, Config};

const MIB: u64 = 1 << 20;

fn peer(number: u8) -> PeerId {
    PeerId::from_public_key([number; 32])
}

fn blob(number: u8) -> Digest {
    Digest::sha256(&[number])
}

fn pieces(count: u64) -> Geometry {
    Geometry::for_blob(count * MIB).unwrap()
}

fn some(length: u32, pieces: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut field = Bitfield::empty(length);
    for piece in pieces {
        field.insert(PieceIndex(piece));
    }
    field
}

fn candidate(number: u8, role: shoal_core::Role) -> Candidate {
    Candidate { peer: peer(number), role, zone: shoal_core::Zone::default() }
}

#[test]
fn configuration_has_defaults_and_refuses_unknown_keys() {
    assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    let config: Config = toml::from_str("piece_timeout = \"3s\"\nmax_uploads = 5").unwrap();
    assert_eq!((config.piece_timeout.as_secs(), config.max_uploads), (3, 5));
    assert!(toml::from_str::<Config>("piece_timeuot = \"3s\"").is_err());
}
