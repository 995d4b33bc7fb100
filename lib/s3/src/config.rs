//! What an operator may set on the S3 listener, and which of it is refused.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::keys::{InvalidRoot, Keys};

/// The configuration of the S3 face: the table `[s3]` of an agent or origin. It takes effect where `s3_listen` is set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The one bucket, as the registry's `storage.s3.bucket` names it.
    pub bucket: String,
    /// The registry's `storage.s3.rootdirectory`: the part of every key before `docker/registry/v2`.
    pub root_directory: String,
    /// The access key that requests are signed with. Whoever has the keys may read, and on an origin write, every
    /// repository: they are for the registry in front, not for its users.
    pub access_key: Option<String>,
    /// The secret key that belongs to it.
    pub secret_key: Option<SecretKey>,
    /// Takes unsigned requests, and only those. Refused unless the listener is on loopback.
    pub anonymous: bool,
}

/// A secret key, which no log shows.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretKey(pub String);

/// Whose requests are taken.
#[derive(Clone, Debug)]
pub enum Access {
    /// Those that are signed (AWS signature, version 4) with these keys.
    Signed {
        /// The name of the key.
        access_key: String,
        /// The key.
        secret_key: SecretKey,
    },
    /// Everybody's.
    Anonymous,
}

/// Why an S3 listener cannot be as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No keys, and not `anonymous`.
    #[error("s3_listen {0} needs s3.access_key and s3.secret_key, or s3.anonymous on loopback")]
    NoKeys(SocketAddr),
    /// `anonymous` where others than this host may connect.
    #[error("s3.anonymous is for loopback, and s3_listen is {0}")]
    AnonymousForAll(SocketAddr),
    /// `anonymous`, and keys that would protect nothing.
    #[error("s3.anonymous and s3.access_key or s3.secret_key exclude each other")]
    AnonymousWithKeys,
    /// Keys cannot start like that.
    #[error("s3.root_directory: {0}")]
    Root(#[from] InvalidRoot),
}

impl Config {
    /// Whose requests a listener on that address takes.
    pub fn access(&self, listen: SocketAddr) -> Result<Access, ConfigError> {
        match (&self.access_key, &self.secret_key) {
            (None, None) if self.anonymous && !listen.ip().is_loopback() => {
                Err(ConfigError::AnonymousForAll(listen))
            }
            (None, None) if self.anonymous => Ok(Access::Anonymous),
            _ if self.anonymous => Err(ConfigError::AnonymousWithKeys),
            (Some(access_key), Some(secret_key)) if !access_key.is_empty() && !secret_key.0.is_empty() => {
                Ok(Access::Signed { access_key: access_key.clone(), secret_key: secret_key.clone() })
            }
            _ => Err(ConfigError::NoKeys(listen)),
        }
    }

    /// What the keys of the bucket mean.
    pub fn keys(&self) -> Result<Keys, ConfigError> {
        Ok(Keys::below(&self.root_directory)?)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bucket: "registry".into(),
            root_directory: "/".into(),
            access_key: None,
            secret_key: None,
            anonymous: false,
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(access_key: &str, secret_key: &str) -> Config {
        Config {
            access_key: Some(access_key.into()),
            secret_key: Some(SecretKey(secret_key.into())),
            ..Config::default()
        }
    }

    #[test]
    fn a_listener_needs_keys_or_loopback() {
        let (here, everywhere) = ("127.0.0.1:9000".parse().unwrap(), "0.0.0.0:9000".parse().unwrap());
        let open = Config { anonymous: true, ..Config::default() };
        assert!(matches!(keyed("a", "s").access(everywhere), Ok(Access::Signed { .. })));
        assert!(matches!(open.access(here), Ok(Access::Anonymous)));
        assert_eq!(open.access(everywhere).unwrap_err(), ConfigError::AnonymousForAll(everywhere));
        assert_eq!(Config::default().access(here).unwrap_err(), ConfigError::NoKeys(here));
        assert_eq!(keyed("a", "").access(here).unwrap_err(), ConfigError::NoKeys(here));
        let both = Config { anonymous: true, ..keyed("a", "s") };
        assert_eq!(both.access(here).unwrap_err(), ConfigError::AnonymousWithKeys);
    }

    #[test]
    fn no_log_shows_the_secret() {
        assert!(!format!("{:?}", keyed("a", "hidden")).contains("hidden"));
    }
}
