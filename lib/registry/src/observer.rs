//! Who watches what clients do.

use std::time::Duration;

/// Told of what clients do; for metrics. All methods have empty defaults, and must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A blob or manifest body is about to be sent: how long after the request's arrival its first byte was there.
    fn first_byte(&self, _after: Duration) {}
    /// A body of that many bytes was sent whole, so long after the request's arrival.
    fn pull_finished(&self, _bytes: u64, _after: Duration) {}
    /// A body was cut short after that many bytes (error inside, or the client went away).
    fn pull_aborted(&self, _bytes: u64) {}
    /// A blob or a manifest of that many bytes was pushed and is in its repository.
    fn pushed(&self, _bytes: u64) {}
}
