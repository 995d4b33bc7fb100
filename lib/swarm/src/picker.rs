//! Which idle piece is the rarest. A piece is *idle* when it is missing and nobody was asked for it.
//!
//! Invariants: a piece's rarity is the number of agents in the swarm that have it, derived from their bitfields alone;
//! every idle piece stands in exactly the bucket of its rarity. Origins have everything and do not count. Agents that
//! have everything are counted apart: they change no order, so their coming and going costs nothing a piece.

use rand::{Rng, RngExt as _};
use shoal_core::{Bitfield, PieceIndex};

/// Among which pieces to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// All that the peer has.
    All,
    /// Those that no agent in the swarm has.
    Unspread,
}

/// How an agent's pieces were counted; it must be uncounted the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Not at all (an origin, or before its bitfield is known).
    No,
    /// Piece by piece.
    Pieces,
    /// As one that has everything.
    Whole,
}

#[derive(Debug)]
pub(crate) struct Picker {
    /// Agents that have the piece, without the `whole` ones.
    rarity: Vec<u32>,
    /// Agents that have everything.
    whole: u32,
    /// Idle pieces by rarity, in no order.
    buckets: Vec<Vec<u32>>,
    /// Where an idle piece stands in its bucket.
    position: Vec<u32>,
    /// Pieces that are not idle: held, or asked for.
    taken: Bitfield,
    idle: u32,
}

impl Picker {
    /// A peer with fewer idle pieces than this is looked through whole; of one with more, a walk from the rarest on
    /// finds one soon.
    const FEW: usize = 32;

    /// Nobody is counted yet; what is not held is idle.
    pub(crate) fn new(have: &Bitfield) -> Self {
        let length = have.len() as usize;
        let mut picker = Self {
            rarity: vec![0; length],
            whole: 0,
            buckets: vec![Vec::new()],
            position: vec![0; length],
            taken: have.clone(),
            idle: 0,
        };
        for piece in Bitfield::full(have.len()).difference(have) {
            picker.enter(piece);
        }
        picker
    }

    pub(crate) fn count_all(&mut self, pieces: &Bitfield) -> Counted {
        if pieces.is_full() {
            self.whole += 1;
            return Counted::Whole;
        }
        for piece in pieces.iter() {
            self.count(piece);
        }
        Counted::Pieces
    }

    pub(crate) fn uncount_all(&mut self, counted: Counted, pieces: &Bitfield) {
        match counted {
            Counted::No => {}
            Counted::Whole => self.whole -= 1,
            Counted::Pieces => {
                for piece in pieces.iter() {
                    self.shift(piece, |rarity| rarity - 1);
                }
            }
        }
    }

    pub(crate) fn count(&mut self, piece: PieceIndex) {
        self.shift(piece, |rarity| rarity + 1);
    }

    /// Whether nobody was asked for it, and it is missing.
    pub(crate) fn is_idle(&self, piece: PieceIndex) -> bool {
        piece.0 < self.taken.len() && !self.taken.contains(piece)
    }

    pub(crate) fn idle(&self) -> u32 {
        self.idle
    }

    /// Somebody was asked for it, or it is here. Nothing happens if it was not idle.
    pub(crate) fn take(&mut self, piece: PieceIndex) {
        if self.is_idle(piece) {
            self.leave(piece);
            self.taken.insert(piece);
        }
    }

    /// It is missing, and nobody is asked for it any more. Nothing happens if it was idle.
    pub(crate) fn put_back(&mut self, piece: PieceIndex) {
        if self.taken.remove(piece) {
            self.enter(piece);
        }
    }

    /// Whether the piece is idle and among those to choose from.
    pub(crate) fn allows(&self, piece: PieceIndex, among: Among) -> bool {
        self.is_idle(piece) && (among == Among::All || self.whole + self.rarity[piece.0 as usize] == 0)
    }

    /// The rarest idle piece out of `have`; random among equals.
    pub(crate) fn pick(&self, have: &Bitfield, among: Among, rng: &mut impl Rng) -> Option<PieceIndex> {
        if self.idle == 0 || (among == Among::Unspread && self.whole > 0) {
            return None;
        }
        let rarities = match among {
            Among::All => self.buckets.len(),
            Among::Unspread => 1,
        };
        let few = have.difference(&self.taken).take(Self::FEW).count() < Self::FEW;
        if few { self.pick_of_few(have, among, rng) } else { self.walk(have, rarities, rng) }
    }

    fn pick_of_few(&self, have: &Bitfield, among: Among, rng: &mut impl Rng) -> Option<PieceIndex> {
        let mut best = None;
        let mut equals = 0u32;
        for piece in have.difference(&self.taken).filter(|&piece| self.allows(piece, among)) {
            let rarity = self.rarity[piece.0 as usize];
            match best {
                Some((_, least)) if least < rarity => continue,
                Some((_, least)) if least == rarity => equals += 1,
                _ => equals = 1,
            }
            if rng.random_range(0..equals) == 0 {
                best = Some((piece, rarity));
            }
        }
        best.map(|(piece, _)| piece)
    }

