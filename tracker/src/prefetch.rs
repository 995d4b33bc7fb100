//! The orders to fetch something that origins have published, and which agents each is for. Pure, with time as an argument.
//!
//! Every agent has a rank for every order, made of their names; an order is for the agents of its zone up to a rank, which is set so
//! that they are as many as it wants whenever it is published. So an answer to an announce costs one comparison an order, agents
//! that come and go change little, and several trackers choose alike. An order that nobody publishes again ends by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shoal_control::prefetch::{PrefetchOrder, Selection, Share};
use shoal_core::{PeerId, Zone};

/// All orders.
#[derive(Debug, Default)]
pub(crate) struct Orders(BTreeMap<u64, Placed>);

#[derive(Debug)]
struct Placed {
    order: PrefetchOrder,
    until: Instant,
    choice: Choice,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// There are too many.
    #[error("there are {0} orders already: wait until one ends")]
    Full(usize),
    /// It has too many blobs, or too long a name.
    #[error("an order has at most {max} blobs and a short name", max = PrefetchOrder::MAX_BLOBS)]
    TooLarge,
}

impl Orders {
    /// Takes an order, or takes it again, for so many of those agents as it wants. One without time left is withdrawn.
    pub(crate) fn publish(
        &mut self,
        now: Instant,
        order: PrefetchOrder,
        agents: impl Iterator<Item = PeerId>,
    ) -> Result<(), OrderError> {
        self.0.retain(|_, placed| now < placed.until);
        if order.ttl_ms == 0 {
            self.0.remove(&order.id);
            return Ok(());
        }
        if order.blobs.len() > PrefetchOrder::MAX_BLOBS || order.image.len() > PrefetchOrder::MAX_IMAGE_LENGTH
        {
            return Err(OrderError::TooLarge);
        }
        if self.0.len() >= PrefetchOrder::MAX_ORDERS && !self.0.contains_key(&order.id) {
            return Err(OrderError::Full(self.0.len()));
        }
        let mut ranks: Vec<_> = agents.map(|agent| rank(order.id, &agent)).collect();
        let last = match order.selection.share.of(ranks.len()) {
            // Those who come later, too.
            _ if order.selection.share == Share::ALL => Some(u64::MAX),
            0 => None,
            wanted => Some(*ranks.select_nth_unstable(wanted - 1).1),
        };
        let until = now + Duration::from_millis(order.ttl_ms.min(PrefetchOrder::MAX_TTL_MS));
        let choice = Choice { id: order.id, selection: order.selection.clone(), last };
        self.0.insert(order.id, Placed { order, until, choice });
        Ok(())
    }

    /// The orders for an agent that stands there.
    pub(crate) fn of_agent<'a>(
        &'a self,
        now: Instant,
        agent: &'a PeerId,
        zone: &'a Zone,
    ) -> impl Iterator<Item = &'a PrefetchOrder> {
        let placed =
            self.0.values().filter(move |placed| now < placed.until && placed.choice.has(agent, zone));
        placed.map(|placed| &placed.order)
    }

    /// All orders, with what is left of their time.
    pub(crate) fn all(&self, now: Instant) -> Vec<PrefetchOrder> {
        let left = self.0.values().filter(|placed| now < placed.until);
        let left = left.map(|placed| {
            let ttl_ms = u64::try_from((placed.until - now).as_millis()).unwrap_or(u64::MAX);
            PrefetchOrder { ttl_ms, ..placed.order.clone() }
        });
        left.collect()
    }

    /// Of one order, to ask about many agents.
    pub(crate) fn choice(&self, order: u64) -> Option<Choice> {
        let placed = self.0.get(&order)?;
        Some(placed.choice.clone())
    }
}

/// Whom one order is for.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    id: u64,
    selection: Selection,
    /// Nobody, or who has no greater rank.
    last: Option<u64>,
}

impl Choice {
    pub(crate) fn has(&self, agent: &PeerId, zone: &Zone) -> bool {
        self.selection.has(zone) && self.last.is_some_and(|last| rank(self.id, agent) <= last)
    }
}

