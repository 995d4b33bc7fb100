//! The machine alone, in time that is made up.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use shoal_swarm::{Moment, Priority};

use super::{Went, millis, rate, total};
use crate::limit::{Limits, Next, PRIORITIES, Rate, Shaper, Ticket};

/// Callers that always want more, each a chunk at a time.
struct Crowd {
    shaper: Shaper,
    now: Moment,
    /// Priority and chunk.
    waiting: BTreeMap<Ticket, (Priority, u32)>,
    went: Went,
}

impl Crowd {
    fn new(limits: &Limits) -> Self {
        Self {
            shaper: Shaper::new(limits),
            now: Moment::default(),
            waiting: BTreeMap::new(),
            went: Went::default(),
        }
    }

    fn join(&mut self, priority: Priority, chunk: u32) {
        let ticket = self.shaper.join(priority, chunk);
        self.waiting.insert(ticket, (priority, chunk));
    }

    fn run_until(&mut self, end: Moment) {
        while self.now < end {
            match self.shaper.poll(self.now) {
                Next::Granted(ticket, bytes) => {
                    let (priority, chunk) = self.waiting.remove(&ticket).unwrap();
                    self.went.note(self.now, priority, bytes);
                    self.shaper.settle(self.now, priority, bytes, bytes);
                    self.join(priority, chunk);
                }
                Next::At(at) => {
                    assert!(at > self.now, "the next moment is yet to come");
                    self.now = at;
                }
                Next::Never => panic!("those in line are never served"),
            }
        }
    }

    fn share(&self, priority: Priority) -> u64 {
        self.went.bytes(|other| other == priority)
    }
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(PRIORITIES.to_vec())
}

fn limits() -> impl Strategy<Value = Limits> {
    let each = || {
        prop::option::weighted(0.7, Rate::LEAST..2_000_000_000).prop_map(|bytes| bytes.and_then(Rate::new))
    };
    (each(), each(), each(), each()).prop_map(|(total, reader, prefetch, repair)| Limits {
        total,
        reader,
        prefetch,
        repair,
    })
}

/// What is done next to a shaper.
#[derive(Clone, Debug)]
enum Step {
    Ask(Priority, u32),
    /// Until the next moment at which something may go.
    Wait,
    Pass(u64),
    Leave(usize),
    /// Of what is held at that place, that part of 255 is spent.
    Settle(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (priority(), 0..300_000u32).prop_map(|(priority, wanted)| Step::Ask(priority, wanted)),
        3 => Just(Step::Wait),
        1 => (0..150_000_000u64).prop_map(Step::Pass),
        1 => (0..30_000u64).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Leave),
        4 => (any::<usize>(), prop_oneof![Just(255), any::<u8>()]).prop_map(|(at, part)| Step::Settle(at, part)),
    ]
}

/// Callers that want, get, spend late and in part, and go away.
struct Chaos {
    shaper: Shaper,
    now: Moment,
    waiting: Vec<(Ticket, Priority, u32)>,
    held: Vec<(Priority, u32)>,
    went: Went,
}

