//! Rate limits, exact to the byte: in no 100 ms, wherever they begin, is more taken than a tenth of the rate.
//!
//! `meter` holds one rate and `shaper` decides who is next; both are pure. [`Limiter`] adds the clock: whoever has to wait
//! sleeps, one of them until the moment at which the next bytes may go, the others until they are given some. There is no
//! task, and what is not limited takes no lock. Timers ring up to a millisecond late, so of a rate that is always
//! wanted about 98 % is reached on a busy host; it is never made up for, since that would be more than the rate.

mod meter;
mod shaper;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::Counter;
use shoal_swarm::{Moment, Priority};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

pub use meter::Rate;
pub(crate) use shaper::PRIORITIES;
pub use shaper::{Limits, Next, Shaper, Ticket};

/// The limits of one direction. Cheap to clone; clones share them.
///
/// To send: `take` before each write, and write so many bytes. To receive: either `take` for what a read brought until
/// all of it is covered, before the next read; or `reserve` before a read and `spend` what it brought. What is reserved is
/// nobody else's meanwhile, so the second is for reads that do not wait for the peer.
#[derive(Clone, Debug)]
pub struct Limiter {
    shared: Option<Arc<Shared>>,
}

/// Bytes that may go at any moment. Dropped, it gives back all of them.
#[derive(Debug)]
#[must_use = "dropped, it gives its bytes back"]
pub struct Permit<'a> {
    shared: Option<&'a Shared>,
    priority: Priority,
    bytes: u32,
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    state: Mutex<State>,
    /// Those that may be in line, by priority.
    places: [Semaphore; PRIORITIES.len()],
    /// Seconds that were waited, by priority.
    waited: [Counter; PRIORITIES.len()],
}

#[derive(Debug)]
struct State {
    shaper: Shaper,
    waiting: HashMap<Ticket, Slot>,
    keeper: Option<Keeper>,
}

/// Whoever waits.
#[derive(Debug, Default)]
struct Slot {
    /// What it was given, in bytes; nothing as long as it is in line.
    granted: u32,
    /// Rings when it was given something, or is to keep the time.
    bell: Arc<Notify>,
}

/// The one of those in line that sleeps until the next bytes may go.
#[derive(Clone, Copy, Debug)]
struct Keeper {
    ticket: Ticket,
    /// Nothing: until it is rung.
    until: Option<Moment>,
}

/// A place in line. Dropped, it is left, and what was given and not taken goes back.
#[derive(Debug)]
struct Place<'a> {
    shared: &'a Shared,
    priority: Priority,
    ticket: Ticket,
    bell: Arc<Notify>,
}

/// Counts the time until it is dropped.
struct Waited<'a> {
    since: Instant,
    seconds: &'a Counter,
}

/// What somebody in line is to do.
enum Turn {
    /// Go, with so many bytes.
    Go(u32),
    /// Sleep until then (if there is such a moment), or the bell.
    KeepTime(Option<Moment>),
    /// Sleep until the bell.
    Sleep,
}

impl Limiter {
    /// How many may be in line, by priority; more wait for a place, in order. 4,096: above the pieces that a busy node has
    /// under way either way, and 1 MiB.
    const MAX_WAITING: usize = 4096;

    /// Limits that nobody has taken from yet. What is waited is counted in seconds in `waited`, by priority, the most
    /// urgent first.
    #[must_use]
    pub fn new(limits: &Limits, waited: [Counter; 3]) -> Self {
        let shared = (!limits.is_unlimited()).then(|| {
            let state = State { shaper: Shaper::new(limits), waiting: HashMap::new(), keeper: None };
            Arc::new(Shared {
                epoch: Instant::now(),
                state: Mutex::new(state),
                places: PRIORITIES.map(|_| Semaphore::new(Self::MAX_WAITING)),
                waited,
            })
        });
        Self { shared }
    }

    /// No limit: whoever takes has it at once, without a lock.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { shared: None }
    }

    /// Waits until bytes may go, and counts them as gone. Gives how many: at least one (if any is wanted) and at most `wanted`,
    /// often less where the rate is low; take again for the rest. If it is dropped, nothing was taken.
    #[must_use = "so many bytes may go, not more"]
    pub async fn take(&self, priority: Priority, wanted: u32) -> u32 {
        let permit = self.reserve(priority, wanted).await;
        let bytes = permit.bytes();
        permit.spend(bytes);
        bytes
    }

    /// Waits until bytes may go, and keeps them for the caller until it says how many did. As many as [`Self::take`] gives.
    pub async fn reserve(&self, priority: Priority, wanted: u32) -> Permit<'_> {
        let Some(shared) = self.shared.as_deref().filter(|_| wanted > 0) else {
            return Permit { shared: None, priority, bytes: wanted };
        };
        let bytes = match shared.grant(priority, wanted) {
            Some(bytes) => bytes,
            None => shared.wait(priority, wanted).await,
        };
        Permit { shared: Some(shared), priority, bytes }
    }
}

