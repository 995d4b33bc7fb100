//! Whom an asker meets: a pure policy, which the simulator runs unchanged.
//!
//! Near peers first, since a data centre's inner network is the cheap one, and up to half of them from the asker's rack, if
//! zones name racks: not all, or a rack would wait for what no neighbour has. A reserved share of the answer is drawn from
//! everywhere, so that blobs get from zone to zone; complete and incomplete peers are mixed, so that new pieces spread
//! from those who have them while newcomers trade what they got. Chance decides among equals. Origins are always
//! added, last: agents fall back on them.

use std::collections::HashSet;

use rand::Rng;
use rand::seq::SliceRandom;
use serde::Deserialize;
use shoal_core::{PeerAddress, PeerId, Zone};

use crate::state::holders::{Holders, Key, Lots};

/// The numbers of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The most agents in an answer. Default 50: a random graph of some thousand nodes is connected from a degree of about
    /// ten on, and a node that loses half of its peers must still be well above that.
    pub size: usize,
    /// Which share of them is drawn from all zones, in percent; at least one is. Default 20: ten of 50, the degree at which
    /// the zones together are connected even if every zone is as large as the answer.
    pub random_percent: u8,
    /// The most origins that are added, those first that are known to have the blob. Default 16: more than a usual cluster
    /// has, so that its owners are among them.
    pub max_origins: usize,
}

/// Who may be handed out.
pub(crate) struct Candidates<'a, F> {
    /// Agents that have some of the blob.
    pub(crate) agents: &'a Holders,
    /// All origins, and whether each is known to have the blob.
    pub(crate) origins: Vec<(&'a PeerAddress, bool)>,
    /// Where an agent is; none if its lease is over.
    pub(crate) address: F,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    /// Its name: it is never handed out to itself.
    pub(crate) id: PeerId,
    /// Where it stands.
    pub(crate) zone: &'a Zone,
}

/// Chooses out of `candidates` whom `asker` meets: at most `policy.size` agents, best first, then at most
/// `policy.max_origins` origins.
///
/// The graph of who was handed out to whom is connected by construction, among the agents alone and without luck. An
/// asker becomes a candidate with its first answer, and is handed at least one agent if there is any (`size` is not 0, and
/// agents are left out only for others). So each newcomer has an edge to one that came before it; by induction over
/// the arrivals there is a path from each to the first. Edges lead both ways, since a connection does. Departures may
/// cut that tree; then it is the number of edges that keeps the rest together, and the next find of each node mends it.
pub(crate) fn handout<'a, F, R>(
    policy: &Policy,
    candidates: &Candidates<'a, F>,
    asker: Asker<'_>,
    rng: &mut R,
) -> Vec<PeerAddress>
where
    F: Fn(Key) -> Option<&'a PeerAddress>,
    R: Rng + ?Sized,
{
    let agents = choose_agents(policy, candidates, asker, rng);
    let origins = choose_origins(policy, &candidates.origins, asker, rng);
    agents.into_iter().chain(origins).cloned().collect()
}

fn choose_agents<'a, F, R>(
    policy: &Policy,
    candidates: &Candidates<'a, F>,
    asker: Asker<'_>,
    rng: &mut R,
) -> Vec<&'a PeerAddress>
where
    F: Fn(Key) -> Option<&'a PeerAddress>,
    R: Rng + ?Sized,
{
    let agents = candidates.agents;
    let address = |key| (candidates.address)(key).filter(|address| address.id != asker.id);
    let mut choice = Choice { address, met: HashSet::new(), chosen: Vec::new() };
    let mut everywhere = agents.all();
    while choice.chosen.len() < policy.random_share() && choice.take(&mut everywhere, rng) {}
    let drawn = choice.chosen.len();
    let near = drawn + policy.size.saturating_sub(drawn).div_ceil(2);
    choice.take_by_turns(agents.within(|zone| zone == asker.zone), near, rng);
    choice.take_by_turns(agents.within(|zone| zone.is_near(asker.zone)), policy.size, rng);
    choice.take_by_turns(agents.within(|zone| !zone.is_near(asker.zone)), policy.size, rng);
    let mut chosen = choice.chosen;
    chosen.rotate_left(drawn);
    chosen.sort_by_key(|agent| !agent.zone.is_near(asker.zone));
    chosen
}

/// At most `policy.max_origins`, those first that are known to have the blob.
fn choose_origins<'a, R: Rng + ?Sized>(
    policy: &Policy,
    origins: &[(&'a PeerAddress, bool)],
    asker: Asker<'_>,
    rng: &mut R,
) -> impl Iterator<Item = &'a PeerAddress> + use<'a, R> {
    let mut others: Vec<_> = origins.iter().filter(|(address, _)| address.id != asker.id).copied().collect();
    others.shuffle(rng);
    others.sort_by_key(|(_, is_known)| !is_known);
    others.into_iter().take(policy.max_origins).map(|(address, _)| address)
}

/// Agents that are chosen one by one, nobody twice.
struct Choice<'a, F> {
    address: F,
    met: HashSet<Key>,
    chosen: Vec<&'a PeerAddress>,
}

