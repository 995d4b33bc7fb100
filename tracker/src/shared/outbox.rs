//! What waits to be written to the store.
//!
//! Bounded by what it takes in memory: when more waits than that, all of it is dropped for one note that everything must be
//! compared anew. While the store is away nothing waits at all, since the same follows anyway.

use std::collections::VecDeque;

use crate::state::replica::{Event, Said};

/// A queue of events.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Waiting,
    max_weight: usize,
}

#[derive(Debug)]
enum Waiting {
    /// The store is away.
    Closed,
    Open {
        events: VecDeque<Event>,
        weight: usize,
    },
    /// More came than there was room for.
    Overflowed,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Taken {
    Nothing,
    Events(Vec<Event>),
    /// Events were dropped: all that this tracker heard must be compared with the store.
    Everything,
}

impl Outbox {
    /// `max_weight`: events, and changes of holdings in them, that may wait.
    pub(super) fn new(max_weight: usize) -> Self {
        Self { state: Waiting::Closed, max_weight }
    }

    pub(super) fn open(&mut self) {
        self.state = Waiting::Open { events: VecDeque::new(), weight: 0 };
    }

    pub(super) fn close(&mut self) {
        self.state = Waiting::Closed;
    }

    pub(super) fn push(&mut self, event: Event) {
        let Waiting::Open { events, weight } = &mut self.state else { return };
        *weight += weight_of(&event);
        events.push_back(event);
        if *weight > self.max_weight {
            self.state = Waiting::Overflowed;
        }
    }

    /// Takes out as many as go in one request.
    pub(super) fn take(&mut self) -> Taken {
        match &mut self.state {
            Waiting::Closed => Taken::Nothing,
            Waiting::Overflowed => {
                self.open();
                Taken::Everything
            }
            Waiting::Open { events, weight } => {
                let (mut taken, mut light) = (Vec::new(), 0);
                while taken.len() < MAX_BATCH && light < MAX_BATCH_WEIGHT {
                    let Some(event) = events.pop_front() else { break };
                    light += weight_of(&event);
                    taken.push(event);
                }
                *weight -= light;
                if taken.is_empty() { Taken::Nothing } else { Taken::Events(taken) }
            }
        }
    }

    /// Whether there is something to do.
    pub(super) fn is_due(&self) -> bool {
        match &self.state {
            Waiting::Closed => false,
            Waiting::Overflowed => true,
            Waiting::Open { events, .. } => !events.is_empty(),
        }
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        match &self.state {
            Waiting::Open { events, .. } => events.len(),
            Waiting::Closed | Waiting::Overflowed => 0,
        }
    }
}

/// Events that are written in one round trip: a tenth of what comes in a second from 15,000 nodes.
const MAX_BATCH: usize = 64;
/// After so many changes no more events are added to a batch: a few MB.
const MAX_BATCH_WEIGHT: usize = 10_000;

fn weight_of(event: &Event) -> usize {
    1 + match &event.said {
        Said::Changed { announce, .. } => announce.added.len() + announce.removed.len(),
        Said::Whole | Said::Left => 0,
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::PeerId;

    use super::*;

    fn event(number: u8) -> Event {
        Event { id: PeerId::from_public_key([number; 32]), version: 1, said: Said::Left }
    }

    fn ids(taken: Taken) -> Vec<PeerId> {
        let Taken::Events(events) = taken else { panic!("{taken:?}") };
        events.into_iter().map(|event| event.id).collect()
    }

    #[test]
    fn events_come_out_in_order_and_in_batches() {
        let mut outbox = Outbox::new(1000);
        outbox.open();
        (0..100).for_each(|number| outbox.push(event(number)));
        let all = [ids(outbox.take()), ids(outbox.take())];
        assert_eq!(all.each_ref().map(Vec::len), [MAX_BATCH, 100 - MAX_BATCH]);
        assert_eq!(all.concat(), (0..100).map(|number| event(number).id).collect::<Vec<_>>());
        assert!(matches!(outbox.take(), Taken::Nothing));
    }

    #[test]
    fn too_many_become_one_note_and_what_comes_later_waits_again() {
        let mut outbox = Outbox::new(10);
        outbox.open();
        (0..200).for_each(|number| outbox.push(event(number)));
        assert_eq!(outbox.len(), 0);
        assert!(matches!(outbox.take(), Taken::Everything));
        outbox.push(event(1));
        assert_eq!(ids(outbox.take()).len(), 1);
    }

    #[test]
    fn while_the_store_is_away_nothing_waits() {
        let mut outbox = Outbox::new(10);
        outbox.push(event(1));
        outbox.open();
        outbox.push(event(2));
        outbox.close();
        outbox.open();
        assert!(matches!(outbox.take(), Taken::Nothing));
    }
}
