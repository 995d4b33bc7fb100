use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(60);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn blob(number: u8) -> Digest {
    Digest::Sha256([number; 32])
}

fn id(number: u8) -> PeerId {
    PeerId::from_public_key([number; 32])
}

fn has(number: u8, complete: bool) -> Holding {
    Holding { digest: blob(number), complete }
}

fn announce(node: u8, added: Vec<Holding>) -> Announce {
    let addresses = vec![([10, 0, 0, node], 1).into()];
    let address = PeerAddress { id: id(node), role: Role::Agent, addresses, zone: Zone::default() };
    Announce { address, api: None, added, removed: vec![], everything: false }
}

fn origin(node: u8, api: &str) -> Announce {
    let mut announce = announce(node, vec![]);
    announce.address.role = Role::Origin;
    announce.api = Some(ServerUrl::parse(api).unwrap());
    announce
}

fn holders(state: &State, now: Instant, number: u8) -> Vec<(PeerId, bool)> {
    let digest = blob(number);
    let policy = Policy { size: 100, random_percent: 20, max_origins: 100 };
    let nobody = id(255);
    let met = state.meet(now, &policy, nobody, &digest, &mut rand::rng());
    let is_complete = |id: &PeerId| {
        let stake = state.blobs.get(&digest).and_then(|holders| holders.stake(state.keys[id]));
        stake.is_some_and(Stake::is_complete)
    };
    let mut met: Vec<_> = met.iter().map(|met| (met.id, is_complete(&met.id))).collect();
    met.sort();
    met
}

fn state() -> (State, Instant) {
    (State::new(LEASE, Limits::default()), Instant::now())
}

#[test]
fn a_node_that_falls_silent_is_handed_out_no_more() {
    let (mut state, start) = state();
    state.announce(start, announce(1, vec![has(1, true)])).unwrap();
    let last = start + LEASE - Duration::from_nanos(1);
    assert_eq!(holders(&state, last, 1), [(id(1), true)]);
    assert_eq!(holders(&state, start + LEASE, 1), []);
    state.sweep(start + LEASE);
    assert_eq!(state.counts(), Counts::default());
}

#[test]
fn an_announce_renews_the_lease_and_keeps_what_was_said() {
    let (mut state, start) = state();
    assert_eq!(state.announce(start, announce(1, vec![has(1, false)])), Ok(Memory::Missing));
    assert_eq!(state.announce(start + seconds(50), announce(1, vec![])), Ok(Memory::Known));
    assert_eq!(holders(&state, start + seconds(100), 1), [(id(1), false)]);
}

#[test]
fn a_node_whose_lease_ran_out_must_say_everything() {
    let (mut state, start) = state();
    state.announce(start, announce(1, vec![has(1, true)])).unwrap();
    assert_eq!(state.announce(start + LEASE, announce(1, vec![has(2, true)])), Ok(Memory::Missing));
    assert_eq!(holders(&state, start + LEASE, 1), [], "what it had is not known any more");
    assert_eq!(holders(&state, start + LEASE, 2), [(id(1), true)]);
}

#[test]
fn everything_replaces_what_was_said() {
    let (mut state, start) = state();
    state.announce(start, announce(1, vec![has(1, true), has(2, true)])).unwrap();
    let all = Announce { everything: true, ..announce(1, vec![has(2, false)]) };
    assert_eq!(state.announce(start, all), Ok(Memory::Known));
    assert_eq!(holders(&state, start, 1), []);
    assert_eq!(holders(&state, start, 2), [(id(1), false)]);
}

#[test]
fn leaving_removes_at_once() {
    let (mut state, start) = state();
    state.announce(start, announce(1, vec![has(1, true)])).unwrap();
    state.announce(start, origin(2, "https://origin:1")).unwrap();
    state.leave(&id(1));
    state.leave(&id(2));
    assert_eq!(holders(&state, start, 1), []);
    assert!(state.origin_apis(start).is_empty());
    assert_eq!(state.counts(), Counts::default());
}

