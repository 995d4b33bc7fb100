//! The registry through its HTTP API, on real drivers: each rule of the specification and of its clients.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod base;
mod blobs;
mod faults;
mod hostile;
mod manifests;
mod namespaces;
mod rig;
mod tags;
mod uploads;
mod wire;
