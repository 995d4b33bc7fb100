//! The origin: takes pushes, keeps every blob, cuts and signs its metainfo, and seeds it.
//!
//! Pushes come down through the registry and the read-write driver into the store; `api` tells trackers and agents
//! what blobs and tags there are. What no origin holds comes from the sources behind them, and from upstream registries; what is
//! pushed is written to the backends there. An origin never fetches from agents.

mod api;
mod backend;
mod behind;
mod cluster;
mod config;
mod eviction;
mod images;
mod link_state;
mod mode;
mod preheat;
mod queue;
mod records;
mod refill;
mod register;
mod replication;
mod role;
mod source;
mod tags;
mod time;
mod tls;
mod transferer;
mod upstream;
mod watchers;
mod webhooks;
mod write_back;

pub use backend::{
    AzureConfig, BackendConfig, BackendConfigError, DirectoryBackendConfig, GcsConfig, S3Config,
};
pub use behind::BehindError;
pub use cluster::{ClusterConfig, ClusterError};
pub use config::Config;
pub use eviction::EvictionConfig;
pub use mode::ReadOnlySwitch;
pub use preheat::{NotificationsConfig, Preheat, PreheatConfig, PreheatError, StartError, Wish};
pub use queue::{DeadJob, JournalError, QueueError, QueueStatus, Queues};
pub use refill::RefillConfig;
pub use replication::{Hosts, Moved, ReplicationConfig, ReplicationError};
pub use role::{BindError, Origin};
pub use source::{DirectoryConfig, SourceConfig, SourceConfigError};
pub use tls::{TlsConfig, TlsError};
pub use upstream::{UpstreamConfig, UpstreamConfigError};
pub use webhooks::{WebhookConfig, WebhookError};
pub use write_back::WriteBackConfig;
