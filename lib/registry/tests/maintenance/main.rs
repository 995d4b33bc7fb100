//! Maintenance through the public door: images are pushed over HTTP, and what is left is looked up in the driver.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod background;
mod concurrent;
mod garbage;
mod grace;
mod purge;
mod rig;
mod scrub;
