//! Where, and within which limits, pieces are exchanged.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::limit::{Limits, Rate};

/// Where and within which limits pieces are exchanged. How pieces are chosen is the engine's part: `swarm`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the peer port, UDP and TCP. By default all addresses of the host, port 16002: 16001 is an agent's admin port.
    pub listen: SocketAddr,
    /// What peers are reached by: `auto`, `quic` or `tcp`.
    pub transport: TransportChoice,
    /// How the engine chooses peers and pieces, and its budgets.
    pub swarm: shoal_swarm::Config,
    /// Where all that the engine is told is written, for `shoal replay`. Off unless set.
    pub record: Option<RecordConfig>,
    /// How fast bytes of pieces may leave this node. Unlimited by default.
    pub egress: RateLimits,
    /// How fast bytes of pieces are taken from peers. Unlimited by default.
    pub ingress: RateLimits,
    /// How long a handshake may take, with each address of a peer and with a caller. 5 s: three lost packets in a row.
    #[serde(with = "humantime_serde")]
    pub dial_timeout: Duration,
    /// How long a transport may keep silent until the other is tried as well. 300 ms: longer than a round trip around the
    /// world, so that nobody is dialled twice for nothing.
    #[serde(with = "humantime_serde")]
    pub fallback_delay: Duration,
    /// How long a peer may take from its certificate to its Hello. 15 s: when both sides dial at once, one holds
    /// its answer back until its own dial has come out.
    #[serde(with = "humantime_serde")]
    pub hello_timeout: Duration,
    /// How often a silent connection is probed. 5 s: keeps the state of any NAT (some forget after 15 s).
    #[serde(with = "humantime_serde")]
    pub keep_alive_interval: Duration,
    /// After how long without a packet (over TCP: without a byte taken) a connection is dead. 20 s: four probes in a row were lost; the engine's
    /// own deadlines ask elsewhere long before.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long one piece may take to leave. 60 s: 16 MiB at 280 KiB/s; whoever reads slower holds a slot for nothing.
    #[serde(with = "humantime_serde")]
    pub upload_timeout: Duration,
    /// How long [`crate::Transfer::shutdown`] waits for peers to hear of it. 2 s.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    /// The largest UDP payload that path MTU discovery may find, in bytes, from 1,200 to 6,500. 1,452 suits Ethernet; 6,500
    /// uses jumbo frames at twice the speed. Above it a batch of ten (segmentation offload) passes the 64 KiB of one send.
    pub max_udp_payload: u16,
    /// Pieces on their way to this node on one connection at a time. 32: more than an engine asks of one peer.
    pub piece_streams: NonZeroU32,
    /// How many bytes of one piece may be under way unread. 2 MiB: a piece of 1 MiB never waits for the window.
    pub stream_window: ByteSize,
    /// How many bytes of all pieces of one connection may be under way unread, each direction. 16 MiB: 8 pieces of 1 MiB in
    /// flight, twice; enough for 1 GiB/s at 15 ms.
    pub connection_window: ByteSize,
    /// Connections at a time; a peer beyond is turned away. 1,024: far above the engine's degree, and about 40 MiB.
    pub max_connections: NonZeroUsize,
    /// Handshakes of unknown callers at a time; more are refused, and from half on a caller must prove its address first.
    /// 64: one core does a thousand handshakes a second, so honest callers hardly wait.
    pub max_handshakes: NonZeroUsize,
    /// Peers whose addresses are remembered, the least recently named forgotten first. 8,192: a large cluster; about 2 MiB.
    pub max_known_peers: NonZeroUsize,
    /// Commands that wait for the node. 256: callers wait beyond, nothing is lost.
    pub command_queue: NonZeroUsize,
    /// What connections have to say and the node has not taken. 1,024: beyond it connections stop reading.
    pub note_queue: NonZeroUsize,
    /// Messages to one peer that are not sent yet. 4,096: the announcements of a blob of 4,096 pieces; a peer that
    /// falls behind further is disconnected.
    pub message_queue: NonZeroUsize,
}

/// What carries the wire protocol, both always encrypted and authenticated. With `auto` both are spoken to whoever dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// TLS over TCP where the path is short (the same zone, or measured so), QUIC elsewhere; the other where one fails.
    #[default]
    Auto,
    /// QUIC alone, over UDP.
    Quic,
    /// TLS 1.3 over TCP alone.
    Tcp,
}

/// The record of the engine.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordConfig {
    /// The file. The one of the node's last life is kept beside it, as `<file>.1`.
    pub file: PathBuf,
    /// The size at which the record ends, and the node goes on without. 256 MiB: about a million events, the pull of some
    /// hundred GiB.
    #[serde(default = "default_max_size")]
    pub max_size: ByteSize,
    /// Events and actions that wait to be written. If there are more, the record ends: the node does not wait. 16,384: a
    /// second of a busy node; 64 MiB if each brought the bitfield of a blob of 30,000 pieces.
    #[serde(default = "default_record_queue")]
    pub queue: NonZeroUsize,
}

/// How many bytes of pieces may go in one direction, exact over any 100 ms. Of those that wait the most urgent go first:
/// reader, then prefetch, then repair.
///
/// What is not set is not limited: the link is the limit, and who shares the host with the node knows best what to leave
/// for others. A priority's rate above the rate of all is as good as that. One for readers that is below it leaves the
/// rest to the others, who get nothing otherwise as long as readers take all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Of all together, in bytes a second, at least 300 KB.
    pub rate: Option<ByteSize>,
    /// Of what somebody reads, or is about to; in bytes a second, at least 300 KB.
    pub reader: Option<ByteSize>,
    /// Of what somebody may read soon; in bytes a second, at least 300 KB.
    pub prefetch: Option<ByteSize>,
    /// Of copies that nobody waits for; in bytes a second, at least 300 KB.
    pub repair: Option<ByteSize>,
}

