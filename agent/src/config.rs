//! What an operator may set on an agent.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use shoal_control::Advertise;
use shoal_core::Zone;
use shoal_driver::ByteRange;
use shoal_transfer::Want;

use crate::prefetch::Preheat;

/// The configuration of an agent: `config/agent.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the container runtime of this host finds the registry. Loopback, unless whoever reaches it may read every image.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where the runtime finds one upstream alone, by the upstream's name: for clients that can name none, such as docker's
    /// `registry-mirrors`. The names are those of `registry.namespaces`. None, unless set.
    #[serde(default)]
    pub mirror_listen: BTreeMap<String, SocketAddr>,
    /// Where a stock registry finds its store: the S3 face, plain HTTP, off unless set. Loopback unless something in front
    /// of it speaks TLS.
    #[serde(default)]
    pub s3_listen: Option<SocketAddr>,
    /// Where `/healthz`, `/readyz`, `/metrics` and what `shoal status` shows are.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// The trackers, as `https://host:port`; the first that answers is asked. Without any, the overlay alone is.
    pub tracker: Vec<String>,
    /// The origins' internal API, as `https://host:port`: they know what a tag means now. Without any, no tag means anything.
    pub origins: Vec<String>,
    /// Where other nodes reach the peer port, where that is not what the tracker sees: `host:port`, or several. Names are looked
    /// up again while the node runs.
    #[serde(default)]
    pub advertise: Advertise,
    /// Where this host stands (a data centre, or `centre/rack`): near peers are preferred.
    #[serde(default)]
    pub zone: Zone,
    /// How long a tag's meaning is believed before the origins are asked again. 5 s: a moved tag is seen soon, and a
    /// fleet that starts one image asks rarely.
    #[serde(default = "default_tag_ttl", with = "humantime_serde")]
    pub tag_ttl: Duration,
    /// For how long after an origin said so for the last time a tag is answered by what it meant then, while no origin answers;
    /// the answer carries `Warning: 111`. 0 s, which is never: a runtime then hears 404, turns to its next mirror, or starts
    /// what it has. Other than that a host may start an older image than its neighbour, and nobody sees it but in that header.
    #[serde(default, with = "humantime_serde")]
    pub tag_stale_if_error: Duration,
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
    /// The overlay, by which blobs are found while no tracker answers. Off unless set: it needs a port, and somebody to join.
    #[serde(default)]
    pub overlay: Option<shoal_control::overlay::Config>,
    /// What requests for parts of blobs cause.
    #[serde(default)]
    pub ranges: Ranges,
    /// What orders of origins to fetch an image cause.
    #[serde(default)]
    pub preheat: Preheat,
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

/// What a request for a part of a blob causes that is not here. How far is read ahead of a client that asks for more than it
/// takes is the engine's: `transfer.swarm.read_ahead`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ranges {
    /// Whether the rest of the blob is fetched, too.
    pub prefetch: Prefetch,
    /// How long a fetch of what is read goes on without a reader, so that the next one finds its peers connected. What came
    /// stays on disk, and the next range begins a fetch anew. 60 s: a client that mounts an image lazily reads now and then.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
}

/// Whether a range makes the agent fetch the rest of its blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefetch {
    /// No: what nobody reads is not fetched. Lazy snapshotters read little of what they mount; clients that pull a blob by
    /// several ranges at once ask for all of it, and so it becomes whole.
    #[default]
    Never,
    /// Yes, after what is read: the host will have all of the image, and others can have it from there.
    Always,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { prefetch: Prefetch::default(), idle_timeout: Duration::from_secs(60) }
    }
}

impl Prefetch {
    /// How much of a blob is wanted by whoever asks for that range of it. A range that ends nowhere and leaves nothing out is
    /// none: all is wanted.
    pub(crate) fn want(self, range: ByteRange) -> Want {
        match self {
            _ if range == ByteRange::default() => Want::Whole,
            Self::Never => Want::Read,
            Self::Always => Want::Prefetch,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_wants_what_is_read_or_all_and_who_asks_for_all_gets_all() {
        let part = ByteRange { start: 0, end: Some(9) };
        for (prefetch, want) in [(Prefetch::Never, Want::Read), (Prefetch::Always, Want::Prefetch)] {
            assert_eq!(prefetch.want(part), want);
            assert_eq!(prefetch.want(ByteRange::from(1)), want);
            assert_eq!(prefetch.want(ByteRange::default()), Want::Whole);
        }
    }
}
