//! What one listener takes at most.

use std::io;
use std::time::Duration;

use bytesize::ByteSize;

/// Limits of one listener. Durations are written as `10s`, `1m 30s`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's accept backlog. 4096: a busy tracker's agents, at some
    /// tens of KiB each, and well below the usual limit of file descriptors of a service.
    pub max_connections: usize,
    /// How long a client may take to send a request's header, and so also how long an HTTP/1.1 connection may be
    /// idle before its next request. 10 s: long for a header, short for who only wants to hold a connection.
    #[serde(with = "humantime_serde")]
    pub header_read_timeout: Duration,
    /// The most bytes of a request's header; more is answered with 431. 32 KiB: registry clients send up to 8 KiB
    /// of token.
    pub max_header_bytes: u32,
    /// The most header fields of an HTTP/1.1 request; more is answered with 431. 100: clients send about ten, docker
    /// one `Accept` line for each of a dozen media types. (HTTP/2 counts 32 bytes for each field towards
    /// `max_header_bytes`.)
    pub max_headers: usize,
    /// How long a request's body may send nothing before it is given up (408 where the registry answers); what came before
    /// is kept where it is kept at all. 60 s: longer than a client takes to compress the next part, shorter than what holds
    /// a connection for nothing.
    #[serde(with = "humantime_serde")]
    pub body_idle_timeout: Duration,
    /// Bytes a second that a body has to bring on average over `body_idle_timeout` of waiting for it; below, it is given up as
    /// if it were silent. 1 KiB: slower than any line that images are pushed over, and a thousand such clients cost one
    /// connection each and no more.
    pub min_body_rate: ByteSize,
    /// How long a client may take nothing of its answer before its connection is cut. 5 minutes: a runtime that unpacks
    /// between two reads is back by then, and one that was stopped gives its place to others.
    #[serde(with = "humantime_serde")]
    pub answer_stall_timeout: Duration,
    /// How long a TLS handshake may take. 5 s: a few round trips around the world, with losses.
    #[serde(with = "humantime_serde")]
    pub tls_handshake_timeout: Duration,
    /// How long an HTTP/2 connection without a request stays open. 2 minutes: longer than the pause between the
    /// announces of an agent, so that it keeps its connection.
    #[serde(with = "humantime_serde")]
    pub http2_idle_timeout: Duration,
    /// How often an HTTP/2 client is asked for a sign of life. 30 s: finds a host that vanished in the middle of a
    /// body, which nothing else would.
    #[serde(with = "humantime_serde")]
    pub http2_ping_interval: Duration,
    /// How long the sign of life may take. 20 s: as usual among HTTP/2 servers.
    #[serde(with = "humantime_serde")]
    pub http2_ping_timeout: Duration,
    /// Requests at once on one HTTP/2 connection. 128: more than any client of ours, and RFC 9113 section 6.5.2
    /// advises at least 100.
    pub http2_max_concurrent_streams: u32,
    /// Requests that an HTTP/2 client may cancel before they were looked at; one more ends the connection ("rapid
    /// reset", CVE-2023-44487). 20: as the h2 library has it.
    pub http2_max_pending_resets: usize,
    /// Requests of one HTTP/2 connection that may break the protocol; one more ends the connection
    /// (RUSTSEC-2024-0003). 128: an honest client has none, and each one costs an answer.
    pub http2_max_error_resets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_read_timeout: Duration::from_secs(10),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            body_idle_timeout: Duration::from_secs(60),
            min_body_rate: ByteSize::kib(1),
            answer_stall_timeout: Duration::from_secs(5 * 60),
            tls_handshake_timeout: Duration::from_secs(5),
            http2_idle_timeout: Duration::from_secs(120),
            http2_ping_interval: Duration::from_secs(30),
            http2_ping_timeout: Duration::from_secs(20),
            http2_max_concurrent_streams: 128,
            http2_max_pending_resets: 20,
            http2_max_error_resets: 128,
        }
    }
}

impl Limits {
    /// Refuses numbers with which no request could ever be served.
    pub(crate) fn check(&self) -> io::Result<()> {
        let counts = [
            ("max_connections", self.max_connections),
            ("max_header_bytes", self.max_header_bytes as usize),
            ("max_headers", self.max_headers),
            ("http2_max_concurrent_streams", self.http2_max_concurrent_streams as usize),
        ];
        let durations = [
            ("header_read_timeout", self.header_read_timeout),
            ("body_idle_timeout", self.body_idle_timeout),
            ("answer_stall_timeout", self.answer_stall_timeout),
            ("tls_handshake_timeout", self.tls_handshake_timeout),
            ("http2_idle_timeout", self.http2_idle_timeout),
            ("http2_ping_interval", self.http2_ping_interval),
            ("http2_ping_timeout", self.http2_ping_timeout),
        ];
        let count = counts.iter().find(|(_, count)| *count == 0).map(|(name, _)| *name);
        let duration =
            durations.iter().find(|(_, value)| value.is_zero() || *value > LONGEST).map(|(name, _)| *name);
        match count.or(duration) {
            None => Ok(()),
            Some(name) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("limit {name} must be above 0, and at most a day if it is a duration"),
            )),
        }
    }
}

/// Longer waits are mistakes of a unit, and the far end of the number range would overflow the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_write_them() {
        let limits: Limits = toml::from_str("header_read_timeout = \"50ms\"\nmax_connections = 2").unwrap();
        assert_eq!(limits.header_read_timeout, Duration::from_millis(50));
        assert_eq!(
            limits,
            Limits {
                max_connections: 2,
                header_read_timeout: Duration::from_millis(50),
                ..Limits::default()
            }
        );
        assert!(toml::from_str::<Limits>("max_conections = 2").is_err());
    }

    #[test]
    fn limits_that_would_serve_nobody_are_refused() {
        Limits::default().check().unwrap();
        for limits in [
            Limits { max_connections: 0, ..Limits::default() },
            Limits { max_header_bytes: 0, ..Limits::default() },
            Limits { header_read_timeout: Duration::ZERO, ..Limits::default() },
            Limits { http2_idle_timeout: Duration::MAX, ..Limits::default() },
        ] {
            let error = limits.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{limits:?}");
        }
    }
}
