//! How blobs are divided among the configured trackers.

pub(crate) use shoal_core::{Places, Rendezvous};

/// How many trackers are told of a blob: one may be lost, and until nodes have noticed and told another, the second knows.
pub(crate) const OWNERS: usize = 2;
/// The most trackers that may be configured: each costs every node a heartbeat an interval.
pub const MAX_TRACKERS: usize = Places::MAX;