#[test]
fn origins_are_candidates_for_every_blob() {
    let (mut state, start) = state();
    state.announce(start, origin(1, "https://origin:1")).unwrap();
    state.announce(start, Announce { added: vec![has(1, true)], ..origin(2, "https://origin:2") }).unwrap();
    assert_eq!(holders(&state, start, 1), [(id(1), false), (id(2), true)]);
    assert_eq!(holders(&state, start, 9), [(id(1), false), (id(2), false)]);
    assert_eq!(state.origin_apis(start).len(), 2);
    assert!(state.origin_apis(start + LEASE).is_empty(), "their leases run out too");
}

#[test]
fn one_who_asks_is_a_partial_holder_from_then_on() {
    let (mut state, start) = state();
    state.announce(start, announce(1, vec![has(2, true)])).unwrap();
    for number in [1, 2] {
        state.join(start, &id(1), blob(number));
    }
    assert_eq!(holders(&state, start, 1), [(id(1), false)]);
    assert_eq!(holders(&state, start, 2), [(id(1), true)], "it does not lose what it has");
}

#[test]
fn one_who_asks_and_never_announces_the_blob_is_a_holder_for_one_lease_only() {
    let (mut state, start) = state();
    state.announce(start, announce(1, vec![])).unwrap();
    for number in [1, 2, 3] {
        state.join(start, &id(1), blob(number));
    }
    state.announce(start + seconds(20), announce(1, vec![has(2, false)])).unwrap();
    state.announce(start + seconds(40), announce(1, vec![])).unwrap();
    state.join(start + seconds(40), &id(1), blob(3));
    state.sweep(start + LEASE);
    assert_eq!(holders(&state, start + LEASE, 1), [], "it only asked");
    assert_eq!(holders(&state, start + LEASE, 2), [(id(1), false)], "it announced it");
    assert_eq!(holders(&state, start + LEASE, 3), [(id(1), false)], "it asked again");
    assert_eq!(state.counts().holdings, 2);
}

#[test]
fn one_who_asks_without_a_lease_is_not_handed_out() {
    let (mut state, start) = state();
    state.join(start, &id(1), blob(1));
    state.announce(start, announce(2, vec![])).unwrap();
    state.join(start + LEASE, &id(2), blob(1));
    assert_eq!(state.counts().holdings, 0);
}

#[test]
fn a_limit_is_named_and_costs_nothing_that_is_known() {
    let limits = Limits { max_nodes: 2, max_holdings_per_node: 2, max_holdings: 3 };
    let (mut state, start) = (State::new(LEASE, limits), Instant::now());
    state.announce(start, announce(1, vec![has(1, true), has(2, true)])).unwrap();
    assert_eq!(state.announce(start, announce(1, vec![has(3, true)])), Err(LimitError::HoldingsOfNode(2)));
    assert_eq!(
        state.announce(start, announce(2, vec![has(1, true), has(2, true)])),
        Err(LimitError::Holdings(3)),
    );
    assert_eq!(state.announce(start, announce(3, vec![])), Err(LimitError::Nodes(2)));
    state.join(start, &id(1), blob(3));
    assert_eq!(state.counts(), Counts { agents: 2, origins: 0, blobs: 2, holdings: 2 });
    let again = announce(1, vec![has(1, false), has(2, true)]);
    assert_eq!(state.announce(start, again), Ok(Memory::Known), "saying the same again takes no room");
}

#[test]
fn nodes_that_are_gone_make_room_for_others() {
    let limits = Limits { max_nodes: 1, ..Limits::default() };
    let (mut state, start) = (State::new(LEASE, limits), Instant::now());
    state.announce(start, origin(1, "https://origin:1")).unwrap();
    assert_eq!(state.announce(start, origin(2, "https://origin:2")), Err(LimitError::Nodes(1)));
    assert_eq!(state.counts().origins, 1);
    assert_eq!(state.announce(start + LEASE, announce(2, vec![])), Ok(Memory::Missing));
}

/// Whether it is an origin that was named though it never spoke of the blob.
fn is_idle_origin(state: &State, id: &PeerId, number: u8) -> bool {
    let holders = state.blobs.get(&blob(number));
    state.origins.contains_key(id) && holders.is_none_or(|holders| holders.stake(state.keys[id]).is_none())
}