    fn walk(&self, have: &Bitfield, rarities: usize, rng: &mut impl Rng) -> Option<PieceIndex> {
        self.buckets[..rarities].iter().filter(|bucket| !bucket.is_empty()).find_map(|bucket| {
            let (before, after) = bucket.split_at(rng.random_range(0..bucket.len()));
            after.iter().chain(before).map(|&piece| PieceIndex(piece)).find(|&piece| have.contains(piece))
        })
    }

    fn shift(&mut self, piece: PieceIndex, change: impl Fn(u32) -> u32) {
        let idle = self.is_idle(piece);
        if idle {
            self.leave(piece);
        }
        let rarity = &mut self.rarity[piece.0 as usize];
        *rarity = change(*rarity);
        if idle {
            self.enter(piece);
        }
    }

    fn enter(&mut self, piece: PieceIndex) {
        let rarity = self.rarity[piece.0 as usize] as usize;
        if self.buckets.len() <= rarity {
            self.buckets.resize_with(rarity + 1, Vec::new);
        }
        let bucket = &mut self.buckets[rarity];
        self.position[piece.0 as usize] =
            u32::try_from(bucket.len()).expect("a bucket holds no more than all pieces, which 32 bits count");
        bucket.push(piece.0);
        self.idle += 1;
    }

    fn leave(&mut self, piece: PieceIndex) {
        let at = self.position[piece.0 as usize] as usize;
        let bucket = &mut self.buckets[self.rarity[piece.0 as usize] as usize];
        bucket.swap_remove(at);
        if let Some(&moved) = bucket.get(at) {
            self.position[moved as usize] = u32::try_from(at).expect("it was a position before");
        }
        self.idle -= 1;
    }

    /// The agents that have the piece.
    #[cfg(test)]
    pub(crate) fn rarity(&self, piece: PieceIndex) -> u32 {
        self.whole + self.rarity[piece.0 as usize]
    }

    /// Panics unless every idle piece, and no other, stands in the bucket of its rarity.
    #[cfg(test)]
    pub(crate) fn audit(&self) {
        let mut seen = 0;
        for (rarity, bucket) in self.buckets.iter().enumerate() {
            for (at, &piece) in bucket.iter().enumerate() {
                assert!(self.is_idle(PieceIndex(piece)));
                assert_eq!(self.rarity[piece as usize] as usize, rarity);
                assert_eq!(self.position[piece as usize] as usize, at);
                seen += 1;
            }
        }
        assert_eq!(seen, self.idle);
        assert_eq!(self.idle, self.taken.len() - self.taken.count());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    fn of(length: u32, pieces: &[u32]) -> Bitfield {
        let mut field = Bitfield::empty(length);
        for &piece in pieces {
            field.insert(PieceIndex(piece));
        }
        field
    }

    proptest! {
        #[test]
        fn the_pick_is_the_rarest_of_what_the_peer_has(
            length in 1u32..200,
            agents in prop::collection::vec(prop::collection::vec(0u32..200, 0..300), 0..6),
            held in prop::collection::vec(0u32..200, 0..50),
            peer in prop::collection::vec(0u32..200, 0..300),
            seed: u64,
        ) {
            let mut picker = Picker::new(&of(length, &held));
            let agents: Vec<_> = agents.iter().map(|pieces| of(length, pieces)).collect();
            let counted: Vec<_> = agents.iter().map(|pieces| picker.count_all(pieces)).collect();
            picker.audit();
            let peer = of(length, &peer);
            let rng = &mut Xoshiro256PlusPlus::seed_from_u64(seed);
            let rarity = |piece| agents.iter().filter(|agent| agent.contains(piece)).count();
            let idle: Vec<_> = peer.iter().filter(|&piece| picker.is_idle(piece)).collect();
            let picked = picker.pick(&peer, Among::All, rng);
            prop_assert_eq!(picked.map(rarity), idle.iter().map(|&piece| rarity(piece)).min());
            let picked = picker.pick(&peer, Among::Unspread, rng);
            prop_assert_eq!(picked.map(rarity), idle.iter().map(|&piece| rarity(piece)).find(|&count| count == 0));
            for (counted, agent) in counted.into_iter().zip(&agents) {
                picker.uncount_all(counted, agent);
            }
            picker.audit();
            prop_assert!((0..length).all(|piece| picker.rarity(PieceIndex(piece)) == 0));
        }
    }

    #[test]
    fn equals_are_chosen_at_random() {
        let picker = Picker::new(&Bitfield::empty(64));
        let rng = &mut Xoshiro256PlusPlus::seed_from_u64(1);
        for have in [Bitfield::full(64), of(64, &[1, 2, 3, 4])] {
            let picks: std::collections::BTreeSet<_> =
                (0..64).filter_map(|_| picker.pick(&have, Among::All, rng)).collect();
            assert!(picks.len() >= 4, "{picks:?}");
        }
    }
}
