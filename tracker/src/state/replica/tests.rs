use std::collections::BTreeMap;

use proptest::prelude::*;
use shoal_core::{Digest, PeerAddress, Role, Zone};

use super::super::Limits;
use super::*;

const LEASE: Duration = Duration::from_secs(60);
const TRACKERS: usize = 3;

fn digest(number: u8) -> Digest {
    Digest::Sha256([number; 32])
}

fn node() -> PeerId {
    PeerId::from_public_key([1; 32])
}

fn announce(added: &[u8], removed: &[u8], everything: bool) -> Announce {
    let address = PeerAddress {
        id: node(),
        role: Role::Agent,
        addresses: vec![([10, 0, 0, 1], 1).into()],
        zone: Zone::default(),
    };
    let added = added.iter().map(|&number| Holding { digest: digest(number), complete: true }).collect();
    Announce { address, api: None, added, removed: removed.iter().copied().map(digest).collect(), everything }
}

fn held(state: &State, now: Instant) -> Option<(Version, Vec<Digest>)> {
    let record = state.record(now, &node())?;
    let mut held: Vec<_> = record.announce.added.iter().map(|holding| holding.digest).collect();
    held.sort_unstable();
    Some((record.version, held))
}

fn state() -> (State, Instant) {
    (State::new(LEASE, Limits::default()), Instant::now())
}

#[test]
fn what_was_overtaken_is_not_taken_and_the_node_is_told_what_to_go_beyond() {
    let (mut state, now) = state();
    state.hear(now, 0, 20, announce(&[1], &[], true));
    let late = state.hear(now, 0, 10, announce(&[2], &[], true));
    assert_eq!((late.outcome, late.version), (Ok(Memory::Missing), 20));
    assert!(late.event.is_none());
    assert_eq!(held(&state, now), Some((20, vec![digest(1)])));
    assert!(state.hear_leave(now, 0, 15, node()).is_none());
    assert!(state.hear_leave(now, 0, 30, node()).is_some());
    assert!(state.hear(now, 0, 25, announce(&[1], &[], true)).event.is_none(), "it left after that");
    assert_eq!(held(&state, now), None);
    assert!(state.hear(now, 0, 31, announce(&[1], &[], true)).event.is_some(), "and is back");
}

#[test]
fn a_goodbye_is_remembered_for_a_lease() {
    let (mut state, now) = state();
    state.hear_leave(now, 0, 30, node());
    state.sweep(now + LEASE);
    assert!(state.hear(now + LEASE, 0, 10, announce(&[], &[], true)).event.is_some());
}

#[test]
fn nodes_that_number_nothing_are_numbered_by_the_clock() {
    let (mut state, now) = state();
    let versions = [100, 50, 200].map(|clock| state.hear(now, clock, 0, announce(&[], &[], false)).version);
    assert_eq!(versions, [100, 101, 200]);
    assert_eq!(state.hear(now, 300, u64::MAX, announce(&[], &[], false)).version, 300, "no clock shows that");
}

#[test]
fn changes_apply_to_their_own_version_only() {
    let ((mut here, now), (mut there, _)) = (state(), state());
    let first = here.hear(now, 0, 1, announce(&[1], &[], true)).event.unwrap();
    let second = here.hear(now, 0, 2, announce(&[2], &[], false)).event.unwrap();
    let third = here.hear(now, 0, 3, announce(&[3], &[1], false)).event.unwrap();
    assert_eq!(there.follow(now, second.clone()), Followed::Gap);
    assert_eq!(there.follow(now, first), Followed::Taken);
    assert_eq!(there.follow(now, third), Followed::Gap);
    assert_eq!(there.follow(now, second.clone()), Followed::Taken);
    assert_eq!(there.follow(now, second), Followed::Older);
    let record = here.record(now, &node()).unwrap();
    assert_eq!(there.adopt(now, record.clone()), Followed::Taken);
    assert_eq!(there.adopt(now, record), Followed::Older);
    assert_eq!(held(&there, now), Some((3, vec![digest(2), digest(3)])));
}