/// What happens to a tracker.
#[derive(Clone, Debug)]
enum Step {
    Announce { node: u8, zone: u8, added: Vec<(u8, bool)>, removed: Vec<u8>, everything: bool },
    Join { node: u8, blob: u8 },
    Leave { node: u8 },
    Pass { seconds: u64 },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let added = prop::collection::vec((0u8..4, any::<bool>()), 0..3);
    let removed = prop::collection::vec(0u8..4, 0..3);
    prop_oneof![
        4 => (0u8..5, 0u8..3, added, removed, any::<bool>()).prop_map(|(node, zone, added, removed, everything)| {
            Step::Announce { node, zone, added, removed, everything }
        }),
        2 => (0u8..5, 0u8..4).prop_map(|(node, blob)| Step::Join { node, blob }),
        1 => (0u8..5).prop_map(|node| Step::Leave { node }),
        2 => (0u64..40).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Sweep),
    ]
}

/// The same, told the slow and plain way: expiry, and blobs, of each node.
#[derive(Default)]
struct Model(BTreeMap<u8, (u64, BTreeMap<u8, Held>)>);

/// Whether all of a blob is there, and until when the node counts as a holder if it only asked.
type Held = (bool, Option<u64>);

impl Model {
    fn apply(&mut self, now: u64, step: &Step) {
        self.0.retain(|_, (expires, _)| now < *expires);
        match step {
            Step::Announce { node, added, removed, everything, .. } => {
                let (expires, blobs) = self.0.entry(*node).or_default();
                *expires = now + LEASE.as_secs();
                blobs.retain(|blob, _| !everything && !removed.contains(blob));
                blobs.extend(added.iter().map(|&(blob, complete)| (blob, (complete, None))));
            }
            Step::Join { node, blob } => {
                if let Some((_, blobs)) = self.0.get_mut(node) {
                    let (_, until) = blobs.entry(*blob).or_insert((false, Some(0)));
                    *until = until.map(|_| now + LEASE.as_secs());
                }
            }
            Step::Leave { node } => drop(self.0.remove(node)),
            Step::Pass { .. } | Step::Sweep => {}
        }
    }

    fn holders(&self, now: u64, blob: u8) -> Vec<(PeerId, bool)> {
        let live = self.0.iter().filter(|(_, (expires, _))| now < *expires);
        live.filter_map(|(node, (_, blobs))| Some((id(*node), *blobs.get(&blob)?)))
            .filter(|(_, (_, until))| until.is_none_or(|until| now < until))
            .map(|(node, (complete, _))| (node, complete))
            .collect()
    }
}

proptest! {
    #[test]
    fn any_history_leaves_what_a_plain_reading_says(steps in prop::collection::vec(step(), 0..80)) {
        let (mut state, start) = state();
        let (mut model, mut now) = (Model::default(), 0);
        for step in steps {
            let instant = start + seconds(now);
            match &step {
                Step::Announce { node, zone, added, removed, everything } => {
                    let added = added.iter().map(|&(blob, complete)| has(blob, complete)).collect();
                    let removed = removed.iter().copied().map(blob).collect();
                    let mut said = Announce { removed, everything: *everything, ..announce(*node, added) };
                    // A node may come back elsewhere, and as something else.
                    said.address.zone = Zone(format!("zone-{zone}"));
                    said.address.role = if *zone == 2 { Role::Origin } else { Role::Agent };
                    state.announce(instant, said).unwrap();
                }
                Step::Join { node, blob: number } => state.join(instant, &id(*node), blob(*number)),
                Step::Leave { node } => state.leave(&id(*node)),
                Step::Pass { seconds } => now += seconds,
                Step::Sweep => state.sweep(instant),
            }
            model.apply(now, &step);
            for number in 0..4 {
                let met = holders(&state, start + seconds(now), number);
                let met: Vec<_> = met.into_iter().filter(|(id, complete)| *complete || !is_idle_origin(&state, id, number)).collect();
                prop_assert_eq!(met, model.holders(now, number));
            }
        }
        state.sweep(start + seconds(now));
        let live: Vec<_> = (0..4).flat_map(|number| model.holders(now, number)).collect();
        prop_assert_eq!(state.counts().holdings, live.len(), "nothing is left over");
        state.sweep(start + seconds(now) + LEASE);
        prop_assert_eq!(state.counts(), Counts::default());
        prop_assert!(state.asked.is_empty());
    }
}

mod arrivals;
mod reachability;
mod views;
