//! What a tracker can be told, and what it does when it is told nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::enrolment::Enrolment;
use crate::handout::Policy;
use crate::shared::Redis;
use crate::state::{Limits, Removal};

/// A tracker's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where agents and origins reach the tracker. Default `0.0.0.0:15003`, the port that users of Kraken know.
    pub listen: SocketAddr,
    /// Where agents and origins reach `listen`, `https://host:port`: what nodes of the overlay are told. By default `listen`
    /// itself, unless its IP is unspecified.
    pub advertise: Option<String>,
    /// The overlay, in which nodes meet here and hear of this tracker. Off unless set.
    pub overlay: Option<shoal_control::overlay::Config>,
    /// Where `/healthz`, `/readyz`, `/metrics` and what `shoal status` shows are. Default `127.0.0.1:15005`.
    pub admin: SocketAddr,
    /// Where `ca.pem`, `cert.pem` and `key.pem` are. Default `/etc/shoal/identity`.
    pub identity: shoal_identity::Config,
    /// How nodes get their certificates here. Default: not at all; they have them from `shoal ca issue`, or from elsewhere.
    pub enrolment: Option<Enrolment>,
    /// The server through which several trackers share their state. Default: none; this one keeps what it is told.
    pub redis: Option<Redis>,
    /// Limits of the listener. Each node keeps a connection, so there is room for `limits.max_nodes` and a quarter more,
    /// whatever `max_connections` is.
    pub http: shoal_http::Limits,
    /// Limits of what is kept in memory.
    pub limits: Limits,
    /// How often nodes renew their lease. Default 20 s: 2,600 nodes make 130 small requests a second.
    #[serde(with = "humantime_serde")]
    pub announce_interval: Duration,
    /// How long a node that falls silent is still handed out. Default 60 s: three announces, so one or two may get lost.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Whom an asker meets.
    pub handout: Policy,
    /// When a node that others cannot reach is handed out no more.
    pub removal: Removal,
    /// How many bytes of metainfo are kept, least recently used out first. Default 256 MiB: a layer of 1 GiB takes 44 KiB,
    /// so some thousands of images.
    pub metainfo_cache: ByteSize,
    /// How many answers "this blob is (not) in that repository" are kept. Default 100,000, about 40 MB.
    pub access_cache_entries: usize,
    /// How long a yes is believed before an origin is asked again. Default 60 s: how long a deleted blob can still be found.
    #[serde(with = "humantime_serde")]
    pub access_lifetime: Duration,
    /// How long a no is believed. Default 1 s: a blob may be pushed any moment, yet 1,000 askers cost one question.
    #[serde(with = "humantime_serde")]
    pub refusal_lifetime: Duration,
    /// How long a yes is still good for when no origin can be asked. Default 1 h: pulls outlive an outage of the origins.
    #[serde(with = "humantime_serde")]
    pub access_grace: Duration,
    /// How long the origins may take to answer, all that are tried together. Default 2 s: below the 3 s that an agent waits.
    #[serde(with = "humantime_serde")]
    pub origin_timeout: Duration,
    /// How many questions to origins may be under way at once; more wait. Default 64: each may bring 3 MiB.
    pub max_origin_lookups: usize,
    /// How long requests in flight may take to end at shutdown. Default 3 s: no agent waits longer.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
}

/// A configuration that contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nodes would be forgotten between two announces.
    #[error("lease ({lease:?}) must be at least twice announce_interval ({announce_interval:?})")]
    Lease {
        /// As configured.
        lease: Duration,
        /// As configured.
        announce_interval: Duration,
    },
    /// State cannot be shared like that.
    #[error("{0}")]
    Redis(&'static str),
    /// A number that cannot work.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// One node alone would decide over another.
    #[error("removal.reporters must be at least {0}")]
    TooFew(usize),
    /// More than an agent reads, or a share of more than everything.
    #[error("{field} must be at most {max}")]
    TooMuch {
        /// The field.
        field: &'static str,
        /// Its limit.
        max: usize,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 15003)),
            advertise: None,
            overlay: None,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 15005)),
            identity: shoal_identity::Config::at("/etc/shoal/identity"),
            enrolment: None,
            redis: None,
            http: shoal_http::Limits::default(),
            limits: Limits::default(),
            announce_interval: Duration::from_secs(20),
            lease: Duration::from_secs(60),
            handout: Policy::default(),
            removal: Removal::default(),
            metainfo_cache: ByteSize::mib(256),
            access_cache_entries: 100_000,
            access_lifetime: Duration::from_secs(60),
            refusal_lifetime: Duration::from_secs(1),
            access_grace: Duration::from_secs(3600),
            origin_timeout: Duration::from_secs(2),
            max_origin_lookups: 64,
            shutdown_grace: Duration::from_secs(3),
        }
    }
}

