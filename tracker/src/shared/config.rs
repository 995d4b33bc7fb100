//! Where trackers share their state.

use std::path::PathBuf;
use std::time::Duration;

use redis::IntoConnectionInfo;
use serde::Deserialize;

/// A Redis or Valkey server.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS: the server's certificate must be
    /// of an authority that this system trusts, or of `ca`. Not a Redis cluster: one server must have all keys.
    pub url: String,
    /// A file with the password, in place of one in the URL. It is read at each connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A file with certificates (PEM) of the authorities that a `rediss://` server's may be of, in place of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What all keys and the channel begin with. Default `shoal:`. Clusters that share a server need one each.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How long a connection may take. Default 2 s: a tracker that has none goes on in memory meanwhile.
    #[serde(with = "humantime_serde", default = "timeout")]
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection is given up. Default 2 s.
    #[serde(with = "humantime_serde", default = "timeout")]
    pub timeout: Duration,
    /// How many changes may wait to be written: announces, and holdings in them. Beyond it they are dropped, and everything is
    /// compared anew. Default 200,000, about 30 MB: several minutes of a large cluster.
    #[serde(default = "max_waiting")]
    pub max_waiting: usize,
}

impl Redis {
    /// Why it cannot work, if so.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.url.as_str().into_connection_info().is_err() {
            return Err(
                "redis.url is no address of a server: expected redis://host:port or rediss://host:port",
            );
        }
        if self.ca.is_some() && !["rediss:", "valkeys:"].iter().any(|scheme| self.url.starts_with(scheme)) {
            return Err("redis.ca is for a server that speaks TLS: redis.url must begin with rediss://");
        }
        if self.prefix.is_empty() || self.prefix.len() > MAX_PREFIX {
            return Err("redis.prefix must have 1 to 64 bytes");
        }
        if self.connect_timeout.is_zero() || self.timeout.is_zero() || self.max_waiting == 0 {
            return Err("redis.connect_timeout, redis.timeout and redis.max_waiting must not be 0");
        }
        Ok(())
    }
}

/// Without the URL, which may have a password.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

const MAX_PREFIX: usize = 64;

fn prefix() -> String {
    "shoal:".to_owned()
}

fn timeout() -> Duration {
    Duration::from_secs(2)
}

fn max_waiting() -> usize {
    200_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Redis {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_url_is_enough_and_its_password_is_not_shown() {
        let redis = parse("url = \"rediss://tracker:secret@redis.internal:6380/1\"");
        redis.check().unwrap();
        assert_eq!((redis.prefix.as_str(), redis.timeout), ("shoal:", Duration::from_secs(2)));
        assert!(!format!("{redis:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for bad in [
            "url = \"http://redis\"",
            "url = \"redis\"",
            "url = \"redis://redis\"\nprefix = \"\"",
            "url = \"redis://redis\"\ntimeout = \"0s\"",
            "url = \"redis://redis\"\nmax_waiting = 0",
            "url = \"redis://redis\"\nca = \"ca.pem\"",
        ] {
            assert!(parse(bad).check().is_err(), "{bad}");
        }
    }
}
