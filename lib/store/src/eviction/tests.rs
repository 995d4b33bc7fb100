//! Random histories in virtual time: what went had to go, what stays may stay, and who was refused could not be helped.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CAPACITY: u64 = 1000;
const MIN_FREE: u64 = 100;
const DISK: u64 = 1500;

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit(u64, bool),
    Use(prop::sample::Index),
    Pin(prop::sample::Index),
    Unpin(prop::sample::Index),
    Wait(u64),
    Others(u64),
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    let any_of = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0_u64..CAPACITY / 3, any::<bool>()).prop_map(|(length, whole)| Step::Admit(length, whole)),
        1 => (0_u64..CAPACITY * 2).prop_map(|length| Step::Admit(length, true)),
        3 => any_of().prop_map(Step::Use),
        2 => any_of().prop_map(Step::Pin),
        2 => any_of().prop_map(Step::Unpin),
        2 => (0_u64..1200).prop_map(Step::Wait),
        1 => (0_u64..DISK).prop_map(Step::Others),
        1 => Just(Step::Rest),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Held {
    kind: Kind,
    length: u64,
    last_used: Moment,
    pinned: bool,
}

/// A store without files.
#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<u64, Held>,
    next: u64,
    now: u64,
    others: u64,
}

fn digest(number: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Digest::Sha256(bytes)
}

impl Model {
    fn moment(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    fn used(&self) -> u64 {
        self.held.values().map(|held| held.length).sum()
    }

    fn levels(&self) -> Levels {
        let used = self.used();
        let available = DISK.saturating_sub(used + self.others);
        Levels { used, capacity: CAPACITY, high: 900, low: 700, available, min_free: MIN_FREE }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let idle = self.held.iter().filter(|(_, held)| !held.pinned);
        let candidate = |(number, held): (&u64, &Held)| Candidate {
            digest: digest(*number),
            kind: held.kind,
            length: held.length,
            last_used: held.last_used,
        };
        idle.map(candidate).collect()
    }

    fn fits(&self, length: u64) -> bool {
        let used = self.used() + length;
        used <= CAPACITY && used + self.others + MIN_FREE <= DISK
    }

    /// Takes the victims out; each had to go, and nothing that stays should have gone before it.
    fn remove(&mut self, victims: &[Candidate], enough: impl Fn(&Self) -> bool) {
        let now = Moment(self.now);
        for victim in victims {
            assert!(!enough(self), "{victim:?} went for nothing");
            let number = *self.held.keys().find(|number| digest(**number) == victim.digest).unwrap();
            let gone = self.held.remove(&number).unwrap();
            assert!(!gone.pinned, "{gone:?} was in use");
            let rank = |held: &Held| {
                let abandoned = held.kind == Kind::Partial
                    && now.0 - held.last_used.0 >= ABANDONED_AFTER.as_micros() as u64;
                (!abandoned, held.last_used)
            };
            for stays in self.held.values().filter(|held| !held.pinned) {
                assert!(rank(&gone) <= rank(stays), "{gone:?} went before {stays:?}");
            }
        }
    }

    fn admit(&mut self, length: u64, kind: Kind) {
        let now = self.moment();
        match self.levels().admit(length, self.candidates(), now) {
            Ok(victims) => {
                assert_eq!(self.levels().admits(length), victims.is_empty());
                self.remove(&victims, |model| model.fits(length));
                assert!(self.fits(length));
                self.held.insert(self.next, Held { kind, length, last_used: now, pinned: false });
                self.next += 1;
            }
            Err(error) => {
                let pinned: u64 = self.held.values().filter(|held| held.pinned).map(|held| held.length).sum();
                let too_much = pinned + length > CAPACITY;
                match error {
                    NoRoom::TooLarge { .. } => assert!(length > CAPACITY),
                    NoRoom::InUse { evictable, .. } => {
                        assert!(length <= CAPACITY && too_much);
                        assert_eq!(evictable, CAPACITY - pinned);
                    }
                    NoRoom::MinFree { .. } => {
                        assert!(!too_much && pinned + length + self.others + MIN_FREE > DISK);
                    }
                }
            }
        }
    }

    fn rest(&mut self) {
        let now = self.moment();
        let crowded = self.used() > 900;
        let victims = self.levels().rest(self.candidates(), now);
        let rested =
            move |model: &Self| (!crowded || model.used() <= 700) && model.levels().available >= MIN_FREE;
        self.remove(&victims, rested);
        assert!(rested(self) || self.candidates().is_empty());
    }

    fn choose(&mut self, index: prop::sample::Index) -> Option<&mut Held> {
        let count = self.held.len();
        if count == 0 { None } else { self.held.values_mut().nth(index.index(count)) }
    }

    fn take(&mut self, step: Step) {
        let now = self.moment();
        match step {
            Step::Admit(length, whole) => self.admit(length, if whole { Kind::Blob } else { Kind::Partial }),
            Step::Use(index) => _ = self.choose(index).map(|held| held.last_used = now),
            Step::Pin(index) => _ = self.choose(index).map(|held| held.pinned = true),
            Step::Unpin(index) => _ = self.choose(index).map(|held| held.pinned = false),
            Step::Wait(seconds) => self.now += seconds * 1_000_000,
            // The others have no more than what is left.
            Step::Others(bytes) => self.others = bytes.min(DISK - self.used()),
            Step::Rest => self.rest(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_had_to_and_who_is_refused_could_not_be_helped(steps in prop::collection::vec(step(), 0..120)) {
        let mut model = Model::default();
        for step in steps {
            model.take(step);
            prop_assert!(model.used() <= CAPACITY);
        }
    }
}

#[test]
fn a_partial_that_was_left_goes_before_an_older_blob_and_a_fresh_one_does_not() {
    let candidate = |number, kind, last_used| Candidate {
        digest: digest(number),
        kind,
        length: 1,
        last_used: Moment(last_used),
    };
    let candidates = vec![candidate(1, Kind::Blob, 1), candidate(2, Kind::Partial, 1_000_000)];
    let first = |now| choose(candidates.clone(), 1, Moment(now))[0].digest;
    let abandoned = ABANDONED_AFTER.as_micros() as u64 + 1_000_000;
    assert_eq!(first(abandoned - 1), digest(1));
    assert_eq!(first(abandoned), digest(2));
}

#[test]
fn a_refusal_says_what_to_do() {
    let levels = Levels { used: 5, capacity: 10, high: 10, low: 10, available: 3, min_free: 1 };
    let refused = |length| levels.admit(length, Vec::new(), Moment(1)).unwrap_err().to_string();
    assert!(refused(11).contains("11 bytes are more than the store's capacity of 10: raise store.capacity"));
    assert!(refused(6).contains("of 10 all but 5 is in use"), "{}", refused(6));
    assert!(refused(3).contains("lower store.min_free"), "{}", refused(3));
    assert_eq!(levels.admit(2, Vec::new(), Moment(1)), Ok(Vec::new()));
}