impl Permit<'_> {
    /// How many.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// So many of them go now; the others go back. More than there are is all.
    pub fn spend(mut self, bytes: u32) {
        self.settle(bytes);
    }

    fn settle(&mut self, spent: u32) {
        let held = std::mem::take(&mut self.bytes);
        if let Some(shared) = self.shared
            && held > 0
        {
            shared.settle(self.priority, held, spent);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.settle(0);
    }
}

impl Shared {
    fn grant(&self, priority: Priority, wanted: u32) -> Option<u32> {
        let (mut state, now) = self.lock();
        state.shaper.grant(now, priority, wanted)
    }

    async fn wait(&self, priority: Priority, wanted: u32) -> u32 {
        let _waited = Waited { since: Instant::now(), seconds: &self.waited[priority as usize] };
        let _room = self.places[priority as usize].acquire().await.expect("nobody closes it");
        let place = self.join(priority, wanted);
        loop {
            match self.turn(place.ticket) {
                Turn::Go(bytes) => return bytes,
                Turn::KeepTime(Some(until)) => tokio::select! {
                    () = sleep_until(self.epoch + until.0) => {}
                    () = place.bell.notified() => {}
                },
                Turn::KeepTime(None) | Turn::Sleep => place.bell.notified().await,
            }
        }
    }

    fn join(&self, priority: Priority, wanted: u32) -> Place<'_> {
        let (mut state, _) = self.lock();
        let ticket = state.shaper.join(priority, wanted);
        let slot = Slot::default();
        let bell = Arc::clone(&slot.bell);
        state.waiting.insert(ticket, slot);
        Place { shared: self, priority, ticket, bell }
    }

    fn turn(&self, ticket: Ticket) -> Turn {
        let (mut state, now) = self.lock();
        state.turn(now, ticket)
    }

    fn settle(&self, priority: Priority, held: u32, spent: u32) {
        let (mut state, now) = self.lock();
        state.shaper.settle(now, priority, held, spent);
        state.advance(now);
    }

    fn leave(&self, priority: Priority, ticket: Ticket) {
        let (mut state, now) = self.lock();
        state.leave(now, priority, ticket);
    }

    /// The state and the time, which so never goes back.
    fn lock(&self) -> (MutexGuard<'_, State>, Moment) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state, Moment(self.epoch.elapsed()))
    }
}

impl State {
    fn turn(&mut self, now: Moment, ticket: Ticket) -> Turn {
        let next = self.grant_all(now);
        let granted = self.waiting.get(&ticket).map_or(0, |slot| slot.granted);
        if granted > 0 {
            self.waiting.remove(&ticket);
            self.call_keeper(next);
            return Turn::Go(granted);
        }
        if self.keeper.is_none_or(|keeper| keeper.ticket == ticket) {
            self.keeper = Some(Keeper { ticket, until: next });
            return Turn::KeepTime(next);
        }
        self.call_keeper(next);
        Turn::Sleep
    }

    fn leave(&mut self, now: Moment, priority: Priority, ticket: Ticket) {
        let Some(slot) = self.waiting.remove(&ticket) else { return };
        self.dismiss(ticket);
        if slot.granted > 0 {
            self.shaper.settle(now, priority, slot.granted, 0);
        } else {
            self.shaper.leave(priority, ticket);
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Moment) {
        let next = self.grant_all(now);
        self.call_keeper(next);
    }

    /// Gives what may go to whoever is next, and says when more may.
    fn grant_all(&mut self, now: Moment) -> Option<Moment> {
        loop {
            match self.shaper.poll(now) {
                Next::Granted(ticket, bytes) => {
                    self.dismiss(ticket);
                    let slot = self.waiting.get_mut(&ticket).expect("whoever is in line has a slot");
                    slot.granted = bytes;
                    slot.bell.notify_one();
                }
                Next::At(at) => return Some(at),
                Next::Never => return None,
            }
        }
    }

    /// Sees that somebody of those in line sleeps until `next` at the latest.
    fn call_keeper(&self, next: Option<Moment>) {
        let called = match self.keeper {
            Some(Keeper { ticket, until }) => {
                let oversleeps = next.is_some_and(|next| until.is_none_or(|until| next < until));
                oversleeps.then_some(ticket)
            }
            None => self.shaper.first(),
        };
        if let Some(slot) = called.and_then(|ticket| self.waiting.get(&ticket)) {
            slot.bell.notify_one();
        }
    }

    fn dismiss(&mut self, ticket: Ticket) {
        self.keeper = self.keeper.filter(|keeper| keeper.ticket != ticket);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.priority, self.ticket);
    }
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.seconds.inc_by(self.since.elapsed().as_secs_f64());
    }
}
