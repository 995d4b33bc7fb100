//! Pieces that peers have before their hashes are known here: a blob that its origin still receives. The engine hears of each
//! once it can be checked, so it never asks for one that could not be.

use std::collections::HashMap;

use shoal_core::{Bitfield, PeerId, PieceIndex};
use shoal_swarm::Message;

/// What peers said of pieces whose hashes are to come. One bitfield a peer, of peers that are connected.
#[derive(Debug, Default)]
pub(crate) struct Early(HashMap<PeerId, Bitfield>);

impl Early {
    /// What of a message counts now, where the hashes of the first `known` of `count` pieces are known. The rest is kept.
    pub(crate) fn hold_back(&mut self, peer: PeerId, message: Message, known: u32, count: u32) -> Message {
        match message {
            Message::Join { digest, have } if have.len() == count => {
                let (now, later) = split(have.iter(), known);
                self.0.remove(&peer);
                self.keep(peer, count, &later);
                let mut have = Bitfield::empty(count);
                now.into_iter().for_each(|piece| _ = have.insert(piece));
                Message::Join { digest, have }
            }
            // What does not exist is for the engine to judge.
            Message::Have { digest, pieces } if pieces.iter().all(|piece| piece.0 < count) => {
                let (now, later) = split(pieces.into_iter(), known);
                self.keep(peer, count, &later);
                Message::Have { digest, pieces: now }
            }
            Message::Absent { digest } => {
                self.0.remove(&peer);
                Message::Absent { digest }
            }
            other => other,
        }
    }

    /// Whose pieces count now that the hashes of the first `known` are known.
    pub(crate) fn release(&mut self, known: u32) -> Vec<(PeerId, Vec<PieceIndex>)> {
        let mut released = Vec::new();
        self.0.retain(|peer, have| {
            let (now, _) = split(have.iter(), known);
            now.iter().for_each(|&piece| _ = have.remove(piece));
            if !now.is_empty() {
                released.push((*peer, now));
            }
            have.count() > 0
        });
        released
    }

    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    fn keep(&mut self, peer: PeerId, count: u32, pieces: &[PieceIndex]) {
        if !pieces.is_empty() {
            let have = self.0.entry(peer).or_insert_with(|| Bitfield::empty(count));
            pieces.iter().for_each(|&piece| _ = have.insert(piece));
        }
    }
}

fn split(pieces: impl Iterator<Item = PieceIndex>, known: u32) -> (Vec<PieceIndex>, Vec<PieceIndex>) {
    pieces.partition(|piece| piece.0 < known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::Digest;

    use super::*;

    proptest! {
        /// Whatever is said in whatever order, the engine hears of each piece of a peer once its hash is known, and never before.
        #[test]
        fn a_piece_is_heard_of_when_its_hash_is_known_and_not_before(
            said in prop::collection::vec((0u32..20, any::<bool>()), 0..40)
        ) {
            let (mut early, mut known, mut heard, mut all) =
                (Early::default(), 0, Bitfield::empty(20), Bitfield::empty(20));
            let (peer, digest) = (PeerId::from_public_key([1; 32]), Digest::sha256(b"x"));
            for (piece, learn) in said {
                if learn {
                    known = known.max(piece);
                    for (_, pieces) in early.release(known) {
                        pieces.iter().for_each(|&piece| _ = heard.insert(piece));
                    }
                } else {
                    all.insert(PieceIndex(piece));
                    let message = Message::Have { digest, pieces: vec![PieceIndex(piece)] };
                    let Message::Have { pieces, .. } = early.hold_back(peer, message, known, 20) else { panic!() };
                    pieces.iter().for_each(|&piece| _ = heard.insert(piece));
                }
                prop_assert!(heard.iter().all(|piece| piece.0 < known));
                let due: Vec<_> = all.iter().filter(|piece| piece.0 < known).collect();
                prop_assert_eq!(heard.iter().collect::<Vec<_>>(), due);
            }
        }
    }

    #[test]
    fn who_joins_anew_or_is_gone_has_said_nothing_before() {
        let (mut early, peer) = (Early::default(), PeerId::from_public_key([1; 32]));
        let digest = Digest::sha256(b"x");
        let join = |have| Message::Join { digest, have };
        let empty = join(Bitfield::empty(3));
        assert_eq!(early.hold_back(peer, join(Bitfield::full(3)), 0, 3), empty);
        assert_eq!(early.hold_back(peer, empty.clone(), 0, 3), empty);
        assert_eq!(early.release(3), []);
        early.hold_back(peer, join(Bitfield::full(3)), 0, 3);
        early.forget(&peer);
        assert_eq!(early.release(3), []);
        // Nonsense is passed on.
        let wrong = join(Bitfield::full(4));
        assert_eq!(early.hold_back(peer, wrong.clone(), 0, 3), wrong);
    }
}
