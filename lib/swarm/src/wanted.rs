//! Which of the missing pieces a fetch is after: all of them, or those near its readers.
//!
//! Invariant: in scope `Demand` nothing is wanted that is farther ahead of every reader than it was said to be at most.

use std::ops::Range;

use shoal_core::{Bitfield, PieceIndex};

use crate::event::Scope;

#[derive(Debug)]
pub(crate) enum Wanted {
    /// All.
    All,
    /// Those near readers.
    Near {
        /// What each reader comes to next, to its end.
        ranges: Vec<Range<u32>>,
        /// The other pieces: what is here, and what no reader is near to.
        settled: Bitfield,
    },
}

/// What readers that moved made of it.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// What each reader comes to next, as far as it is wanted.
    pub(crate) near: Vec<Range<u32>>,
    /// Missing pieces that are wanted now and were not.
    pub(crate) more: Vec<PieceIndex>,
    /// Missing pieces that were wanted and are not now.
    pub(crate) less: Vec<PieceIndex>,
}

impl Wanted {
    /// Nobody reads yet.
    pub(crate) fn new(scope: Scope, have: &Bitfield) -> Self {
        match scope {
            Scope::All => Self::All,
            Scope::Demand => Self::Near { ranges: Vec::new(), settled: Bitfield::full(have.len()) },
        }
    }

    /// The pieces that are not to be got, where `have` are here.
    pub(crate) fn settled<'a>(&'a self, have: &'a Bitfield) -> &'a Bitfield {
        match self {
            Self::All => have,
            Self::Near { settled, .. } => settled,
        }
    }

    /// Whether that piece is wanted, which is missing.
    pub(crate) fn contains(&self, piece: PieceIndex) -> bool {
        match self {
            Self::All => true,
            Self::Near { settled, .. } => !settled.contains(piece),
        }
    }

    /// That piece is here.
    pub(crate) fn arrived(&mut self, piece: PieceIndex) {
        if let Self::Near { settled, .. } = self {
            settled.insert(piece);
        }
    }

    /// Readers come to these pieces next; where only what is near to them is wanted, that is the first `ahead` of each.
    pub(crate) fn move_to(&mut self, ranges: Vec<Range<u32>>, ahead: u32, have: &Bitfield) -> Moved {
        let Self::Near { ranges: kept, settled } = self else {
            return Moved { near: ranges, ..Moved::default() };
        };
        let first = |range: &Range<u32>| {
            let end = range.end.min(have.len());
            range.start..end.min(range.start.saturating_add(ahead))
        };
        let near: Vec<_> = ranges.iter().map(first).collect();
        let mut now = Bitfield::full(have.len());
        for piece in near.iter().cloned().flatten().map(PieceIndex).filter(|&piece| !have.contains(piece)) {
            now.remove(piece);
        }
        let before = std::mem::replace(settled, now);
        *kept = ranges;
        let less = settled.difference(&before).filter(|&piece| !have.contains(piece)).collect();
        Moved { near, more: before.difference(settled).collect(), less }
    }

    /// From now on all is wanted. Gives what each reader comes to next, and the pieces that were not wanted; `None` if all
    /// was wanted before.
    pub(crate) fn raise(&mut self, have: &Bitfield) -> Option<(Vec<Range<u32>>, Vec<PieceIndex>)> {
        match std::mem::replace(self, Self::All) {
            Self::All => None,
            Self::Near { ranges, settled } => Some((ranges, settled.difference(have).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_wanted_is_what_is_near_and_missing(
            length in 1u32..100,
            held in prop::collection::vec(0u32..100, 0..60),
            steps in prop::collection::vec(prop::collection::vec((0u32..120, 0u32..120), 0..5), 1..5),
            ahead in 1u32..20,
        ) {
            let mut have = Bitfield::empty(length);
            for piece in held.into_iter().filter(|&piece| piece < length) {
                have.insert(PieceIndex(piece));
            }
            let mut wanted = Wanted::new(Scope::Demand, &have);
            let missing: Vec<_> = Bitfield::full(length).difference(&have).collect();
            for ranges in steps {
                let ranges: Vec<_> = ranges.into_iter().map(|(start, end)| start..end).collect();
                let before: Vec<_> = missing.iter().map(|&piece| wanted.contains(piece)).collect();
                let moved = wanted.move_to(ranges.clone(), ahead, &have);
                for (&piece, was) in missing.iter().zip(before) {
                    let is_near = |range: &Range<u32>| range.contains(&piece.0) && piece.0 - range.start < ahead;
                    let is = ranges.iter().any(is_near);
                    prop_assert_eq!(wanted.contains(piece), is);
                    prop_assert_eq!(moved.more.contains(&piece), is && !was);
                    prop_assert_eq!(moved.less.contains(&piece), was && !is);
                }
                prop_assert!(have.difference(wanted.settled(&have)).next().is_none());
                prop_assert!(moved.near.iter().all(|range| range.is_empty() || range.end <= length));
            }
            let idle: Vec<_> = missing.iter().copied().filter(|&piece| !wanted.contains(piece)).collect();
            prop_assert_eq!(wanted.raise(&have).unwrap().1, idle);
            prop_assert!(wanted.raise(&have).is_none());
        }
    }
}
