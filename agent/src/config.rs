//! What an operator may set on an agent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use shoal_core::Zone;

/// The configuration of an agent: `config/agent.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the container runtime of this host finds the registry. Loopback, unless whoever reaches it may read every image.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where a stock registry finds its store: the S3 face, plain HTTP, off unless set. Loopback unless something in front
    /// of it speaks TLS.
    #[serde(default)]
    pub s3_listen: Option<SocketAddr>,
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// The trackers, as `https://host:port`; the first that answers is asked.
    pub tracker: Vec<String>,
    /// The origins' internal API, as `https://host:port`: they know what a tag means now.
    pub origins: Vec<String>,
    /// The address at which other nodes reach the peer port, where it is not the one that the tracker sees.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// Where this host stands (a rack, a data centre): near peers are preferred.
    #[serde(default)]
    pub zone: Zone,
    /// How long a tag's meaning is believed before the origins are asked again. 5 s: a moved tag is seen soon, and a
    /// fleet that starts one image asks rarely.
    #[serde(default = "default_tag_ttl", with = "humantime_serde")]
    pub tag_ttl: Duration,
    /// How long the origins may take to say what a tag means. 4 s: a runtime is told 404 within 5 s, so that it can turn
    /// to another mirror.
    #[serde(default = "default_resolve_timeout", with = "humantime_serde")]
    pub resolve_timeout: Duration,
    /// How long the whole answer to a request for a manifest may take: then the runtime is told 404. 4.5 s: below the 5 s
    /// after which it should have turned to another mirror, and above what one slow server costs.
    #[serde(default = "default_manifest_timeout", with = "humantime_serde")]
    pub manifest_timeout: Duration,
    /// How long requests in flight may take to end when the agent is told to stop.
    #[serde(default = "default_drain", with = "humantime_serde")]
    pub drain: Duration,
    /// Key and certificates.
    pub identity: shoal_identity::Config,
    /// Where blobs are kept, and how many.
    pub store: shoal_store::CacheConfig,
    /// The exchange with other nodes.
    pub transfer: shoal_transfer::Config,
    /// The registry that the runtime talks to. Always read-only on an agent.
    #[serde(default)]
    pub registry: shoal_registry::Config,
    /// Bucket and keys of the S3 face.
    #[serde(default)]
    pub s3: shoal_s3::Config,
    /// Limits of the registry's listener.
    #[serde(default)]
    pub http: shoal_http::Limits,
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 16000).into()
}

fn default_admin() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 16001).into()
}

fn default_tag_ttl() -> Duration {
    Duration::from_secs(5)
}

fn default_resolve_timeout() -> Duration {
    Duration::from_secs(4)
}

fn default_manifest_timeout() -> Duration {
    Duration::from_millis(4500)
}

fn default_drain() -> Duration {
    Duration::from_secs(5)
}
