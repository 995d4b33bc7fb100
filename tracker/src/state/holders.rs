//! Who has some of one blob, kept so that a few of many can be drawn by chance: a draw costs the same however many there are.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use rand::{Rng, RngExt as _};
use shoal_core::Zone;

use super::arrivals::Latest;

/// A node's place in the tracker's list.
pub(crate) type Key = u32;

/// Why a node counts as a holder of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stake {
    /// It asked for the blob, and so will have some of it soon. Unless it announces it, it only wanted to know.
    Asked { until: Instant },
    /// It said so.
    Announced { complete: bool },
}

/// Each holder with its stake; and the agents among them by zone, and by whether they have every piece.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    places: HashMap<Key, Place>,
    zones: BTreeMap<Zone, Agents>,
    latest: Latest,
}

#[derive(Debug, Default)]
struct Agents {
    complete: Vec<Key>,
    incomplete: Vec<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    stake: Stake,
    /// Where in its list an agent stands.
    at: Option<u32>,
    /// When it became a holder.
    since: Instant,
}

/// Nodes in random order, shuffled only as far as they are drawn (Fisher and Yates, with the swaps in a map).
pub(crate) struct Lots<'a> {
    lists: Vec<&'a [Key]>,
    left: usize,
    swapped: HashMap<usize, usize>,
}

impl Stake {
    pub(super) fn is_complete(self) -> bool {
        self == Self::Announced { complete: true }
    }

    /// Whether it counts at that time.
    pub(super) fn holds(self, now: Instant) -> bool {
        !matches!(self, Self::Asked { until } if until <= now)
    }
}

impl Holders {
    pub(super) fn stake(&self, key: Key) -> Option<Stake> {
        self.places.get(&key).map(|place| place.stake)
    }

    /// Since when it has been a holder.
    pub(super) fn since(&self, key: Key) -> Option<Instant> {
        self.places.get(&key).map(|place| place.since)
    }

    /// All, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.places.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn latest(&self) -> &Latest {
        &self.latest
    }

    pub(super) fn latest_mut(&mut self) -> &mut Latest {
        &mut self.latest
    }

    /// `zone` is that of an agent; origins are not drawn. One that is a holder already has been one since then. Gives the stake
    /// that it had.
    pub(super) fn insert(
        &mut self,
        key: Key,
        stake: Stake,
        zone: Option<&Zone>,
        now: Instant,
    ) -> Option<Stake> {
        let before = self.places.get(&key).copied();
        if let Some(Place { stake: known, .. }) = before
            && known.is_complete() == stake.is_complete()
        {
            self.places.entry(key).and_modify(|place| place.stake = stake);
            return Some(known);
        }
        let since = before.map_or(now, |place| place.since);
        let stake_before = self.remove(key, zone);
        let at = zone.map(|zone| {
            let list = self.zones.entry(zone.clone()).or_default().list(stake);
            list.push(key);
            // A tracker knows some thousand nodes.
            u32::try_from(list.len() - 1).unwrap_or(u32::MAX)
        });
        self.places.insert(key, Place { stake, at, since });
        stake_before
    }

    /// `zone` is what it was when the node was inserted.
    pub(super) fn remove(&mut self, key: Key, zone: Option<&Zone>) -> Option<Stake> {
        let Place { stake, at, .. } = self.places.remove(&key)?;
        if let (Some(at), Some(zone)) = (at, zone)
            && let Some(agents) = self.zones.get_mut(zone)
        {
            let list = agents.list(stake);
            list.swap_remove(at as usize);
            if let Some(moved) = list.get(at as usize) {
                self.places.entry(*moved).and_modify(|place| place.at = Some(at));
            }
            if agents.is_empty() {
                self.zones.remove(zone);
            }
        }
        Some(stake)
    }

    /// All agents.
    pub(crate) fn all(&self) -> Lots<'_> {
        Lots::new(self.zones.values().flat_map(|agents| [&agents.complete, &agents.incomplete]))
    }

    /// The agents of some zones that have every piece, and those that have not.
    pub(crate) fn within(&self, which: impl Fn(&Zone) -> bool) -> [Lots<'_>; 2] {
        let agents: Vec<_> =
            self.zones.iter().filter(|(zone, _)| which(zone)).map(|(_, agents)| agents).collect();
        [
            Lots::new(agents.iter().map(|agents| &agents.complete)),
            Lots::new(agents.iter().map(|agents| &agents.incomplete)),
        ]
    }
}

