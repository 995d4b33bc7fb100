//! Which origins are well: a state machine without clock or network.
//!
//! An origin is away after some failures in a row and back after some answers in a row, so that one lost packet moves no
//! blobs and one that comes and goes is not relied on. Whoever was never heard of is away; its first answer is believed.

use std::time::{Duration, Instant};

use shoal_core::Places;

/// What is known of the origins of a cluster. This one itself is always well.
#[derive(Debug)]
pub(super) struct Health {
    own: usize,
    rules: Rules,
    members: Vec<Member>,
}

/// When an origin is away, and when back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) interval: Duration,
    pub(super) failures_until_down: u32,
    pub(super) successes_until_up: u32,
}

#[derive(Debug)]
struct Member {
    state: State,
    /// When it is to be probed next.
    due: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up { failures: u32 },
    Down { successes: u32 },
}

/// An origin came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    CameUp,
    WentDown,
}

impl Health {
    pub(super) fn new(count: usize, own: usize, rules: Rules, now: Instant) -> Self {
        let never = State::Down { successes: rules.successes_until_up.saturating_sub(1) };
        let members = (0..count).map(|_| Member { state: never, due: now }).collect();
        Self { own, rules, members }
    }

    /// Whom to probe now: each again after an interval.
    pub(super) fn due(&mut self, now: Instant) -> Vec<usize> {
        let (own, next) = (self.own, now + self.rules.interval);
        let due =
            self.members.iter_mut().enumerate().filter(|(place, member)| *place != own && member.due <= now);
        due.map(|(place, member)| {
            member.due = next;
            place
        })
        .collect()
    }

    /// When the next probe is due; `None` where there is nobody else.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let others = self.members.iter().enumerate().filter(|(place, _)| *place != self.own);
        others.map(|(_, member)| member.due).min()
    }

    /// It answered.
    pub(super) fn succeeded(&mut self, place: usize) -> Option<Change> {
        let member = self.members.get_mut(place)?;
        let (state, change) = match member.state {
            State::Up { .. } => (State::Up { failures: 0 }, None),
            State::Down { successes } if successes + 1 >= self.rules.successes_until_up => {
                (State::Up { failures: 0 }, Some(Change::CameUp))
            }
            State::Down { successes } => (State::Down { successes: successes + 1 }, None),
        };
        member.state = state;
        change
    }

    /// It did not answer, a probe or any other question. Who counts as well is probed at once.
    pub(super) fn failed(&mut self, now: Instant, place: usize) -> Option<Change> {
        let member = self.members.get_mut(place)?;
        let (state, change) = match member.state {
            State::Up { failures } if failures + 1 >= self.rules.failures_until_down => {
                (State::Down { successes: 0 }, Some(Change::WentDown))
            }
            State::Up { failures } => {
                member.due = now;
                (State::Up { failures: failures + 1 }, None)
            }
            State::Down { .. } => (State::Down { successes: 0 }, None),
        };
        member.state = state;
        change
    }

    /// Who is well, this origin among them.
    pub(super) fn well(&self) -> Places {
        let well = |member: &Member| matches!(member.state, State::Up { .. });
        let places = self.members.iter().enumerate();
        places.filter(|(place, member)| *place == self.own || well(member)).map(|(place, _)| place).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules =
        Rules { interval: Duration::from_secs(1), failures_until_down: 2, successes_until_up: 3 };

    fn health(now: Instant) -> Health {
        Health::new(3, 0, RULES, now)
    }

    #[test]
    fn the_first_answer_is_believed_and_later_ones_only_in_a_row() {
        let now = Instant::now();
        let mut health = health(now);
        assert_eq!(health.well(), Places::NONE.with(0));
        assert_eq!(health.succeeded(1), Some(Change::CameUp));
        assert_eq!((health.failed(now, 1), health.failed(now, 1)), (None, Some(Change::WentDown)));
        assert_eq!((health.succeeded(1), health.succeeded(1), health.failed(now, 1)), (None, None, None));
        assert_eq!((health.succeeded(1), health.succeeded(1)), (None, None));
        assert_eq!(health.succeeded(1), Some(Change::CameUp));
        assert_eq!(health.well(), Places::first(2));
    }

    #[test]
    fn each_other_is_probed_once_an_interval_and_at_once_after_a_failure() {
        let start = Instant::now();
        let mut health = health(start);
        assert_eq!(health.due(start), [1, 2]);
        let almost = start + RULES.interval - Duration::from_millis(1);
        assert_eq!((health.due(almost), health.next_due()), (vec![], Some(start + RULES.interval)));
        health.succeeded(2);
        health.failed(almost, 2);
        assert_eq!(health.due(almost), [2]);
        assert_eq!(health.due(start + RULES.interval), [1]);
    }

    proptest! {
        /// Whatever happens, this one is well, and another is what its last answers in a row say, else what it was.
        #[test]
        fn who_is_well_is_decided_by_answers_in_a_row(events in prop::collection::vec(any::<bool>(), 0..40)) {
            let now = Instant::now();
            let (mut health, mut well, mut ever) = (health(now), false, false);
            for (at, &answered) in events.iter().enumerate() {
                let change = if answered { health.succeeded(1) } else { health.failed(now, 1) };
                let row = events[..=at].iter().rev().take_while(|&&one| one == answered).count() as u32;
                let before = well;
                match answered {
                    true if row >= RULES.successes_until_up || (!ever && at == 0) => well = true,
                    false if row >= RULES.failures_until_down => well = false,
                    _ => {}
                }
                ever = true;
                prop_assert_eq!(health.well().contains(1), well);
                prop_assert!(health.well().contains(0));
                let expected = (before != well).then_some(if well { Change::CameUp } else { Change::WentDown });
                prop_assert_eq!(change, expected);
            }
        }
    }
}