/// Keys are random; mixed with an order's they are in another order for each (the finish of SplitMix64: Steele, Lea and Flood, 2014).
fn rank(order: u64, agent: &PeerId) -> u64 {
    let head = agent.public_key().first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    let mut mixed = head ^ order.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::RepositoryName;

    use super::*;

    fn agent(number: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        PeerId::from_public_key(key)
    }

    fn order(id: u64, zone: &str, share: &str, ttl_ms: u64) -> PrefetchOrder {
        let selection = Selection { zone: Zone(zone.into()), share: share.parse().unwrap() };
        let repository = RepositoryName::parse("a").unwrap();
        PrefetchOrder { id, image: String::new(), repository, blobs: vec![], selection, ttl_ms }
    }

    proptest! {
        #[test]
        fn as_many_are_chosen_as_are_wanted(id: u64, count in 0u16..300, share in 1u8..=100) {
            let (mut orders, now, share) = (Orders::default(), Instant::now(), format!("{share}%"));
            let order = order(id, "", &share, 1000);
            let wanted = order.selection.share.of(count.into());
            orders.publish(now, order, (0..count).map(agent)).unwrap();
            let chosen = (0..count).filter(|&number| orders.choice(id).unwrap().has(&agent(number), &Zone::default()));
            prop_assert_eq!(chosen.count(), wanted);
        }

        /// Whoever was chosen stays so when others come, but for as many as are wanted no more.
        #[test]
        fn who_comes_changes_little(id: u64, count in 1u16..200, more in 0u16..50) {
            let (mut orders, now, nowhere) = (Orders::default(), Instant::now(), Zone::default());
            let chosen = |orders: &mut Orders, count: u16| -> Vec<u16> {
                orders.publish(now, order(id, "", "50%", 1000), (0..count).map(agent)).unwrap();
                (0..count).filter(|&number| orders.choice(id).unwrap().has(&agent(number), &nowhere)).collect()
            };
            let before = chosen(&mut orders, count);
            let after = chosen(&mut orders, count + more);
            let left = before.iter().filter(|number| !after.contains(number)).count();
            prop_assert!(left <= usize::from(more));
        }
    }

    #[test]
    fn an_order_is_for_its_zone_while_it_lasts_and_until_it_is_withdrawn() {
        let (mut orders, now) = (Orders::default(), Instant::now());
        let (here, there) = (Zone("berlin/a".into()), Zone("paris".into()));
        orders.publish(now, order(1, "berlin", "100%", 1000), std::iter::empty()).unwrap();
        let count = |orders: &Orders, now, zone| orders.of_agent(now, &agent(1), zone).count();
        assert_eq!((count(&orders, now, &here), count(&orders, now, &there)), (1, 0));
        let later = now + Duration::from_millis(1000);
        assert_eq!((count(&orders, later, &here), orders.all(later).len()), (0, 0));
        assert_eq!(orders.all(now + Duration::from_millis(400))[0].ttl_ms, 600);
        orders.publish(now, order(1, "berlin", "100%", 0), std::iter::empty()).unwrap();
        assert_eq!(count(&orders, now, &here), 0);
    }

    #[test]
    fn orders_are_bounded_and_end_by_themselves() {
        let (mut orders, now) = (Orders::default(), Instant::now());
        let max = PrefetchOrder::MAX_ORDERS as u64;
        for id in 0..max {
            orders.publish(now, order(id, "", "1%", 1000), std::iter::empty()).unwrap();
        }
        let one_more = order(max, "", "1%", u64::MAX);
        let full = orders.publish(now, one_more.clone(), std::iter::empty());
        assert_eq!(full, Err(OrderError::Full(PrefetchOrder::MAX_ORDERS)));
        orders.publish(now, order(0, "", "1%", 1000), std::iter::empty()).unwrap();
        orders.publish(now + Duration::from_secs(1), one_more, std::iter::empty()).unwrap();
        assert_eq!(orders.all(now + Duration::from_secs(2)).len(), 1);
        assert!(orders.all(now + Duration::from_secs(90_000)).is_empty(), "a day at most");
    }
}