/// A value of the configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {requirement}")]
pub struct ConfigError {
    field: &'static str,
    value: String,
    requirement: &'static str,
}

impl Config {
    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), ConfigError> {
        let payload = self.max_udp_payload;
        require("max_udp_payload", &payload, UDP_PAYLOADS.contains(&payload), "must be from 1200 to 6500")?;
        let idle = self.idle_timeout;
        require(
            "idle_timeout",
            &format!("{idle:?}"),
            idle <= LONGEST_IDLE && idle > self.keep_alive_interval,
            "must be longer than keep_alive_interval, and at most a day",
        )?;
        let stream = self.stream_window;
        require(
            "stream_window",
            &stream,
            WINDOWS.contains(&stream.as_u64()),
            "must be from 64 KiB to 1 GiB",
        )?;
        let window = self.connection_window;
        let fits = WINDOWS.contains(&window.as_u64()) && window >= stream;
        require("connection_window", &window, fits, "must be from stream_window to 1 GiB")?;
        self.egress.check(["egress.rate", "egress.reader", "egress.prefetch", "egress.repair"])?;
        self.ingress.check(["ingress.rate", "ingress.reader", "ingress.prefetch", "ingress.repair"])?;
        let size = self.record.as_ref().map_or(LEAST_RECORD, |record| record.max_size);
        require("record.max_size", &size, size >= LEAST_RECORD, "must be at least 64 KiB")
    }
}

impl RateLimits {
    /// By the names of its fields, in their order.
    fn check(&self, names: [&'static str; 4]) -> Result<(), ConfigError> {
        let rates = [self.rate, self.reader, self.prefetch, self.repair];
        for (name, rate) in names.into_iter().zip(rates) {
            if let Some(rate) = rate {
                let is_possible = Rate::new(rate.as_u64()).is_some();
                require(name, &rate, is_possible, "must be at least 300 KB (a second)")?;
            }
        }
        Ok(())
    }
}

/// Of limits that were checked.
impl From<RateLimits> for Limits {
    fn from(limits: RateLimits) -> Self {
        let rate = |rate: Option<ByteSize>| rate.and_then(|rate| Rate::new(rate.as_u64()));
        Self {
            total: rate(limits.rate),
            reader: rate(limits.reader),
            prefetch: rate(limits.prefetch),
            repair: rate(limits.repair),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let count = |count| NonZeroUsize::new(count).expect("the defaults are not zero");
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 16002)),
            transport: TransportChoice::default(),
            swarm: shoal_swarm::Config::default(),
            record: None,
            egress: RateLimits::default(),
            ingress: RateLimits::default(),
            dial_timeout: Duration::from_secs(5),
            fallback_delay: Duration::from_millis(300),
            hello_timeout: Duration::from_secs(15),
            keep_alive_interval: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(20),
            upload_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(2),
            max_udp_payload: 1452,
            piece_streams: NonZeroU32::new(32).expect("the defaults are not zero"),
            stream_window: ByteSize::mib(2),
            connection_window: ByteSize::mib(16),
            max_connections: count(1024),
            max_handshakes: count(64),
            max_known_peers: count(8192),
            command_queue: count(256),
            note_queue: count(1024),
            message_queue: count(4096),
        }
    }
}

fn default_max_size() -> ByteSize {
    ByteSize::mib(256)
}

fn default_record_queue() -> NonZeroUsize {
    NonZeroUsize::new(16_384).expect("not zero")
}

fn require(
    field: &'static str,
    value: &impl ToString,
    holds: bool,
    requirement: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { field, value: value.to_string(), requirement }) }
}

/// The least that QUIC demands of a path (RFC 9000, section 14), and what a batch of ten may have each.
const UDP_PAYLOADS: std::ops::RangeInclusive<u16> = 1200..=6500;
/// The first line has the whole configuration.
const LEAST_RECORD: ByteSize = ByteSize::kib(64);
const LONGEST_IDLE: Duration = Duration::from_secs(24 * 60 * 60);
const WINDOWS: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold() {
        Config::default().check().unwrap();
    }

    #[test]
    fn rates_are_at_least_what_brings_a_piece_in_time() {
        let limits = |rate| RateLimits { repair: Some(ByteSize::b(rate)), ..RateLimits::default() };
        let slow = Config { ingress: limits(Rate::LEAST - 1), ..Config::default() };
        assert!(slow.check().unwrap_err().to_string().starts_with("ingress.repair = "));
        let config = Config { egress: limits(Rate::LEAST), ..Config::default() };
        config.check().unwrap();
        let limits = Limits::from(config.egress);
        assert_eq!(limits.repair.map(Rate::bytes_per_second), Some(Rate::LEAST));
        assert_eq!((limits.total, limits.reader, limits.prefetch), (None, None, None));
        assert!(Limits::from(config.ingress).is_unlimited());
    }

    #[test]
    fn a_value_that_cannot_work_is_named() {
        let jumbo = Config { max_udp_payload: 9000, ..Config::default() };
        assert!(jumbo.check().unwrap_err().to_string().starts_with("max_udp_payload = 9000"));
        let silent = Config { keep_alive_interval: Duration::from_secs(60), ..Config::default() };
        assert!(silent.check().unwrap_err().to_string().starts_with("idle_timeout = 20s"));
        let narrow = Config { connection_window: ByteSize::mib(1), ..Config::default() };
        assert!(narrow.check().unwrap_err().to_string().starts_with("connection_window"));
    }
}
