//! Which idle piece is the rarest. A piece is *idle* when it is missing and nobody was asked for it.
//!
//! Invariants: a piece's rarity is the number of agents in the swarm that have it, derived from their bitfields alone;
//! every idle piece stands in exactly the bucket of its rarity. Origins have everything and do not count. Agents that
//! have everything are counted apart: they change no order, so their coming and going costs nothing a piece.

use std::ops::Range;

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
    /// Idle pieces, the rarest first. Those of one rarity stand together, in no order: they are its *bucket*.
    order: Vec<u32>,
    /// Where an idle piece stands in `order`.
    position: Vec<u32>,
    /// Where the bucket of each rarity ends in `order`, and the next begins.
    ends: Vec<u32>,
    /// Pieces that are not idle: held, or asked for.
    taken: Bitfield,
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
            order: Vec::with_capacity(length),
            position: vec![0; length],
            ends: vec![0],
            taken: have.clone(),
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
                    self.shift(piece, Shift::Rarer);
                }
            }
        }
    }

    pub(crate) fn count(&mut self, piece: PieceIndex) {
        self.shift(piece, Shift::Commoner);
    }

    /// Whether nobody was asked for it, and it is missing.
    pub(crate) fn is_idle(&self, piece: PieceIndex) -> bool {
        piece.0 < self.taken.len() && !self.taken.contains(piece)
    }

    pub(crate) fn idle(&self) -> usize {
        self.order.len()
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
        if self.order.is_empty() || (among == Among::Unspread && self.whole > 0) {
            return None;
        }
        let rarities = match among {
            Among::All => self.ends.len(),
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
        let buckets = (0..rarities).map(|rarity| &self.order[self.bucket(rarity)]);
        buckets.filter(|bucket| !bucket.is_empty()).find_map(|bucket| {
            let (before, after) = bucket.split_at(rng.random_range(0..bucket.len()));
            after.iter().chain(before).map(|&piece| PieceIndex(piece)).find(|&piece| have.contains(piece))
        })
    }

    fn bucket(&self, rarity: usize) -> Range<usize> {
        let start = rarity.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[rarity] as usize
    }

    /// An idle piece goes from its bucket to a neighbouring one by a step over the border between them.
    fn shift(&mut self, piece: PieceIndex, shift: Shift) {
        let rarity = self.rarity[piece.0 as usize] as usize;
        match shift {
            Shift::Commoner => self.rarity[piece.0 as usize] += 1,
            Shift::Rarer => self.rarity[piece.0 as usize] -= 1,
        }
        if !self.is_idle(piece) {
            return;
        }
        let bucket = self.bucket(rarity);
        match shift {
            Shift::Commoner => {
                self.swap(piece, bucket.end - 1);
                self.ends[rarity] -= 1;
                self.reach(rarity + 1);
            }
            Shift::Rarer => {
                self.swap(piece, bucket.start);
                self.ends[rarity - 1] += 1;
            }
        }
    }

    fn enter(&mut self, piece: PieceIndex) {
        let rarity = self.rarity[piece.0 as usize] as usize;
        self.reach(rarity);
        self.position[piece.0 as usize] = place(self.order.len());
        self.order.push(piece.0);
        // From the end it goes down bucket by bucket; the first of each makes room at that one's end.
        for above in (rarity + 1..self.ends.len()).rev() {
            self.swap(piece, self.bucket(above).start);
            self.ends[above] += 1;
        }
        self.ends[rarity] += 1;
    }

    fn leave(&mut self, piece: PieceIndex) {
        let rarity = self.rarity[piece.0 as usize] as usize;
        for above in rarity..self.ends.len() {
            self.swap(piece, self.ends[above] as usize - 1);
            self.ends[above] -= 1;
        }
        self.order.pop();
    }

    /// Makes sure that there is a bucket of that rarity.
    fn reach(&mut self, rarity: usize) {
        while self.ends.len() <= rarity {
            self.ends.push(place(self.order.len()));
        }
    }

    /// Exchanges the places of an idle piece and of the one that stands at `at`.
    fn swap(&mut self, piece: PieceIndex, at: usize) {
        let from = self.position[piece.0 as usize] as usize;
        let other = self.order[at];
        self.order.swap(from, at);
        self.position[other as usize] = place(from);
        self.position[piece.0 as usize] = place(at);
    }

    /// The agents that have the piece.
    #[cfg(test)]
    pub(crate) fn rarity(&self, piece: PieceIndex) -> u32 {
        self.whole + self.rarity[piece.0 as usize]
    }

    /// Panics unless every idle piece, and no other, stands in the bucket of its rarity.
    #[cfg(test)]
    pub(crate) fn audit(&self) {
        for rarity in 0..self.ends.len() {
            for at in self.bucket(rarity) {
                let piece = self.order[at];
                assert!(self.is_idle(PieceIndex(piece)));
                assert_eq!(self.rarity[piece as usize] as usize, rarity);
                assert_eq!(self.position[piece as usize] as usize, at);
            }
        }
        assert_eq!(self.ends.last().map_or(0, |&end| end as usize), self.order.len());
        assert_eq!(self.order.len(), (self.taken.len() - self.taken.count()) as usize);
    }
}

/// Where a piece's rarity goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    Rarer,
    Commoner,
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("there are no more places than pieces, which 32 bits count")
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
