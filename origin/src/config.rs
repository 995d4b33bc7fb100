//! What an operator may set on an origin.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use shoal_control::Advertise;
use shoal_core::Zone;

use crate::backend::BackendConfig;
use crate::cluster::ClusterConfig;
use crate::eviction::EvictionConfig;
use crate::preheat::{NotificationsConfig, PreheatConfig};
use crate::refill::RefillConfig;
use crate::replication::ReplicationConfig;
use crate::source::SourceConfig;
use crate::tls::TlsConfig;
use crate::upstream::UpstreamConfig;
use crate::webhooks::WebhookConfig;
use crate::write_back::WriteBackConfig;

/// The configuration of an origin: `config/origin.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients push to and pull from: the registry. Loopback, unless `tls` is set or something in front of it
    /// speaks TLS.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// TLS of `listen`; plain HTTP without it.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Who may pull, push and delete; everybody by default.
    #[serde(default)]
    pub auth: shoal_registry::auth::Config,
    /// Where trackers and agents of the cluster ask (mutual TLS).
    #[serde(default = "default_api_listen")]
    pub api_listen: SocketAddr,
    /// Where a stock registry finds its store: the S3 face, plain HTTP, off unless set. Loopback unless something in front
    /// of it speaks TLS.
    #[serde(default)]
    pub s3_listen: Option<SocketAddr>,
    /// Where `/healthz`, `/readyz`, `/metrics` and what `shoal status` shows are.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// The trackers, as `https://host:port`.
    pub tracker: Vec<String>,
    /// Where other nodes reach the peer port, where that is not what the tracker sees: `host:port`, or several. Names are looked
    /// up again while the node runs.
    #[serde(default)]
    pub advertise: Advertise,
    /// The URL at which trackers reach `api_listen`, where it is not `https://` and that address.
    #[serde(default)]
    pub advertise_api: Option<String>,
    /// Where this host stands (a rack, a data centre).
    #[serde(default)]
    pub zone: Zone,
    /// How long requests in flight may take to end when the origin is told to stop.
    #[serde(default = "default_drain", with = "humantime_serde")]
    pub drain: Duration,
    /// Key and certificates.
    pub identity: shoal_identity::Config,
    /// Where blobs, links, tags and uploads are kept.
    pub store: shoal_store::Config,
    /// How much of the store's file system uploads leave free; below it pushes are answered 507 and their sessions kept. 1 GiB:
    /// links, tags and manifests are small, and a disk that is full to the last byte cannot even delete well.
    #[serde(default = "default_min_free")]
    pub min_free: ByteSize,
    /// The exchange with other nodes.
    pub transfer: shoal_transfer::Config,
    /// The origins that keep blobs together with this one. Without it this origin stands alone.
    #[serde(default)]
    pub cluster: Option<ClusterConfig>,
    /// Object stores to which what is pushed is written back, and from which it comes when no origin has it. The same on all origins.
    #[serde(default, rename = "backend")]
    pub backends: Vec<BackendConfig>,
    /// How it gets there.
    #[serde(default)]
    pub write_back: WriteBackConfig,
    /// Gives up blobs that a backend has where room is short. Without it nothing is given up.
    #[serde(default)]
    pub eviction: Option<EvictionConfig>,
    /// What stands behind the origins: asked in this order for a blob that none of them holds. The same on all of them.
    #[serde(default)]
    pub source: Vec<SourceConfig>,
    /// Registries that are pulled through: what is asked for of them comes from there, once. The same on all origins.
    #[serde(default)]
    pub upstream: Vec<UpstreamConfig>,
    /// How blobs come from there.
    #[serde(default)]
    pub refill: RefillConfig,
    /// The overlay, in which agents find this origin while no tracker answers. Off unless set.
    #[serde(default)]
    pub overlay: Option<shoal_control::overlay::Config>,
    /// Who is told what clients do to the content.
    #[serde(default, rename = "webhook")]
    pub webhooks: Vec<WebhookConfig>,
    /// What agents are to fetch as soon as it is pushed.
    #[serde(default)]
    pub preheat: Vec<PreheatConfig>,
    /// Where other registries say what was pushed to them, for the rules of `preheat`. Off unless set.
    #[serde(default)]
    pub notifications: Option<NotificationsConfig>,
    /// Where what is pushed here is copied to.
    #[serde(default)]
    pub replication: Vec<ReplicationConfig>,
    /// The registry.
    #[serde(default)]
    pub registry: shoal_registry::Config,
    /// Bucket and keys of the S3 face.
    #[serde(default)]
    pub s3: shoal_s3::Config,
    /// Garbage collection, upload purge and scrub, in the background.
    #[serde(default)]
    pub maintenance: shoal_registry::MaintenanceConfig,
    /// Limits of both listeners.
    #[serde(default)]
    pub http: shoal_http::Limits,
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 15000).into()
}

fn default_api_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 15002).into()
}

fn default_admin() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 15001).into()
}

fn default_min_free() -> ByteSize {
    ByteSize::gib(1)
}

fn default_drain() -> Duration {
    Duration::from_secs(10)
}
