//! Whole nodes on loopback: real QUIC, real stores in temporary folders, real certificates.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to fail there")]

mod connections;
mod demand;
mod exchange;
mod hostile;
mod node;
mod puppet;
mod recording;
