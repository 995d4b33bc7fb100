//! The peer-to-peer drivers over real stores: an origin that takes a push, an agent that pulls it.

// Functions that tests share are no tests to clippy.
#![allow(clippy::unwrap_used)]

mod cluster;
mod contract;
mod links;
mod pull;
mod push;
