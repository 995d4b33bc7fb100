//! Whole nodes on loopback: real sockets, real stores in temporary folders, real certificates. The suite runs over each
//! transport: one wire protocol, whatever carries it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to fail there")]
#![allow(clippy::duplicate_mod, reason = "the suite is compiled once a transport")]

mod choice;
mod over_quic;
mod over_tcp;
