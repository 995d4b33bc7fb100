//! What is known of the trackers beside what they say: who answers, and whether it matters who is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_core::{Digest, PeerId};

use crate::rendezvous::{OWNERS, Places, Rendezvous};

/// How the trackers stand.
#[derive(Debug, Default)]
pub(super) struct Standings {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// To whom this node cannot announce itself.
    away: Places,
    /// Where all are told of all blobs: those that also hear what others are told.
    sharing: Option<Places>,
    /// Until when a tracker that failed is asked last, and counts as no owner.
    failed: Vec<Option<Instant>>,
    /// Until when one that was slow is asked after others.
    slow: Vec<Option<Instant>>,
}

/// Whom to ask for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The configured ones.
    pub(super) order: Vec<usize>,
    /// Whose answer counts, whatever it is.
    pub(super) owners: Places,
}

/// For how long one that failed is asked last: longer than it takes nodes to tell the next what it knew.
const MEMORY: Duration = Duration::from_secs(10);

impl Standings {
    pub(super) fn rely_on(&self, away: Places) {
        self.known().away = away;
    }

    pub(super) fn take_any(&self, sharing: Option<Places>) {
        self.known().sharing = sharing;
    }

    pub(super) fn answered(&self, place: usize) {
        let mut known = self.known();
        let Known { failed, slow, .. } = &mut *known;
        for time in [failed, slow].into_iter().filter_map(|times| times.get_mut(place)) {
            *time = None;
        }
    }

    pub(super) fn failed(&self, place: usize, now: Instant) {
        note(&mut self.known().failed, place, now);
    }

    pub(super) fn slow(&self, place: usize, now: Instant) {
        note(&mut self.known().slow, place, now);
    }

    pub(super) fn plan(&self, rendezvous: &Rendezvous, id: &PeerId, digest: &Digest, now: Instant) -> Plan {
        let known = self.known();
        let any = known.sharing.is_some();
        let mut order = if any { rendezvous.homes(id) } else { rendezvous.order(digest) };
        let shares = |place| known.sharing.is_some_and(|sharing| sharing.contains(place));
        let all = Places::first(rendezvous.len());
        let well: Places = (0..rendezvous.len()).filter(|&place| known.is_well(place, now)).collect();
        // The sort is stable: the order stands among equals.
        order.sort_by_key(|&place| (!well.contains(place), is_on(&known.slow, place, now), !shares(place)));
        let relied_on = if well.is_empty() { all } else { well };
        let owners = if any { all } else { rendezvous.owners(digest, relied_on, OWNERS) };
        Plan { order, owners }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Either value is whole at any time.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_well(&self, place: usize, now: Instant) -> bool {
        !self.away.contains(place) && !is_on(&self.failed, place, now)
    }
}

impl Default for Known {
    fn default() -> Self {
        Self { away: Places::NONE, sharing: None, failed: Vec::new(), slow: Vec::new() }
    }
}

fn note(times: &mut Vec<Option<Instant>>, place: usize, now: Instant) {
    if times.len() <= place {
        times.resize(place + 1, None);
    }
    times[place] = Some(now + MEMORY);
}

fn is_on(times: &[Option<Instant>], place: usize, now: Instant) -> bool {
    times.get(place).copied().flatten().is_some_and(|until| now < until)
}

impl Plan {
    /// Whether the answer of that one is worth more than what one that owns nothing may say.
    pub(super) fn owns(&self, place: usize) -> bool {
        self.owners.contains(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_url::ServerUrl;

    fn rendezvous(count: usize) -> Rendezvous {
        let urls: Vec<_> = (0..count)
            .map(|number| ServerUrl::parse(&format!("https://tracker-{number}")).unwrap())
            .collect();
        Rendezvous::new(urls.iter().map(ServerUrl::as_str))
    }

    #[test]
    fn who_failed_is_asked_last_and_is_no_owner_for_a_while() {
        let (rendezvous, standings, now) = (rendezvous(4), Standings::default(), Instant::now());
        let (id, digest) = (PeerId::from_public_key([1; 32]), Digest::sha256(b"blob"));
        let order = rendezvous.order(&digest);
        let plan = |now| standings.plan(&rendezvous, &id, &digest, now);
        assert_eq!(
            plan(now),
            Plan { order: order.clone(), owners: order[..OWNERS].iter().copied().collect() }
        );
        standings.failed(order[0], now);
        let without = [order[1], order[2], order[3], order[0]];
        let owners = [order[1], order[2]].into_iter().collect();
        assert_eq!(plan(now), Plan { order: without.to_vec(), owners });
        assert_eq!(plan(now + MEMORY).order, order);
        standings.answered(order[0]);
        assert_eq!(plan(now).order, order);
    }

    #[test]
    fn who_was_slow_is_asked_later_and_stays_an_owner() {
        let (rendezvous, standings, now) = (rendezvous(3), Standings::default(), Instant::now());
        let (id, digest) = (PeerId::from_public_key([1; 32]), Digest::sha256(b"blob"));
        let order = rendezvous.order(&digest);
        standings.slow(order[0], now);
        let plan = standings.plan(&rendezvous, &id, &digest, now);
        assert_eq!(plan.order, [order[1], order[2], order[0]]);
        assert!(plan.owns(order[0]) && !plan.owns(order[2]));
    }

    #[test]
    fn when_all_are_away_all_are_asked() {
        let (rendezvous, standings, now) = (rendezvous(3), Standings::default(), Instant::now());
        let (id, digest) = (PeerId::from_public_key([1; 32]), Digest::sha256(b"blob"));
        standings.rely_on(Places::first(3));
        let plan = standings.plan(&rendezvous, &id, &digest, now);
        assert_eq!(plan.order, rendezvous.order(&digest));
        assert!(plan.owns(plan.order[0]) && !plan.owns(plan.order[2]));
    }

    #[test]
    fn where_all_know_the_same_a_node_asks_its_own_and_believes_any() {
        let (rendezvous, standings, now) = (rendezvous(3), Standings::default(), Instant::now());
        let id = PeerId::from_public_key([1; 32]);
        standings.take_any(Some(Places::first(3)));
        let homes = rendezvous.homes(&id);
        for number in 0..20u8 {
            let plan = standings.plan(&rendezvous, &id, &Digest::sha256(&[number]), now);
            assert_eq!(plan, Plan { order: homes.clone(), owners: Places::first(3) });
        }
        standings.take_any(Some(Places::NONE.with(homes[2])));
        let plan = standings.plan(&rendezvous, &id, &Digest::sha256(b"blob"), now);
        assert_eq!(
            plan.order,
            [homes[2], homes[0], homes[1]],
            "one that is cut off hears of some nodes only"
        );
    }
}
