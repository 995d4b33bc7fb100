//! Links that were deleted a moment ago, so that no list of another origin, sent before it heard of that, brings it back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shoal_driver::{Link, TransferError};

/// Links that were deleted, and when.
#[derive(Default)]
pub(super) struct Deleted(HashMap<Link, Instant>);

impl Deleted {
    /// For how long it counts: far longer than a delete takes to reach every origin, or to fail.
    const LIFETIME: Duration = Duration::from_secs(600);
    /// How many are remembered; more deletes within that time are refused. 65,536: a hundred a second.
    const MAX: usize = 65_536;

    pub(super) fn note(&mut self, now: Instant, link: Link) -> Result<(), TransferError> {
        if self.0.len() >= Self::MAX {
            self.0.retain(|_, at| now.saturating_duration_since(*at) < Self::LIFETIME);
        }
        if self.0.len() >= Self::MAX {
            return Err(TransferError::Unavailable(
                "too many deletes in ten minutes: go on later".to_owned(),
            ));
        }
        self.0.insert(link, now);
        Ok(())
    }

    pub(super) fn has(&self, now: Instant, link: &Link) -> bool {
        self.0.get(link).is_some_and(|at| now.saturating_duration_since(*at) < Self::LIFETIME)
    }

    /// It was put again.
    pub(super) fn forget(&mut self, link: &Link) {
        self.0.remove(link);
    }
}
