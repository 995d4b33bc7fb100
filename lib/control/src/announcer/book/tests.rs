use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::server_url::ServerUrl;

const TRACKERS: usize = 4;
const BLOBS: u8 = 24;

/// What a node has: blobs, and whether they are complete.
type Holdings = BTreeMap<Digest, bool>;

/// A tracker as it is told.
#[derive(Default)]
struct Tracker {
    down: bool,
    /// Whether it knows the node.
    knows: bool,
    holdings: Holdings,
    sharing: Sharing,
}

/// A node and its trackers.
struct World {
    book: Book,
    holdings: Holdings,
    trackers: Vec<Tracker>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Change(u8, Option<bool>),
    /// An announce to that tracker, during which a blob may change.
    Round(usize, Option<(u8, Option<bool>)>),
    Down(usize),
    /// It is back, and may have forgotten all.
    Up(usize, bool),
    Sharing(Sharing),
}

fn digest(number: u8) -> Digest {
    Digest::sha256(&[number])
}

fn rendezvous() -> Arc<Rendezvous> {
    let urls: Vec<_> =
        (0..TRACKERS).map(|number| ServerUrl::parse(&format!("https://tracker-{number}")).unwrap()).collect();
    Arc::new(Rendezvous::new(urls.iter().map(ServerUrl::as_str)))
}

impl World {
    fn new() -> Self {
        let book = Book::new(rendezvous(), &PeerId::from_public_key([7; 32]));
        Self {
            book,
            holdings: Holdings::new(),
            trackers: (0..TRACKERS).map(|_| Tracker::default()).collect(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Change(number, state) => self.change(number, state),
            Step::Round(place, between) => self.round(place, between),
            Step::Down(place) => self.trackers[place].down = true,
            Step::Up(place, forgot) => {
                let tracker = &mut self.trackers[place];
                tracker.down = false;
                if forgot {
                    (tracker.knows, tracker.holdings) = (false, Holdings::new());
                }
            }
            Step::Sharing(sharing) => self.trackers.iter_mut().for_each(|tracker| tracker.sharing = sharing),
        }
    }

    fn change(&mut self, number: u8, state: Option<bool>) {
        let digest = digest(number);
        match state {
            Some(complete) => {
                self.holdings.insert(digest, complete);
                self.book.note(digest, Change::Added { complete });
            }
            None => {
                self.holdings.remove(&digest);
                self.book.note(digest, Change::Removed);
            }
        }
    }

    fn round(&mut self, place: usize, between: Option<(u8, Option<bool>)>) {
        if !self.book.is_active(place) {
            return;
        }
        let errand = self.book.take(place);
        let selected = |selection: &Selection| {
            let some = self.holdings.iter().filter(|(digest, _)| selection.has(digest));
            some.map(|(digest, complete)| (*digest, *complete)).collect::<Holdings>()
        };
        let (mut everything, mut added, mut gone) = (false, Holdings::new(), Vec::new());
        match &errand.what {
            What::Everything(selection) => (everything, added) = (true, selected(selection)),
            What::More { selection, added: some, removed } => {
                added.extend(some.iter().map(|one| (one.digest, one.complete)));
                added.extend(selected(selection));
                gone.clone_from(removed);
            }
            What::Changes { added: some, removed } => {
                added.extend(some.iter().map(|one| (one.digest, one.complete)));
                gone.clone_from(removed);
            }
        }
        if let Some((number, state)) = between {
            self.change(number, state);
        }
        let Some(tracker) = self.trackers.get_mut(place).filter(|tracker| !tracker.down) else {
            self.book.failed(place, errand);
            return;
        };
        if everything {
            tracker.holdings.clear();
        }
        tracker.holdings.retain(|digest, _| !gone.contains(digest));
        tracker.holdings.extend(added);
        let send_all = !std::mem::replace(&mut tracker.knows, true) && !everything;
        let announced = Announced {
            interval_ms: 1,
            send_all,
            revocations: 0,
            sharing: tracker.sharing,
            sequence: 0,
            prefetch: vec![],
        };
        self.book.taken(place, &errand, &announced, false);
    }

    /// Rounds with everybody until nothing is left to tell; each tracker is tried often enough to be known to be away.
    fn settle(&mut self) {
        for _ in 0..2 * AWAY_AFTER {
            (0..TRACKERS).for_each(|place| self.round(place, None));
        }
        for _ in 0..10 {
            let owing: Vec<_> =
                (0..TRACKERS).filter(|&place| self.book.owes(place) && !self.trackers[place].down).collect();
            if owing.is_empty() {
                return;
            }
            owing.into_iter().for_each(|place| self.round(place, None));
        }
        panic!("it never ends");
    }

    fn live(&self) -> Places {
        (0..TRACKERS).filter(|&place| !self.trackers[place].down).collect()
    }

    /// What that tracker knows wrongly of the blobs that matter to it.
    fn faults(&self, place: usize, matters: impl Fn(&Digest) -> bool) -> Vec<String> {
        let known = &self.trackers[place].holdings;
        let missing = self.holdings.iter().filter(|(digest, _)| matters(digest));
        let missing = missing.filter(|(digest, complete)| known.get(digest) != Some(complete));
        let stale = known.keys().filter(|digest| !self.holdings.contains_key(digest));
        let missing = missing.map(|(digest, _)| format!("{place} lacks {digest}"));
        missing.chain(stale.map(|digest| format!("{place} still has {digest}"))).collect()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let change = || (0..BLOBS, prop_oneof![2 => any::<bool>().prop_map(Some), 1 => Just(None)]);
    let sharing = prop_oneof![Just(Sharing::Own), Just(Sharing::Cut), Just(Sharing::Shared)];
    prop_oneof![
        6 => change().prop_map(|(number, state)| Step::Change(number, state)),
        8 => (0..TRACKERS, prop::option::of(change())).prop_map(|(place, between)| Step::Round(place, between)),
        1 => (0..TRACKERS).prop_map(Step::Down),
        2 => (0..TRACKERS, any::<bool>()).prop_map(|(place, forgot)| Step::Up(place, forgot)),
        1 => sharing.prop_map(Step::Sharing),
    ]
}

proptest! {
    #[test]
    fn trackers_that_answer_know_their_share_in_the_end(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.apply(step));
        world.apply(Step::Sharing(Sharing::Own));
        world.settle();
        let live = world.live();
        let faults: Vec<_> = (0..TRACKERS).filter(|&place| live.contains(place)).flat_map(|place| {
            world.faults(place, |digest| world.book.rendezvous.owners(digest, live, OWNERS).contains(place))
        }).collect();
        prop_assert!(faults.is_empty(), "{:?}", faults);
        prop_assert_eq!(world.book.live(), live);
        prop_assert_eq!(world.book.is_settled(), !live.is_empty());
    }

    #[test]
    fn where_state_is_shared_one_tracker_is_told_everything(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.apply(step));
        world.apply(Step::Sharing(Sharing::Shared));
        world.settle();
        let live = world.live();
        let told: Vec<_> = (0..TRACKERS).filter(|&place| live.contains(place) && world.book.is_active(place)).collect();
        let home = world.book.homes.iter().copied().find(|&place| live.contains(place));
        prop_assert_eq!(&told, &Vec::from_iter(home), "the first of those that it prefers");
        for place in told {
            prop_assert_eq!(world.faults(place, |_| true), Vec::<String>::new());
        }
    }

