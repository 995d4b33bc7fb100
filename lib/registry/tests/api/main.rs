//! The registry through its HTTP API, on real drivers: each rule of the specification and of its clients.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod access;
mod base;
mod blobs;
mod catalog;
mod conditions;
mod crash;
mod deletes;
mod elsewhere;
mod faults;
mod full;
mod hostile;
mod manifests;
mod namespaces;
mod parity;
mod referrers;
mod rig;
mod sha512;
mod shapes;
mod tags;
mod uploads;
mod wire;