#[test]
fn what_is_read_is_good_for_the_rest_of_its_lease() {
    let ((mut here, now), (mut there, _)) = (state(), state());
    here.hear(now, 0, 1, announce(&[1], &[], true));
    let later = now + LEASE / 2;
    there.adopt(later, here.record(later, &node()).unwrap());
    assert!(held(&there, now + LEASE - Duration::from_millis(1)).is_some());
    assert!(held(&there, now + LEASE).is_none());
    let forever = Record { left: LEASE * 100, ..here.record(later, &node()).unwrap() };
    let (mut there, _) = state();
    there.adopt(later, forever);
    assert!(held(&there, later + LEASE).is_none(), "and for a lease at most");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Something changes, and the node says so at its tracker.
    Change {
        blob: u8,
        here: bool,
    },
    /// The node goes to another tracker.
    Move(usize),
    Leave,
    /// One tracker gets one message of those that are under way, whichever comes first.
    Deliver {
        to: usize,
        which: usize,
    },
    Lose {
        to: usize,
        which: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..5, any::<bool>()).prop_map(|(blob, here)| Step::Change { blob, here }),
        2 => (0..TRACKERS).prop_map(Step::Move),
        1 => Just(Step::Leave),
        8 => (0..TRACKERS, any::<usize>()).prop_map(|(to, which)| Step::Deliver { to, which }),
        1 => (0..TRACKERS, any::<usize>()).prop_map(|(to, which)| Step::Lose { to, which }),
    ]
}

/// One node and its trackers, between whom messages take any time.
struct World {
    now: Instant,
    trackers: Vec<State>,
    under_way: Vec<Vec<Event>>,
    sequence: u64,
    at: usize,
    blobs: BTreeMap<u8, ()>,
    here: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let trackers = (0..TRACKERS).map(|_| State::new(LEASE, Limits::default())).collect();
        let under_way = vec![Vec::new(); TRACKERS];
        Self { now, trackers, under_way, sequence: 0, at: 0, blobs: BTreeMap::new(), here: false }
    }

    fn say(&mut self, announce: Announce) {
        self.sequence += 1;
        let heard = self.trackers[self.at].hear(self.now, 0, self.sequence, announce);
        self.here = true;
        self.spread(heard.event.as_ref());
        if heard.outcome == Ok(Memory::Missing) {
            self.say_all();
        }
    }

    fn say_all(&mut self) {
        let all: Vec<_> = self.blobs.keys().copied().collect();
        self.say(announce(&all, &[], true));
    }

    fn spread(&mut self, event: Option<&Event>) {
        for queue in &mut self.under_way {
            queue.extend(event.cloned());
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Change { blob, here: true } => {
                self.blobs.insert(blob, ());
                self.say(announce(&[blob], &[], false));
            }
            Step::Change { blob, here: false } => {
                self.blobs.remove(&blob);
                self.say(announce(&[], &[blob], false));
            }
            Step::Move(at) => {
                self.at = at;
                self.say_all();
            }
            Step::Leave => {
                self.sequence += 1;
                let event = self.trackers[self.at].hear_leave(self.now, 0, self.sequence, node());
                self.here = false;
                self.spread(event.as_ref());
            }
            Step::Deliver { to, which } => self.deliver(to, which),
            Step::Lose { to, which } => drop(self.next(to, which)),
        }
    }

    fn next(&mut self, to: usize, which: usize) -> Option<Event> {
        let queue = &mut self.under_way[to];
        (!queue.is_empty()).then(|| queue.remove(which % queue.len()))
    }

    fn deliver(&mut self, to: usize, which: usize) {
        let Some(event) = self.next(to, which) else { return };
        if self.trackers[to].follow(self.now, event) == Followed::Gap {
            self.read(to);
        }
    }

    /// What the store has: the latest that any tracker knows.
    fn read(&mut self, to: usize) {
        let records = self.trackers.iter().filter_map(|tracker| tracker.record(self.now, &node()));
        let left = self.trackers.iter().map(|tracker| tracker.versions.of(self.now, &node())).max();
        let latest = records.max_by_key(|record| record.version);
        if let Some(record) = latest.filter(|record| Some(record.version) == left) {
            self.trackers[to].adopt(self.now, record);
        }
    }
}

proptest! {
    #[test]
    fn in_whatever_order_messages_come_all_know_the_last_word(steps in prop::collection::vec(step(), 0..100)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        for to in 0..TRACKERS {
            while !world.under_way[to].is_empty() {
                world.deliver(to, 0);
            }
        }
        // A comparison with the store: what was lost is read.
        (0..TRACKERS).for_each(|to| world.read(to));
        let truth = world.here.then(|| (world.sequence, world.blobs.keys().copied().map(digest).collect::<Vec<_>>()));
        for tracker in &world.trackers {
            let known = held(tracker, world.now);
            // A lost goodbye is the one word that is not in a record; the lease ends it.
            if truth.is_some() || known.as_ref().is_none_or(|(version, _)| *version == world.sequence) {
                prop_assert_eq!(&known, &truth);
            }
        }
    }
}