    #[test]
    fn where_sharing_is_interrupted_all_are_told_everything(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.apply(step));
        world.apply(Step::Sharing(Sharing::Cut));
        world.settle();
        let live = world.live();
        for place in (0..TRACKERS).filter(|&place| live.contains(place)) {
            prop_assert_eq!(world.faults(place, |_| true), Vec::<String>::new());
        }
    }
}

#[test]
fn when_a_tracker_goes_others_are_told_only_what_becomes_their_own() {
    let mut world = World::new();
    (0..BLOBS).for_each(|number| world.change(number, Some(true)));
    world.settle();
    let before: Vec<HashMap<_, _>> =
        world.trackers.iter().map(|tracker| tracker.holdings.clone().into_iter().collect()).collect();
    world.apply(Step::Down(0));
    (0..AWAY_AFTER).for_each(|_| world.round(0, None));
    let (lost, mut moved) = (before[0].len(), 0);
    for (place, before) in before.iter().enumerate().skip(1) {
        let What::More { selection, .. } = world.book.take(place).what else {
            panic!("{place} has more to know")
        };
        for number in 0..BLOBS {
            let digest = digest(number);
            if selection.has(&digest) {
                assert!(!before.contains_key(&digest), "{place} knew {digest}");
                moved += 1;
            }
        }
    }
    assert_eq!(moved, lost, "each blob of the one that went has one new owner");
}

#[test]
fn a_learned_tracker_stands_in_only_while_no_configured_one_answers() {
    let mut world = World::new();
    let stand_in = world.book.stand_in();
    assert!(!world.book.is_active(stand_in));
    (0..TRACKERS).for_each(|place| world.apply(Step::Down(place)));
    for _ in 0..AWAY_AFTER {
        (0..TRACKERS).for_each(|place| world.round(place, None));
    }
    world.change(1, Some(true));
    assert!(world.book.is_active(stand_in));
    let errand = world.book.take(stand_in);
    assert!(matches!(&errand.what, What::Everything(selection) if selection.has(&digest(1))));
    world.apply(Step::Up(2, false));
    world.round(2, None);
    assert!(!world.book.is_active(stand_in));
    let lonely = Book::new(Arc::new(Rendezvous::new([])), &PeerId::from_public_key([7; 32]));
    assert!(lonely.is_active(lonely.stand_in()));
}

#[test]
fn retries_back_off_and_stay_below_the_lease() {
    let waits: Vec<u64> = (1..8).map(|failures| backoff(failures).as_millis() as u64).collect();
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
    assert_eq!(backoff(u32::MAX), MAX_RETRY);
}