impl Chaos {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask(priority, wanted) => match self.shaper.grant(self.now, priority, wanted) {
                Some(bytes) => self.hold(priority, bytes, wanted),
                None => self.waiting.push((self.shaper.join(priority, wanted), priority, wanted)),
            },
            Step::Wait => self.now = self.settle_down().unwrap_or(self.now).max(self.now),
            Step::Pass(nanos) => self.now.0 += Duration::from_nanos(nanos),
            Step::Leave(at) if !self.waiting.is_empty() => {
                let (ticket, priority, _) = self.waiting.swap_remove(at % self.waiting.len());
                self.shaper.leave(priority, ticket);
            }
            Step::Settle(at, part) if !self.held.is_empty() => {
                let (priority, held) = self.held.swap_remove(at % self.held.len());
                let spent = u32::try_from(u64::from(held) * u64::from(part) / 255).unwrap();
                self.shaper.settle(self.now, priority, held, spent);
                self.went.note(self.now, priority, spent);
            }
            Step::Leave(_) | Step::Settle(..) => {}
        }
        self.settle_down();
    }

    fn hold(&mut self, priority: Priority, bytes: u32, wanted: u32) {
        assert!((1..=wanted.max(1)).contains(&bytes), "{bytes} of {wanted}");
        self.held.push((priority, bytes));
    }

    /// Until nobody may go. Says when somebody may.
    fn settle_down(&mut self) -> Option<Moment> {
        loop {
            match self.shaper.poll(self.now) {
                Next::Granted(ticket, bytes) => {
                    let at = self.waiting.iter().position(|(other, ..)| *other == ticket).unwrap();
                    let (_, priority, wanted) = self.waiting.remove(at);
                    self.hold(priority, bytes, wanted);
                }
                Next::At(at) => return Some(at),
                Next::Never => return None,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_100_ms_have_a_byte_too_many(limits in limits(), steps in prop::collection::vec(step(), 0..400)) {
        let mut chaos = Chaos {
            shaper: Shaper::new(&limits),
            now: Moment::default(),
            waiting: Vec::new(),
            held: Vec::new(),
            went: Went::default(),
        };
        steps.iter().for_each(|step| chaos.take(step));
        chaos.went.check(&limits);
        // Once all is given back and 100 ms have passed, everything is there again.
        for (priority, held) in std::mem::take(&mut chaos.held) {
            chaos.shaper.settle(chaos.now, priority, held, 0);
        }
        while let Some((ticket, priority, _)) = chaos.waiting.pop() {
            chaos.shaper.leave(priority, ticket);
        }
        chaos.now.0 += Rate::WINDOW;
        for priority in PRIORITIES {
            let fresh = Shaper::new(&limits).grant(millis(0), priority, u32::MAX);
            let mut again = chaos.shaper.grant(chaos.now, priority, u32::MAX);
            prop_assert_eq!(again, fresh);
            chaos.shaper.settle(chaos.now, priority, again.take().unwrap(), 0);
        }
    }

    #[test]
    fn who_always_waits_gets_the_rate(
        bytes_per_second in prop_oneof![Rate::LEAST..3_000_000, Rate::LEAST..1_000_000_000],
        chunks in prop::collection::vec((priority(), 1_000..300_000u32), 1..10),
    ) {
        let limits = total(bytes_per_second);
        let mut crowd = Crowd::new(&limits);
        for (priority, chunk) in chunks {
            crowd.join(priority, chunk);
        }
        crowd.run_until(millis(3_000));
        crowd.went.check(&limits);
        let went = crowd.went.bytes(|_| true);
        prop_assert!(went * 1_000 >= bytes_per_second * 3 * 999, "{went} bytes in 3 s of {bytes_per_second} a second");
        prop_assert!(went <= bytes_per_second * 3);
    }
}

#[test]
fn nobody_gets_a_byte_while_a_reader_waits() {
    let mut crowd = Crowd::new(&total(10_000_000));
    for priority in [Priority::Repair, Priority::Prefetch, Priority::Reader] {
        (0..4).for_each(|_| crowd.join(priority, 65_536));
    }
    crowd.run_until(millis(2_000));
    assert_eq!((crowd.share(Priority::Prefetch), crowd.share(Priority::Repair)), (0, 0));
    assert!(crowd.share(Priority::Reader) >= 19_980_000, "{}", crowd.share(Priority::Reader));
}

#[test]
fn a_reader_waits_at_most_for_a_bucket() {
    let mut crowd = Crowd::new(&total(10_000_000));
    (0..4).for_each(|_| crowd.join(Priority::Repair, 65_536));
    crowd.run_until(millis(1_234));
    let asked = crowd.now;
    crowd.join(Priority::Reader, 65_536);
    crowd.run_until(millis(1_400));
    let first = crowd.went.0.iter().find(|(_, priority, _)| *priority == Priority::Reader).unwrap();
    assert!(first.0.0 - asked.0 <= Duration::from_millis(10), "{:?}", first.0.0 - asked.0);
}

#[test]
fn what_readers_may_not_take_is_for_the_others() {
    let limits = Limits { reader: rate(9_000_000), repair: rate(400_000), ..total(10_000_000) };
    let mut crowd = Crowd::new(&limits);
    for priority in PRIORITIES {
        (0..4).for_each(|_| crowd.join(priority, 65_536));
    }
    crowd.run_until(millis(10_000));
    crowd.went.check(&limits);
    let shares = PRIORITIES.map(|priority| crowd.share(priority));
    assert!(shares[0] >= 89_910_000, "{shares:?}");
    assert!(shares.iter().sum::<u64>() >= 99_900_000, "{shares:?}");
    assert_eq!(shares[2], 0, "prefetch takes the rest");
}

#[test]
fn the_equally_urgent_get_equal_shares() {
    let mut crowd = Crowd::new(&total(1_000_000));
    for chunk in [65_536, 65_537, 65_538] {
        crowd.join(Priority::Reader, chunk);
    }
    let mut shares = BTreeMap::<u32, u64>::new();
    while crowd.now < millis(3_000) {
        match crowd.shaper.poll(crowd.now) {
            Next::Granted(ticket, bytes) => {
                let (priority, chunk) = crowd.waiting.remove(&ticket).unwrap();
                *shares.entry(chunk).or_default() += u64::from(bytes);
                crowd.shaper.settle(crowd.now, priority, bytes, bytes);
                crowd.join(priority, chunk);
            }
            Next::At(at) => crowd.now = at,
            Next::Never => panic!("those in line are never served"),
        }
    }
    let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
    assert!(most - least <= 2 * 5_000, "{shares:?}");
}

#[test]
fn a_rate_below_the_least_is_none() {
    assert_eq!(Rate::new(Rate::LEAST - 1), None);
    assert_eq!(Rate::new(Rate::LEAST + 9).unwrap().window_bytes(), 30_000);
}

#[test]
fn what_is_held_counts_until_it_is_settled() {
    let mut shaper = Shaper::new(&total(1_000_000));
    let now = |ms| millis(ms);
    let mut held = 0;
    for ms in 0..1_000 {
        held += shaper.grant(now(ms), Priority::Reader, 65_536).unwrap_or(0);
    }
    assert_eq!(held, 100_000, "not a byte more however long it is held");
    let ticket = shaper.join(Priority::Reader, 1);
    assert_eq!(shaper.poll(now(1_000)), Next::Never);
    shaper.settle(now(1_000), Priority::Reader, held, held - 1);
    assert_eq!(shaper.poll(now(1_000)), Next::Granted(ticket, 1));
    assert_eq!(shaper.grant(now(1_099), Priority::Reader, 1), None);
    assert_eq!(shaper.grant(now(1_100), Priority::Reader, 1), Some(1));
}
