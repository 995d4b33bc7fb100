//! The clock by which writes of origins are told apart.

use std::time::{SystemTime, UNIX_EPOCH};

/// By this origin's clock, since 1970.
pub(crate) fn microseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