impl<'a, F: Fn(Key) -> Option<&'a PeerAddress>> Choice<'a, F> {
    /// One more of these. Says whether there was one.
    fn take<R: Rng + ?Sized>(&mut self, lots: &mut Lots<'_>, rng: &mut R) -> bool {
        while let Some(key) = lots.draw(rng) {
            if self.met.insert(key)
                && let Some(address) = (self.address)(key)
            {
                self.chosen.push(address);
                return true;
            }
        }
        false
    }

    /// By turns one that is complete and one that is not; the rest of the longer kind at the end.
    fn take_by_turns<R: Rng + ?Sized>(&mut self, mut kinds: [Lots<'_>; 2], most: usize, rng: &mut R) {
        let mut idle = 0;
        for turn in [0, 1].into_iter().cycle() {
            if self.chosen.len() >= most || idle == kinds.len() {
                return;
            }
            idle = if self.take(&mut kinds[turn], rng) { 0 } else { idle + 1 };
        }
    }
}

impl Policy {
    fn random_share(&self) -> usize {
        (self.size * usize::from(self.random_percent)).div_ceil(100).max(1).min(self.size)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { size: 50, random_percent: 20, max_origins: 16 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use shoal_core::{Digest, Role};

    use super::*;
    use crate::state::{Announce, Holding, Limits, State};

    fn node(number: u16, role: Role, zone: u8) -> PeerAddress {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let addresses = vec![([10, 0, 0, 1], number.max(1)).into()];
        PeerAddress { id: PeerId::from_public_key(key), role, addresses, zone: Zone(format!("zone-{zone}")) }
    }

    /// What `me` is answered where these nodes have some of the blob, or all of it.
    fn answer(
        policy: &Policy,
        nodes: &[(PeerAddress, bool)],
        me: &PeerAddress,
        rng: &mut StdRng,
    ) -> Vec<PeerAddress> {
        let now = Instant::now();
        let mut state = State::new(Duration::from_secs(60), Limits::default());
        let digest = Digest::Sha256([1; 32]);
        for (address, complete) in nodes {
            let added = vec![Holding { digest, complete: *complete }];
            let address = address.clone();
            let announce = Announce { address, api: None, added, removed: vec![], everything: true };
            state.announce(now, announce).unwrap();
        }
        let announce =
            Announce { address: me.clone(), api: None, added: vec![], removed: vec![], everything: false };
        state.announce(now, announce).unwrap();
        state.meet(now, policy, me.id, &digest, rng)
    }

    fn with_none_complete(nodes: &[PeerAddress]) -> Vec<(PeerAddress, bool)> {
        nodes.iter().map(|node| (node.clone(), false)).collect()
    }

    fn agents(count: u16, zone: impl Fn(u16) -> u8) -> Vec<PeerAddress> {
        (0..count).map(|number| node(number, Role::Agent, zone(number))).collect()
    }

    fn count(chosen: &[PeerAddress], accept: impl Fn(&PeerAddress) -> bool) -> usize {
        chosen.iter().filter(|chosen| accept(chosen)).count()
    }

    #[test]
    fn most_of_an_answer_is_near_and_some_of_it_far() {
        let nodes = agents(1000, |number| (number % 10) as u8);
        let all = with_none_complete(&nodes);
        let chosen = answer(&Policy::default(), &all, &nodes[3], &mut StdRng::seed_from_u64(1));
        let near = count(&chosen, |chosen| chosen.zone == nodes[3].zone);
        assert!((40..50).contains(&near), "{near} of 50 are near");
        assert!(chosen[..near].iter().all(|chosen| chosen.zone == nodes[3].zone), "near ones come first");
    }

    #[test]
    fn up_to_half_of_an_answer_is_of_the_askers_rack_and_the_rest_of_its_data_centre() {
        let rack = |number: u16| Zone(format!("centre-{}/rack-{}", number % 2, number % 20));
        let nodes: Vec<_> = (0..1000)
            .map(|number| PeerAddress { zone: rack(number), ..node(number, Role::Agent, 0) })
            .collect();
        let all = with_none_complete(&nodes);
        let chosen = answer(&Policy::default(), &all, &nodes[4], &mut StdRng::seed_from_u64(1));
        let of_rack = count(&chosen, |chosen| chosen.zone == nodes[4].zone);
        let of_centre = count(&chosen, |chosen| chosen.zone.is_near(&nodes[4].zone));
        assert!((20..30).contains(&of_rack), "{of_rack} of 50 are of the rack");
        assert!((40..50).contains(&of_centre), "{of_centre} of 50 are of the data centre");
    }

    #[test]
    fn complete_and_incomplete_agents_are_mixed() {
        let nodes = agents(1000, |_| 0);
        let complete: BTreeSet<_> = nodes[..100].iter().map(|node| node.id).collect();
        let all: Vec<_> = nodes.iter().map(|node| (node.clone(), complete.contains(&node.id))).collect();
        let chosen = answer(&Policy::default(), &all, &nodes[999], &mut StdRng::seed_from_u64(2));
        let complete = count(&chosen, |chosen| complete.contains(&chosen.id));
        assert!((20..=30).contains(&complete), "{complete} of 50 are complete");
    }

    #[test]
    fn origins_that_have_the_blob_come_before_those_that_may() {
        let origins: Vec<_> = (0..20).map(|number| node(number, Role::Origin, 0)).collect();
        let all: Vec<_> = origins.iter().enumerate().map(|(at, origin)| (origin.clone(), at >= 18)).collect();
        let policy = Policy { max_origins: 3, ..Policy::default() };
        let me = node(1000, Role::Agent, 0);
        let chosen = answer(&policy, &all, &me, &mut StdRng::seed_from_u64(3));
        assert_eq!(chosen.len(), 3);
        assert_eq!(count(&chosen[..2], |chosen| origins[18..].contains(chosen)), 2);
    }

    #[test]
    fn chance_decides_among_equals() {
        let nodes = agents(100, |_| 0);
        let all = with_none_complete(&nodes);
        let policy = Policy { size: 10, ..Policy::default() };
        let mut rng = StdRng::seed_from_u64(4);
        let met: BTreeSet<_> = (0..200)
            .flat_map(|_| answer(&policy, &all, &nodes[0], &mut rng))
            .map(|chosen| chosen.id)
            .collect();
        assert_eq!(met.len(), 99, "everybody but the asker is met sooner or later");
    }

    /// All that can be reached from the first node.
    fn reachable(edges: &BTreeMap<PeerId, BTreeSet<PeerId>>) -> BTreeSet<PeerId> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<_> = edges.keys().next().copied().into_iter().collect();
        while let Some(node) = next.pop() {
            if reached.insert(node) {
                next.extend(&edges[&node]);
            }
        }
        reached
    }

    proptest! {
        #[test]
        fn answers_are_bounded_distinct_and_without_the_asker(
            nodes in prop::collection::vec((0u8..4, any::<bool>(), 0u8..10), 1..80),
            size in 1usize..12, random_percent in 0u8..=100, max_origins in 0usize..4, seed: u64, me: prop::sample::Index,
        ) {
            let nodes: Vec<_> = nodes
                .iter()
                .enumerate()
                .map(|(at, &(zone, complete, kind))| {
                    let role = if kind == 0 { Role::Origin } else { Role::Agent };
                    (node(at as u16, role, zone), complete)
                })
                .collect();
            let me = me.get(&nodes).0.clone();
            let policy = Policy { size, random_percent, max_origins };
            let chosen = answer(&policy, &nodes, &me, &mut StdRng::seed_from_u64(seed));

            let of = |role| nodes.iter().filter(|(node, _)| node.role == role && node.id != me.id).count();
            prop_assert_eq!(count(&chosen, |one| one.role == Role::Agent), size.min(of(Role::Agent)));
            prop_assert_eq!(count(&chosen, |one| one.role == Role::Origin), max_origins.min(of(Role::Origin)));
            prop_assert!(chosen.iter().all(|one| one.id != me.id));
            let distinct: BTreeSet<_> = chosen.iter().map(|one| one.id).collect();
            prop_assert_eq!(distinct.len(), chosen.len());
            prop_assert!(chosen.is_sorted_by_key(|one| one.role == Role::Origin), "origins come last");
        }

        #[test]
        fn any_sequence_of_arrivals_makes_one_connected_graph(
            arrivals in prop::collection::vec((0u8..5, any::<bool>()), 1..120), size in 1usize..6, seed: u64,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let policy = Policy { size, ..Policy::default() };
            let nodes: Vec<_> = arrivals
                .iter()
                .enumerate()
                .map(|(at, &(zone, complete))| (node(at as u16, Role::Agent, zone), complete))
                .collect();
            let mut edges: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
            for (arrived, (me, _)) in nodes.iter().enumerate() {
                edges.entry(me.id).or_default();
                for other in answer(&policy, &nodes[..=arrived], me, &mut rng) {
                    edges.entry(me.id).or_default().insert(other.id);
                    edges.entry(other.id).or_default().insert(me.id);
                }
            }
            prop_assert_eq!(reachable(&edges).len(), nodes.len());
        }
    }
}
