//! Who wants a blob that is on its way, and how much of it.
//!
//! Readers of a blob count from when they join its fetch until they are done, so that no fetch ends between a reader's
//! look-up and its first byte.

use std::sync::Arc;
use std::time::Duration;

use shoal_transfer::Want;
use tokio::sync::watch;
use tokio::time::Instant;

/// What all callers of one fetch want together.
#[derive(Debug)]
pub(crate) struct Interest(watch::Sender<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    want: Want,
    readers: usize,
    /// When the last reader left, or the fetch began.
    left_at: Instant,
    /// Whether what nobody reads is in somebody's way.
    is_in_the_way: bool,
}

/// One reader's interest; ends when dropped.
#[derive(Debug)]
pub(crate) struct Reading(Arc<Interest>);

/// Hears of changes.
#[derive(Debug)]
pub(crate) struct Changes(watch::Receiver<State>);

impl Interest {
    /// Nobody reads yet.
    pub(crate) fn new(want: Want) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(State {
            want,
            readers: 0,
            left_at: Instant::now(),
            is_in_the_way: false,
        })))
    }

    /// One reader more, who wants that much; what others want stays wanted.
    pub(crate) fn join(self: &Arc<Self>, want: Want) -> Reading {
        self.0.send_modify(|state| {
            state.want = state.want.max(want);
            state.readers += 1;
            state.is_in_the_way = false;
        });
        Reading(self.clone())
    }

    /// The most that anybody wanted so far.
    pub(crate) fn want(&self) -> Want {
        self.0.borrow().want
    }

    /// Since when nobody reads a blob of which only what is read is wanted; `None` if that is not so.
    pub(crate) fn rests_since(&self) -> Option<Instant> {
        self.0.borrow().rests_since()
    }

    /// When a rest that may take so long ends: at once, where it is in the way.
    pub(crate) fn rest_ends(&self, patience: Duration) -> Option<Instant> {
        let state = *self.0.borrow();
        let since = state.rests_since()?;
        Some(if state.is_in_the_way { since } else { since + patience })
    }

    /// Ends a rest: others need its place. Says whether there is one.
    pub(crate) fn make_way(&self) -> bool {
        self.0.send_if_modified(|state| {
            state.is_in_the_way |= state.rests_since().is_some();
            state.is_in_the_way
        })
    }

    /// Whether all of it is wanted and nobody reads: it was read, or nobody waits for it.
    pub(crate) fn is_read(&self) -> bool {
        let state = *self.0.borrow();
        state.want != Want::Read && state.readers == 0
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

impl State {
    fn rests_since(&self) -> Option<Instant> {
        (self.want == Want::Read && self.readers == 0).then_some(self.left_at)
    }
}

impl Changes {
    /// Until something changed since the last call.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left who could change anything.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            state.readers -= 1;
            state.left_at = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_makes_way_at_once_and_what_is_read_does_not() {
        let (interest, hour) = (Interest::new(Want::Read), Duration::from_secs(3600));
        assert!(interest.rest_ends(hour).unwrap() > Instant::now());
        assert!(interest.make_way());
        assert!(interest.rest_ends(hour).unwrap() <= Instant::now());
        let reading = interest.join(Want::Read);
        assert!(!interest.make_way());
        drop(reading);
        assert!(interest.rest_ends(hour).unwrap() > Instant::now());
    }

    #[test]
    fn a_fetch_rests_while_nobody_reads_and_never_once_all_was_wanted() {
        let interest = Interest::new(Want::Read);
        assert!(interest.rests_since().is_some());
        let (one, other) = (interest.join(Want::Read), interest.join(Want::Read));
        drop(one);
        assert!(interest.rests_since().is_none());
        drop(other);
        assert!(interest.rests_since().is_some());
        drop(interest.join(Want::Whole));
        assert!(interest.rests_since().is_none());
        drop(interest.join(Want::Read));
        assert_eq!(interest.want(), Want::Whole);
    }
}
