//! The origin: takes pushes, keeps every blob, cuts and signs its metainfo, and seeds it.
//!
//! Pushes come down through the registry and the read-write driver into the store; `api` tells trackers and agents
//! what blobs and tags there are. An origin never fetches from agents.

mod api;
mod cluster;
mod config;
mod link_state;
mod mode;
mod queue;
mod records;
mod register;
mod role;
mod tags;
mod time;
mod tls;
mod transferer;
mod webhooks;

pub use cluster::{ClusterConfig, ClusterError};
pub use config::Config;
pub use mode::ReadOnlySwitch;
pub use queue::{DeadJob, JournalError, QueueError, QueueStatus, Queues};
pub use role::{BindError, Origin};
pub use tls::{TlsConfig, TlsError};
pub use webhooks::{WebhookConfig, WebhookError};
