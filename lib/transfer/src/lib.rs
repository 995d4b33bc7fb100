//! The data plane: moves verified pieces between nodes over mutually authenticated QUIC, or TLS over TCP.
//!
//! One task (`node`) owns the engine of `shoal-swarm` and does what it says; each connection is a task; pieces go from
//! the store to the network and back. It does not decide whom to ask for what (the engine does), does not find peers
//! (their addresses are handed in), and does not check metainfo (whoever makes the partial does).

pub mod limit;
pub mod wire;

mod addresses;
mod arrival;
mod config;
mod connection;
mod early;
mod endpoint;
mod fetch;
mod frames;
mod handshake;
mod link;
mod metrics;
mod node;
mod path;
mod peers;
mod quic;
mod recorder;
mod requests;
mod swarms;
mod tcp;
mod traffic;
mod transfer;
mod upload;
mod view;

pub use config::{Config, ConfigError, RateLimits, RecordConfig, TransportChoice};
pub use endpoint::BindError;
pub use fetch::{Fetch, FetchError, FetchEvent, Want};
pub use transfer::{Stats, Transfer};
pub use view::{FetchView, MemberView, PeerView, View};
