//! Who is refused, and until when. Bounded: the ban that ends first makes room for the next.

use std::collections::BTreeMap;

use shoal_core::PeerId;

use crate::event::Moment;

#[derive(Debug, Default)]
pub(crate) struct Bans(BTreeMap<PeerId, Moment>);

impl Bans {
    pub(crate) fn ban(&mut self, now: Moment, peer: PeerId, until: Moment, limit: usize) {
        self.0.retain(|_, end| *end > now);
        self.0.insert(peer, until);
        while self.0.len() > limit.max(1) {
            let first = self.0.iter().filter(|(id, _)| **id != peer).min_by_key(|(_, end)| **end);
            let Some(first) = first.map(|(&id, _)| id) else { return };
            self.0.remove(&first);
        }
    }

    pub(crate) fn contains(&self, now: Moment, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|&until| until > now)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
