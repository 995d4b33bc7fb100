//! Whether what clients saw of one tag can have happened in some order, each operation at one moment between its call and its
//! answer: a search (Wing and Gong) that remembers where it has been (Lowe). One whose answer nobody heard may have happened at
//! any moment after its call, or never.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What was asked of a tag that names a `V` or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation<V> {
    Read,
    Put(V),
    Delete,
    /// Puts `to` where the tag names `from`.
    Swap {
        from: Option<V>,
        to: V,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<V> {
    /// To a read.
    Names(Option<V>),
    Done,
    /// The tag was not as a swap expected it, or there was none to delete.
    Refused,
    /// Nobody knows whether it happened.
    Lost,
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub(crate) struct Event<V> {
    pub(crate) called: u64,
    /// Of no meaning where the answer was lost.
    pub(crate) answered: u64,
    pub(crate) operation: Operation<V>,
    pub(crate) answer: Answer<V>,
}

/// Why a history is none of a tag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault<V> {
    /// The best order leaves these out, by their places in the history; and what the tag names after it.
    Impossible { left: Vec<usize>, names: Option<V> },
    /// It was given up after [`MAX_STEPS`].
    Undecided,
}

/// Where a search is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place<V> {
    /// A bit an event: whether it happened.
    happened: Vec<u64>,
    names: Option<V>,
}

impl<V: Clone + Eq> Operation<V> {
    /// What the tag names afterwards; `None` if that cannot be the answer.
    fn apply(&self, names: &Option<V>, answer: &Answer<V>) -> Option<Option<V>> {
        let (allowed, after) = match self {
            Self::Read => match answer {
                Answer::Names(read) if read != names => return None,
                _ => return Some(names.clone()),
            },
            Self::Put(value) => (true, Some(value.clone())),
            Self::Delete => (names.is_some(), None),
            Self::Swap { from, to } => (names == from, Some(to.clone())),
        };
        match answer {
            Answer::Done => allowed.then_some(after),
            Answer::Refused => (!allowed).then(|| names.clone()),
            Answer::Lost => Some(if allowed { after } else { names.clone() }),
            Answer::Names(_) => None,
        }
    }
}

