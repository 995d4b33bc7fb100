//! All roles with real sockets, certificates and files: in one process where that is enough, as processes where they
//! are to be killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod addresses;
mod conformance;
mod copies;
mod crash;
mod dead_peers;
mod eviction;
mod faults;
mod forged;
mod full_disk;
mod hostile;
mod identity;
mod origins;
mod overlay;
mod peers;
mod ports;
mod preheat;
#[allow(dead_code, reason = "shared with the load generator of trackers")]
mod process;
mod pull;
mod ranges;
mod record;
mod replication;
mod security;
mod soak;
mod support;
mod trackers;
mod uploads;
mod webhooks;
