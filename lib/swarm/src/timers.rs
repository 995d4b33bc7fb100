//! When what is due. Invariant: at most one moment a timer, and none nearer than [`Timers::TICK`] after it was set, so a
//! driver that sleeps until the next one never spins.
//!
//! A timer may ring too early: whoever is called looks again at what is due, and sets it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_core::{Digest, PeerId};

use crate::event::Moment;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A connection: requests without an answer, the end of a pause, idleness.
    Peer(PeerId),
    /// Pieces that were held back may be sent.
    Uploads,
    /// A swarm: pieces of which its members are to hear.
    News(Digest),
    /// A swarm: candidates to try again, peers to find, an endgame to widen, a stall, idleness.
    Swarm(Digest),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Moment, Timer)>,
    set: BTreeMap<Timer, Moment>,
    /// That of the first in the queue: asked for after each event, and most events change no timer.
    next: Option<Moment>,
}

impl Timers {
    /// No timer rings sooner than that after it is set.
    const TICK: Duration = Duration::from_millis(1);

    /// Lets it ring at `at`, or when it was to ring anyway if that is sooner.
    pub(crate) fn ring_by(&mut self, now: Moment, timer: Timer, at: Moment) {
        let at = at.max(now.after(Self::TICK));
        match self.set.get(&timer) {
            Some(&sooner) if sooner <= at => return,
            Some(&later) => self.queue.remove(&(later, timer)),
            None => false,
        };
        self.set.insert(timer, at);
        self.queue.insert((at, timer));
        self.look_ahead();
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.set.remove(&timer) {
            self.queue.remove(&(at, timer));
            self.look_ahead();
        }
    }

    /// Takes the next one that is due.
    pub(crate) fn pop(&mut self, now: Moment) -> Option<Timer> {
        self.next.filter(|&at| at <= now)?;
        let (_, timer) = self.queue.pop_first()?;
        self.set.remove(&timer);
        self.look_ahead();
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Moment> {
        self.next
    }

    fn look_ahead(&mut self) {
        self.next = self.queue.first().map(|&(at, _)| at);
    }
}
