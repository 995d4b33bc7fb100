//! The data plane: moves verified pieces between nodes over mutually authenticated QUIC.
//!
//! One task (`node`) owns the engine of `shoal-swarm` and does what it says; each connection is a task; pieces go from
//! the store to the network and back. It does not decide whom to ask for what (the engine does), does not find peers
//! (their addresses are handed in), and does not check metainfo (whoever makes the partial does).

pub mod wire;

mod addresses;
mod arrival;
mod config;
mod connection;
mod fetch;
mod frames;
mod handshake;
mod metrics;
mod node;
mod peers;
mod quic;
mod recorder;
mod requests;
mod swarms;
mod transfer;
mod upload;

pub use config::{Config, ConfigError, RecordConfig};
pub use fetch::{Fetch, FetchError, FetchEvent, Want};
pub use quic::BindError;
pub use transfer::{Stats, Transfer};
