//! What an operator may set on an origin.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use shoal_core::Zone;

/// The configuration of an origin: `config/origin.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients push to and pull from: the registry, plain HTTP. Loopback unless something in front of it speaks TLS.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where trackers and agents of the cluster ask (mutual TLS).
    #[serde(default = "default_api_listen")]
    pub api_listen: SocketAddr,
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// The trackers, as `https://host:port`.
    pub tracker: Vec<String>,
    /// The address at which other nodes reach the peer port, where it is not the one that the tracker sees.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
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
    /// The exchange with other nodes.
    pub transfer: shoal_transfer::Config,
    /// The registry.
    #[serde(default)]
    pub registry: shoal_registry::Config,
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

fn default_drain() -> Duration {
    Duration::from_secs(10)
}
