//! What is to happen when, in the order of time and, at the same instant, in the order of entry.
//!
//! Two kinds of entries: *ticks*, due at any time, on a wheel; and many *letters*, each of which takes one of few fixed
//! delays. Letters of one delay are due in the order in which they were sent, so a queue a delay does, and no sorting.

mod wheel;

use std::collections::VecDeque;

use wheel::Wheel;

/// Nanoseconds since the beginning.
pub(crate) type Time = u64;

/// Orders entries; unique.
type Key = (Time, u64);

#[derive(Debug)]
pub(crate) struct Agenda<T, L> {
    now: Time,
    sequence: u64,
    ticks: Wheel<T>,
    lanes: Vec<Lane<L>>,
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due<T, L> {
    Tick(T),
    Letter(L),
}

#[derive(Debug)]
struct Lane<L> {
    delay: Time,
    letters: VecDeque<(Key, L)>,
}

impl<T, L> Agenda<T, L> {
    pub(crate) fn new() -> Self {
        Self { now: 0, sequence: 0, ticks: Wheel::new(), lanes: Vec::new() }
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Lets it happen at `at`, or now if that is over.
    pub(crate) fn at(&mut self, at: Time, what: T) {
        let key = self.key(at.max(self.now));
        self.ticks.push(key, what);
    }

    /// Lets it happen in `delay`.
    pub(crate) fn after(&mut self, delay: Time, what: T) {
        self.at(self.now + delay, what);
    }

    /// Sends a letter that takes `delay`. There are as many queues as different delays, so let those be few.
    pub(crate) fn post(&mut self, delay: Time, letter: L) {
        let key = self.key(self.now + delay);
        let lane = match self.lanes.iter().position(|lane| lane.delay == delay) {
            Some(at) => &mut self.lanes[at],
            None => {
                self.lanes.push(Lane { delay, letters: VecDeque::new() });
                self.lanes.last_mut().expect("one was pushed")
            }
        };
        lane.letters.push_back((key, letter));
    }

    /// What is due next; it is that time from then on.
    pub(crate) fn pop(&mut self) -> Option<Due<T, L>> {
        let tick = self.ticks.next();
        let fronts = self.lanes.iter().enumerate();
        let letter = fronts.filter_map(|(at, lane)| Some((lane.letters.front()?.0, at))).min();
        match (tick, letter) {
            (Some(tick), Some((letter, lane))) if letter < tick => self.take_letter(lane),
            (None, Some((_, lane))) => self.take_letter(lane),
            (Some(_), _) => {
                let ((at, _), what) = self.ticks.pop()?;
                self.now = at;
                Some(Due::Tick(what))
            }
            (None, None) => None,
        }
    }

    fn take_letter(&mut self, lane: usize) -> Option<Due<T, L>> {
        let ((at, _), letter) = self.lanes[lane].letters.pop_front()?;
        self.now = at;
        Some(Due::Letter(letter))
    }

    fn key(&mut self, at: Time) -> Key {
        self.sequence += 1;
        (at, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_happens_once_in_order(entries in prop::collection::vec((0u64..50, any::<bool>()), 0..200)) {
            let mut agenda = Agenda::new();
            for (number, &(when, letter)) in entries.iter().enumerate() {
                if letter { agenda.post(when % 4, (when % 4, number)) } else { agenda.at(when, (when, number)) }
            }
            let mut seen = Vec::new();
            while let Some(Due::Tick(entry) | Due::Letter(entry)) = agenda.pop() {
                prop_assert_eq!(agenda.now(), entry.0);
                seen.push(entry);
            }
            prop_assert_eq!(seen.len(), entries.len());
            prop_assert!(seen.is_sorted(), "by time, then by order of entry");
        }
    }

    #[test]
    fn what_is_late_happens_now() {
        let mut agenda: Agenda<u8, u8> = Agenda::new();
        agenda.at(10, 1);
        assert!(matches!(agenda.pop(), Some(Due::Tick(1))));
        agenda.at(5, 2);
        assert!(matches!(agenda.pop(), Some(Due::Tick(2))));
        assert_eq!(agenda.now(), 10);
    }
}
