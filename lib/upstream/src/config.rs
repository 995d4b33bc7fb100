//! How a registry is reached.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::reference::RegistryHost;
use crate::retry::MAX_ATTEMPTS;

/// How a registry is reached. The defaults are right for public registries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// Whether TLS is spoken.
    pub scheme: Scheme,
    /// Where the API answers (`name[:port]`), where that is not at the registry's name.
    pub address: Option<RegistryHost>,
    /// PEM file with authorities that are trusted beside the system's.
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate to show to the registry, and to nobody else. Needs `key`.
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
    /// Other hosts (`name[:port]`) that get the password when the registry says that they give its tokens. The registry's own
    /// host does, and those that Docker Hub and GitLab are known to use.
    pub token_hosts: Vec<RegistryHost>,
    /// How long a connection may take: 5 s is twice what three lost packets cost.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long an answer may take to begin: 30 s, since object stores behind registries are slow at times.
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// How long nothing at all may come or go in the middle of a body: 30 s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How often a request is made before its failure is told, 5 at most: with the pauses between them some 6 s. 1 where whoever
    /// asks decides himself when to ask again.
    pub attempts: u32,
}

/// Whether TLS is spoken with a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Yes, but with this host itself, unless it has an authority or a certificate of its own.
    #[default]
    Automatic,
    /// Yes.
    Https,
    /// No: whoever is on the way reads and changes what is sent, passwords too.
    Http,
}

impl EndpointConfig {
    /// `http` or `https`.
    pub(crate) fn scheme_for(&self, host: &RegistryHost) -> &'static str {
        let host = self.address.as_ref().unwrap_or(host);
        let own_tls = self.ca.is_some() || self.certificate.is_some();
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Automatic if host.is_loopback() && !own_tls => "http",
            Scheme::Automatic | Scheme::Https => "https",
        }
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            scheme: Scheme::Automatic,
            address: None,
            ca: None,
            certificate: None,
            key: None,
            token_hosts: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            attempts: MAX_ATTEMPTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_host_or_who_says_so() {
        let host = |text| RegistryHost::parse(text).unwrap();
        let automatic = EndpointConfig::default();
        assert_eq!(automatic.scheme_for(&host("registry.example")), "https");
        assert_eq!(automatic.scheme_for(&host("10.0.0.1:5000")), "https");
        assert_eq!(automatic.scheme_for(&host("localhost:5000")), "http");
        let private = EndpointConfig { ca: Some("ca.pem".into()), ..automatic.clone() };
        assert_eq!(private.scheme_for(&host("localhost:5000")), "https");
        let plain = EndpointConfig { scheme: Scheme::Http, ..automatic };
        assert_eq!(plain.scheme_for(&host("10.0.0.1:5000")), "http");
    }
}