impl Agents {
    fn list(&mut self, stake: Stake) -> &mut Vec<Key> {
        if stake.is_complete() { &mut self.complete } else { &mut self.incomplete }
    }

    fn is_empty(&self) -> bool {
        self.complete.is_empty() && self.incomplete.is_empty()
    }
}

impl<'a> Lots<'a> {
    fn new(lists: impl Iterator<Item = &'a Vec<Key>>) -> Self {
        let lists: Vec<_> = lists.map(Vec::as_slice).filter(|list| !list.is_empty()).collect();
        Self { left: lists.iter().map(|list| list.len()).sum(), lists, swapped: HashMap::new() }
    }

    /// One that was not drawn yet, if there is one.
    pub(crate) fn draw<R: Rng + ?Sized>(&mut self, rng: &mut R) -> Option<Key> {
        if self.left == 0 {
            return None;
        }
        let drawn = rng.random_range(0..self.left);
        self.left -= 1;
        let last = self.swapped.remove(&self.left).unwrap_or(self.left);
        let at = if drawn == self.left { last } else { self.swapped.insert(drawn, last).unwrap_or(drawn) };
        self.key(at)
    }

    fn key(&self, mut at: usize) -> Option<Key> {
        for list in &self.lists {
            match list.get(at) {
                Some(key) => return Some(*key),
                None => at -= list.len(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    proptest! {
        #[test]
        fn lots_are_drawn_each_once_and_in_any_order(lengths in prop::collection::vec(0usize..6, 0..5), seed: u64) {
            let mut next = 0..;
            let lists: Vec<Vec<Key>> = lengths.iter().map(|&length| next.by_ref().take(length).collect()).collect();
            let mut rng = StdRng::seed_from_u64(seed);
            let mut lots = Lots::new(lists.iter());
            let drawn: Vec<_> = std::iter::from_fn(|| lots.draw(&mut rng)).collect();
            let mut sorted = drawn.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, lists.concat());
        }

        #[test]
        fn lists_say_what_the_places_say(steps in prop::collection::vec((0u32..6, 0u8..4), 0..60)) {
            let now = Instant::now();
            let zone = |key: Key| (key != 0).then(|| Zone(format!("zone-{}", key % 2)));
            let mut holders = Holders::default();
            for (key, what) in steps {
                let stake = Stake::Announced { complete: what == 1 };
                if what == 0 {
                    holders.remove(key, zone(key).as_ref());
                } else {
                    holders.insert(key, stake, zone(key).as_ref(), now);
                }
                let mut all = holders.all();
                let mut rng = StdRng::seed_from_u64(1);
                let drawn: BTreeSet<_> = std::iter::from_fn(|| all.draw(&mut rng)).collect();
                prop_assert_eq!(drawn, holders.places.keys().copied().filter(|key| *key != 0).collect::<BTreeSet<_>>());
                for (at, agents) in holders.zones.values().flat_map(|agents| [(true, &agents.complete), (false, &agents.incomplete)]) {
                    for (place, key) in agents.iter().enumerate() {
                        prop_assert_eq!(holders.places[key].at, Some(place as u32));
                        prop_assert_eq!(holders.places[key].stake.is_complete(), at);
                    }
                }
            }
        }
    }

    #[test]
    fn every_order_of_lots_is_as_likely() {
        let list = vec![0, 1, 2];
        let mut rng = StdRng::seed_from_u64(3);
        let mut counts = BTreeMap::new();
        for _ in 0..6_000 {
            let mut lots = Lots::new(std::iter::once(&list));
            let order: Vec<_> = std::iter::from_fn(|| lots.draw(&mut rng)).collect();
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
