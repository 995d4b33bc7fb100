//! Where the readers of a blob stand: for each, its next missing pieces.
//!
//! Invariant: a window holds the first missing pieces of its range, at most `window` of them. Every piece of a range is
//! looked at once, so a reader costs as much as its range is long, and nothing a request.

use std::ops::Range;

use shoal_core::{Bitfield, PieceIndex};

#[derive(Debug, Default)]
pub(crate) struct Readers {
    readers: Vec<Reader>,
    /// Who is served next.
    turn: usize,
}

#[derive(Debug)]
struct Reader {
    window: Vec<PieceIndex>,
    /// What was not looked at yet.
    rest: Range<u32>,
}

impl Readers {
    /// Readers at `ranges`, the first `limit` of them; what lies beyond the blob is left out.
    pub(crate) fn new(ranges: Vec<Range<u32>>, have: &Bitfield, window: usize, limit: usize) -> Self {
        let mut readers: Vec<_> = ranges
            .into_iter()
            .take(limit.max(1))
            .map(|range| Reader { window: Vec::new(), rest: range.start..range.end.min(have.len()) })
            .collect();
        for reader in &mut readers {
            reader.fill(have, window);
        }
        readers.retain(|reader| !reader.window.is_empty());
        Self { readers, turn: 0 }
    }

    /// The first piece that suits, of the reader whose turn it is, or else of the next; at most `ahead` pieces ahead of it.
    pub(crate) fn next(&self, ahead: usize, suits: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        let (before, after) = self.readers.split_at(self.turn);
        after
            .iter()
            .chain(before)
            .find_map(|reader| reader.window.iter().copied().take(ahead.max(1)).find(|&piece| suits(piece)))
    }

    /// Whether nobody waits for a piece.
    pub(crate) fn is_empty(&self) -> bool {
        self.readers.iter().all(|reader| reader.window.is_empty())
    }

    /// What each reader waits for.
    pub(crate) fn heads(&self) -> impl Iterator<Item = PieceIndex> {
        self.readers.iter().filter_map(|reader| reader.window.first().copied())
    }

    /// That piece was asked for: the turn goes on from its reader.
    pub(crate) fn served(&mut self, piece: PieceIndex) {
        let count = self.readers.len();
        let order = (0..count).map(|step| (self.turn + step) % count);
        let mut order = order.filter(|&at| self.readers[at].window.contains(&piece));
        if let Some(at) = order.next() {
            self.turn = (at + 1) % count;
        }
    }

    /// That piece is here.
    pub(crate) fn arrived(&mut self, piece: PieceIndex, have: &Bitfield, window: usize) {
        for reader in &mut self.readers {
            if let Some(at) = reader.window.iter().position(|&next| next == piece) {
                reader.window.remove(at);
                reader.fill(have, window);
            }
        }
    }
}

impl Reader {
    fn fill(&mut self, have: &Bitfield, window: usize) {
        let room = window.max(1) - self.window.len();
        let missing = self.rest.by_ref().map(PieceIndex).filter(|&piece| !have.contains(piece));
        self.window.extend(missing.take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_take_turns_and_windows_move_on() {
        let mut have = Bitfield::empty(20);
        have.insert(PieceIndex(1));
        let mut readers = Readers::new(vec![0..4, 10..40, 30..40], &have, 2, 16);
        let mut asked = Vec::new();
        while let Some(piece) = readers.next(2, |piece| !asked.contains(&piece)) {
            asked.push(piece);
            readers.served(piece);
        }
        assert_eq!(asked, [0, 10, 2, 11].map(PieceIndex));
        have.insert(PieceIndex(0));
        readers.arrived(PieceIndex(0), &have, 2);
        assert_eq!(readers.next(2, |piece| !asked.contains(&piece)), Some(PieceIndex(3)));
        assert_eq!(
            readers.next(1, |piece| !asked.contains(&piece)),
            None,
            "the next ones are asked for, and no more are allowed"
        );
    }
}
