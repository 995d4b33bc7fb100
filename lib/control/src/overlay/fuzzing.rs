//! What the fuzz targets call: each decoder of what other nodes say.

use bytes::Bytes;
use libp2p::Multiaddr;

use super::addresses::{Belief, multiaddr, socket_address};
use super::notice::Unproved;
use super::question::{Answer, Question};

/// Gossip.
pub fn notice(bytes: &[u8]) {
    // Of any time, so that the clock keeps nothing away from what comes after it.
    let at = bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    for now in [0, at, 1_900_000_000_000] {
        let _ = Unproved::decode(Bytes::copy_from_slice(bytes), now);
    }
}

/// What a holder is asked.
pub fn question(bytes: &[u8]) {
    let _ = Question::decode(bytes);
}

/// What it answers: as it is, and behind a head that is right.
pub fn answer(bytes: &[u8]) {
    let head = br#"{"held":null}"#;
    let length = (head.len() as u32).to_be_bytes();
    any_answer(&[&length[..], head, bytes].concat());
    any_answer(bytes);
}

fn any_answer(bytes: &[u8]) {
    if let Ok(answer) = Answer::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(Answer::decode(&answer.encode().into()).unwrap(), answer);
    }
}

/// Where a record says that a holder is.
pub fn address(bytes: &[u8]) {
    let belief = Belief::new([10, 0, 0, 1].into(), vec![]);
    let Ok(address) = Multiaddr::try_from(bytes.to_vec()) else { return };
    if let Some(dialled) = belief.dialable(&address) {
        assert!(!dialled.ip().to_canonical().is_loopback() && dialled.port() != 0);
        assert_eq!(socket_address(&multiaddr(dialled)), Some(dialled));
    }
}
