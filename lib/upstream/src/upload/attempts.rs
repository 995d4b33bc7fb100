//! Whether an upload that broke is tried again. Pure.

use std::time::Duration;

use crate::error::UpstreamError;
use crate::retry::{self, Decision, Failure};

/// What an upload has been through.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Since there was progress.
    failures: u32,
    breaks: u32,
    /// Since there was progress.
    denied: bool,
    /// How often the session did not take what was next.
    conflicts: u32,
    /// Only what no attempt reached before is progress: a session that begins anew has none for a while.
    furthest: u64,
}

impl Attempts {
    pub(super) fn from(offset: u64) -> Self {
        Self { failures: 0, breaks: 0, denied: false, conflicts: 0, furthest: offset }
    }

    pub(super) fn reached(&mut self, offset: u64) {
        if offset > self.furthest {
            (self.furthest, self.failures, self.denied) = (offset, 0, false);
        }
    }

    /// Whether another session is the better way. A registry notices late that a host has gone which wrote to this one.
    pub(super) fn leaves_session(&mut self) -> bool {
        let leaves = self.conflicts >= MAX_CONFLICTS;
        if leaves {
            self.conflicts = 0;
        }
        leaves
    }

    /// How long to wait before another attempt, if one may help. `jitter`: 0 to 1.
    pub(super) fn after(&mut self, error: &UpstreamError, jitter: f64) -> Option<Duration> {
        let failure = match error {
            UpstreamError::Busy { status, retry_after, .. } => Failure::Status(*status, *retry_after),
            UpstreamError::Unreachable { .. } => Failure::Connection,
            // A token may run out in the middle; who is denied with a new one is.
            UpstreamError::Denied { .. } if !std::mem::replace(&mut self.denied, true) => Failure::Connection,
            // A session may run out, too.
            UpstreamError::NotFound { .. } => Failure::Connection,
            // The session is elsewhere than was thought, or a connection that broke here still writes to it there.
            UpstreamError::Refused { status, .. } if matches!(status.as_u16(), 409 | 416) => {
                self.conflicts += 1;
                Failure::Connection
            }
            _ => return None,
        };
        let decision = retry::decide(self.failures, failure, jitter);
        (self.failures, self.breaks) = (self.failures + 1, self.breaks + 1);
        match decision {
            Decision::After(wait) if self.breaks < MAX_BREAKS => Some(wait),
            _ => None,
        }
    }
}

/// A registry that breaks off again and again after a few bytes ends there, at the latest.
const MAX_BREAKS: u32 = 100;
/// With the pauses between them some 2 s: a connection that was cut is noticed by then, a host that is gone is not.
const MAX_CONFLICTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> UpstreamError {
        UpstreamError::Unreachable { what: String::new(), reason: String::new() }
    }

    #[test]
    fn progress_counts_where_no_attempt_was() {
        let mut attempts = Attempts::from(0);
        attempts.reached(50);
        for _ in 1..retry::MAX_ATTEMPTS {
            assert!(attempts.after(&broken(), 0.5).is_some());
            attempts.reached(0);
            attempts.reached(50);
        }
        assert!(attempts.after(&broken(), 0.5).is_none());
        attempts.reached(51);
        assert!(attempts.after(&broken(), 0.5).is_some());
    }

    #[test]
    fn no_upload_breaks_for_ever() {
        let mut attempts = Attempts::from(0);
        let broke = (1..).take_while(|&offset| {
            attempts.reached(offset);
            attempts.after(&broken(), 0.5).is_some()
        });
        assert_eq!(broke.count() + 1, MAX_BREAKS as usize);
    }

    #[test]
    fn a_session_that_somebody_holds_is_left_in_time() {
        let (what, message) = (String::new(), String::new());
        let held = UpstreamError::Refused { what, message, status: http::StatusCode::CONFLICT };
        let mut attempts = Attempts::from(0);
        let tries = (0..).take_while(|_| {
            assert!(attempts.after(&held, 0.5).is_some());
            !attempts.leaves_session()
        });
        assert_eq!(tries.count() + 1, MAX_CONFLICTS as usize);
        assert!(!attempts.leaves_session());
    }

    #[test]
    fn what_cannot_get_better_ends_at_once() {
        let wrong = UpstreamError::WrongContent { what: String::new(), reason: String::new() };
        assert!(Attempts::from(0).after(&wrong, 0.5).is_none());
        let denied = UpstreamError::Denied { what: String::new(), message: String::new() };
        let mut attempts = Attempts::from(0);
        assert!(attempts.after(&denied, 0.5).is_some() && attempts.after(&denied, 0.5).is_none());
    }
}
