//! Whether an upstream may be asked at the moment: after it said "too many" nobody asks it before the time that it named, here
//! and, told by whoever heard it, at every other origin.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Gate(watch::Sender<Option<Instant>>);

impl Gate {
    /// The pause after a refusal that names none.
    pub(super) const UNSAID: Duration = Duration::from_secs(30);
    /// The longest that an upstream may ask for. A limit over six hours may well be used up for long, but whoever is asked once in
    /// ten minutes is not stormed.
    pub(super) const LONGEST: Duration = Duration::from_secs(600);

    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// How much longer nobody may ask.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        let until = (*self.0.borrow())?;
        Some(until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Closes it for that long at least; says whether that is news.
    pub(super) fn close(&self, now: Instant, asked: Duration) -> bool {
        let until = now + asked.min(Self::LONGEST);
        self.0.send_if_modified(|closed| {
            let is_news = closed.is_none_or(|closed| closed < until);
            if is_news {
                *closed = Some(until);
            }
            is_news
        })
    }

    /// Ends when it closes, or at once where it is closed.
    pub(super) async fn closes(&self) {
        let mut state = self.0.subscribe();
        let is_closed = |until: &Option<Instant>| until.is_some_and(|until| until > Instant::now());
        if state.wait_for(is_closed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_closed_for_as_long_as_was_asked_and_no_longer_than_that() {
        let (gate, now) = (Gate::new(), Instant::now());
        let seconds = Duration::from_secs;
        assert_eq!(gate.closed_for(now), None);
        assert!(gate.close(now, seconds(10)));
        assert!(!gate.close(now, seconds(5)), "a shorter pause does not end a longer one");
        assert_eq!(gate.closed_for(now + seconds(4)), Some(seconds(6)));
        assert_eq!(gate.closed_for(now + seconds(10)), None);
        gate.close(now, Duration::MAX);
        assert_eq!(gate.closed_for(now), Some(Gate::LONGEST));
    }
}
