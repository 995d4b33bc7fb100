//! The agent: answers the container runtime on localhost, and fetches what is missing from the swarm.
//!
//! A runtime's request goes down through the registry and the read-only driver to `transferer`; there it meets
//! the store, or one fetch that all who want the blob share (`fetches`). The agent takes no pushes.

mod access;
mod config;
mod deadline;
mod fetches;
mod follow;
mod holdings;
mod interest;
mod news;
mod prefetch;
mod role;
mod search;
mod tags;
mod transferer;

pub use config::{Config, Prefetch, Ranges};
pub use prefetch::Preheat;
pub use role::{Agent, BindError};