/// Whether the events of one tag, which named `first` before them, are those of one that is read and changed at moments.
pub(crate) fn check<V: Clone + Eq + Hash + Debug>(
    first: Option<V>,
    history: &[Event<V>],
) -> Result<(), Fault<V>> {
    let start = Place { happened: vec![0; history.len().div_ceil(64)], names: first };
    let (mut seen, mut open, mut best) = (HashSet::from([start.clone()]), vec![start], None);
    while let Some(place) = open.pop() {
        let left = place.left(history);
        if left.is_empty() {
            return Ok(());
        }
        if seen.len() > MAX_STEPS {
            return Err(Fault::Undecided);
        }
        // The last is looked at first: what was called first, as it most often was.
        for next in place.next(history).into_iter().rev() {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
        if best.as_ref().is_none_or(|(fewest, _): &(Vec<usize>, _)| left.len() < fewest.len()) {
            best = Some((left, place.names));
        }
    }
    let (left, names) = best.unwrap_or_default();
    Err(Fault::Impossible { left, names })
}

impl<V: Clone + Eq> Place<V> {
    fn has(&self, event: usize) -> bool {
        self.happened[event / 64] >> (event % 64) & 1 == 1
    }

    /// What was answered and has not happened yet.
    fn left(&self, history: &[Event<V>]) -> Vec<usize> {
        let answered = |event: &usize| history[*event].answer != Answer::Lost && !self.has(*event);
        (0..history.len()).filter(answered).collect()
    }

    /// Where one more event leads: any that was called before the first answer that is left.
    fn next(&self, history: &[Event<V>]) -> Vec<Self> {
        let before = self.left(history).into_iter().map(|event| history[event].answered).min();
        let before = before.unwrap_or(u64::MAX);
        let mut events: Vec<_> =
            (0..history.len()).filter(|&event| !self.has(event) && history[event].called <= before).collect();
        // Lost ones last: they need not have happened.
        events.sort_by_key(|&event| (history[event].answer == Answer::Lost, history[event].answered));
        let lead = |event: usize| {
            let Event { operation, answer, .. } = &history[event];
            let names = operation.apply(&self.names, answer)?;
            let mut happened = self.happened.clone();
            happened[event / 64] |= 1 << (event % 64);
            Some(Self { happened, names })
        };
        events.into_iter().filter_map(lead).collect()
    }
}

/// How many places are looked at: some seconds' worth.
const MAX_STEPS: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(called: u64, answered: u64, operation: Operation<u8>, answer: Answer<u8>) -> Event<u8> {
        Event { called, answered, operation, answer }
    }

    fn read(called: u64, answered: u64, names: Option<u8>) -> Event<u8> {
        event(called, answered, Operation::Read, Answer::Names(names))
    }

    fn put(called: u64, answered: u64, value: u8) -> Event<u8> {
        event(called, answered, Operation::Put(value), Answer::Done)
    }

    fn swap(called: u64, answered: u64, from: Option<u8>, to: u8, answer: Answer<u8>) -> Event<u8> {
        event(called, answered, Operation::Swap { from, to }, answer)
    }

    #[test]
    fn what_can_have_happened_is_told_from_what_cannot() {
        let possible = [
            vec![],
            vec![put(0, 1, 1), read(2, 3, Some(1))],
            // At the same time: either.
            vec![put(0, 9, 1), read(1, 2, None), read(3, 4, Some(1))],
            // One wins.
            vec![
                swap(0, 9, None, 1, Answer::Done),
                swap(0, 9, None, 2, Answer::Refused),
                read(10, 11, Some(1)),
            ],
            // A lost one shows late, or never.
            vec![event(0, 0, Operation::Put(7), Answer::Lost), read(5, 6, None), read(7, 8, Some(7))],
            vec![event(0, 0, Operation::Put(7), Answer::Lost), read(5, 6, None)],
            vec![put(0, 1, 1), event(2, 3, Operation::Delete, Answer::Done), read(4, 5, None)],
        ];
        for history in possible {
            assert_eq!(check(None, &history), Ok(()), "{history:?}");
        }
        let impossible = [
            // An old tag.
            vec![put(0, 1, 1), put(2, 3, 2), read(4, 5, Some(1))],
            // New, and old again.
            vec![put(0, 1, 1), put(2, 20, 2), read(3, 4, Some(2)), read(5, 6, Some(1))],
            // One that nobody wrote.
            vec![read(0, 1, Some(9))],
            // Two win.
            vec![swap(0, 9, None, 1, Answer::Done), swap(0, 9, None, 2, Answer::Done)],
            // Refused without a reason.
            vec![swap(0, 1, None, 1, Answer::Refused)],
            // Twice, by one lost write.
            vec![
                event(0, 0, Operation::Put(7), Answer::Lost),
                read(1, 2, Some(7)),
                put(3, 4, 1),
                read(5, 6, Some(7)),
            ],
            // Seen before it was asked for.
            vec![read(0, 1, Some(7)), event(2, 0, Operation::Put(7), Answer::Lost)],
            // There was none to delete.
            vec![event(0, 1, Operation::Delete, Answer::Done)],
        ];
        for history in impossible {
            assert!(matches!(check(None, &history), Err(Fault::Impossible { .. })), "{history:?}");
        }
    }

    #[test]
    fn a_long_history_of_one_client_after_another_is_decided() {
        let mut history: Vec<_> = (0..2000).map(|at| put(at * 10, at * 10 + 1, (at % 200) as u8)).collect();
        history.extend((0..2000u64).map(|at| read(at * 10 + 2, at * 10 + 3, Some((at % 200) as u8))));
        assert_eq!(check(None, &history), Ok(()));
        history.push(read(100_000, 100_001, Some(3)));
        assert!(check(None, &history).is_err());
    }

    fn any_event() -> impl Strategy<Value = Event<u8>> {
        let value = || prop::option::of(0u8..3);
        let operation = prop_oneof![
            Just(Operation::Read),
            (0u8..3).prop_map(Operation::Put),
            Just(Operation::Delete),
            (value(), 0u8..3).prop_map(|(from, to)| Operation::Swap { from, to }),
        ];
        (0u64..12, 0u64..6, operation, value(), 0..4).prop_map(|(called, length, operation, names, kind)| {
            let answer = match (&operation, kind) {
                (_, 0) => Answer::Lost,
                (Operation::Read, _) => Answer::Names(names),
                (Operation::Delete | Operation::Swap { .. }, 1) => Answer::Refused,
                _ => Answer::Done,
            };
            Event { called, answered: called + length, operation, answer }
        })
    }

    /// Every order of every choice of lost ones, as the definition has it.
    fn by_definition(history: &[Event<u8>], names: Option<u8>, happened: u32) -> bool {
        let has = |event: usize| happened >> event & 1 == 1;
        let lost = |event: usize| history[event].answer == Answer::Lost;
        if (0..history.len()).all(|event| has(event) || lost(event)) {
            return true;
        }
        (0..history.len()).filter(|&event| !has(event)).any(|event| {
            let too_late = (0..history.len())
                .any(|other| !has(other) && !lost(other) && history[other].answered < history[event].called);
            let after = history[event].operation.apply(&names, &history[event].answer);
            !too_late && after.is_some_and(|names| by_definition(history, names, happened | 1 << event))
        })
    }

    proptest! {
        #[test]
        fn the_search_finds_what_the_definition_says(history in prop::collection::vec(any_event(), 0..7)) {
            prop_assert_eq!(check(None, &history).is_ok(), by_definition(&history, None, 0));
        }
    }
}