impl Config {
    /// The limits of the listener, with room for every node that may be known, and for those that come back before their
    /// old connection is noticed to be dead.
    pub(crate) fn http_limits(&self) -> shoal_http::Limits {
        let nodes = self.limits.max_nodes.saturating_add(self.limits.max_nodes / 4);
        let max_connections = self.http.max_connections.max(nodes);
        shoal_http::Limits { max_connections, ..self.http.clone() }
    }

    /// The most peers of one answer: well within what agents read.
    const MAX_HANDOUT: usize = 200;
    /// The most origins of one answer.
    const MAX_ORIGINS: usize = 50;

    /// Says what cannot work before anything is started.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zeros = [
            ("announce_interval", self.announce_interval.is_zero()),
            ("handout.size", self.handout.size == 0),
            ("access_cache_entries", self.access_cache_entries == 0),
            ("max_origin_lookups", self.max_origin_lookups == 0),
        ];
        if let Some((field, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero(field));
        }
        let maxima = [
            ("handout.size", self.handout.size, Self::MAX_HANDOUT),
            ("handout.random_percent", usize::from(self.handout.random_percent), 100),
            ("handout.max_origins", self.handout.max_origins, Self::MAX_ORIGINS),
            ("removal.reporters", self.removal.reporters, Removal::MAX_REPORTERS),
            ("removal.addresses", self.removal.addresses, self.removal.reporters),
        ];
        if let Some((field, _, max)) = maxima.into_iter().find(|(_, value, max)| value > max) {
            return Err(ConfigError::TooMuch { field, max });
        }
        if let Some(redis) = &self.redis {
            redis.check().map_err(ConfigError::Redis)?;
        }
        if self.removal.reporters < Removal::MIN_REPORTERS {
            return Err(ConfigError::TooFew(Removal::MIN_REPORTERS));
        }
        if self.lease < self.announce_interval * 2 {
            return Err(ConfigError::Lease { lease: self.lease, announce_interval: self.announce_interval });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_consistent() {
        Config::default().check().unwrap();
    }

    #[test]
    fn times_and_sizes_are_read_with_their_units() {
        let config: Config = toml::from_str(
            "lease = \"2m\"\nmetainfo_cache = \"1 GiB\"\n[limits]\nmax_nodes = 7\n[handout]\nsize = 30",
        )
        .unwrap();
        assert_eq!(config.lease, Duration::from_secs(120));
        assert_eq!(config.metainfo_cache, ByteSize::gib(1));
        assert_eq!((config.limits.max_nodes, config.handout.size), (7, 30));
    }

    #[test]
    fn enrolment_needs_a_folder_and_nothing_else() {
        let config: Config = toml::from_str("[enrolment]\nca = \"/etc/shoal/ca\"").unwrap();
        let enrolment = config.enrolment.unwrap();
        assert_eq!((enrolment.listen.port(), enrolment.lifetime.as_secs()), (15004, 30 * 86_400));
        let all =
            "ca = \"ca\"\nlisten = \"[::]:1\"\nlifetime = \"1s\"\nmax_uses = 1\nattempts_per_minute = 1";
        let config: Config = toml::from_str(&format!("[enrolment]\n{all}")).unwrap();
        assert!(config.enrolment.unwrap().check().is_err(), "a second is too short");
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        assert!(toml::from_str::<Config>("leese = \"60s\"").unwrap_err().to_string().contains("leese"));
    }

    #[test]
    fn a_lease_shorter_than_two_announces_is_refused() {
        let config = Config { lease: Duration::from_secs(39), ..Config::default() };
        assert!(matches!(config.check(), Err(ConfigError::Lease { .. })));
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        let policy = |size, random_percent| Policy { size, random_percent, ..Policy::default() };
        for handout in [policy(0, 20), policy(1000, 20), policy(50, 101)] {
            assert!(Config { handout, ..Config::default() }.check().is_err());
        }
        for (reporters, addresses) in [(0, 0), (1, 1), (33, 2), (3, 4)] {
            let removal = Removal { reporters, addresses };
            assert!(Config { removal, ..Config::default() }.check().is_err(), "{removal:?}");
        }
        assert!(Config { announce_interval: Duration::ZERO, ..Config::default() }.check().is_err());
    }
}
