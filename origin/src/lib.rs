//! The origin: takes pushes, keeps every blob, cuts and signs its metainfo, and seeds it.
//!
//! Pushes come down through the registry and the read-write driver into the store; `api` tells trackers and agents
//! what blobs and tags there are. What no origin holds comes from the sources behind them, and what is pushed is
//! written to the backends there. An origin never fetches from agents.

mod api;
mod backend;
mod behind;
mod cluster;
mod config;
mod eviction;
mod queue;
mod records;
mod refill;
mod register;
mod role;
mod source;
mod tags;
mod tls;
mod transferer;
mod webhooks;
mod write_back;

pub use backend::{
    AzureConfig, BackendConfig, BackendConfigError, DirectoryBackendConfig, GcsConfig, S3Config,
};
pub use behind::BehindError;
pub use cluster::{ClusterConfig, ClusterError};
pub use config::Config;
pub use eviction::EvictionConfig;
pub use queue::{DeadJob, JournalError, QueueError, QueueStatus, Queues};
pub use refill::RefillConfig;
pub use role::{BindError, Origin};
pub use source::{DirectoryConfig, SourceConfig, SourceConfigError};
pub use tls::{TlsConfig, TlsError};
pub use webhooks::{WebhookConfig, WebhookError};
pub use write_back::WriteBackConfig;
