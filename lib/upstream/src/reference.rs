//! What people call an image: `host[:port]/repository[:tag]` or `host[:port]/repository@digest`, as docker reads it.
//!
//! A first component without a dot, a port and the name `localhost` is no host: then the host is docker.io, whose
//! repositories of one component are below `library/`.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer};
use shoal_core::{Digest, NameError, Reference, RepositoryName, Tag};

/// An image, or a repository where neither tag nor digest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// Which registry.
    pub host: RegistryHost,
    /// Which of its repositories.
    pub repository: RepositoryName,
    /// Which manifest.
    pub reference: Option<Reference>,
}

/// A registry's name with its port, if it has one: lower case, no scheme, no path, no user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryHost(String);

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The part before the first `/` is no host.
    #[error("{0:?} is not a registry's host: expected a name or an address, with :port where it is not 443")]
    Host(String),
    /// Repository, tag or digest is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is both.
    #[error("{0:?} names a tag and a digest: leave one of them out")]
    TagAndDigest(String),
    /// A URL in place of a reference.
    #[error("{0:?} is a URL: leave out the scheme, as in registry.example.com/team/app:1")]
    Url(String),
}

impl ImageReference {
    /// Reads a reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains("://") {
            return Err(ReferenceError::Url(excerpt(text)));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(NameError::from)?)),
            None => (text, None),
        };
        let (host, path) = split_host(name)?;
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(Tag::parse(tag)?)),
            None => (path, None),
        };
        let reference = match (tag, digest) {
            (Some(_), Some(_)) => return Err(ReferenceError::TagAndDigest(excerpt(text))),
            (Some(tag), None) => Some(Reference::Tag(tag)),
            (None, digest) => digest.map(Reference::Digest),
        };
        let official = host.is_docker_hub() && !path.contains('/');
        let repository =
            RepositoryName::parse(&if official { format!("library/{path}") } else { path.into() })?;
        Ok(Self { host, repository, reference })
    }

    /// The manifest that is meant: `latest` where nothing is said, as everywhere.
    #[must_use]
    pub fn manifest(&self) -> Reference {
        self.reference.clone().unwrap_or_else(|| Reference::Tag(Tag::parse("latest").expect("it is a tag")))
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        match &self.reference {
            Some(Reference::Tag(tag)) => write!(f, ":{tag}"),
            Some(Reference::Digest(digest)) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl RegistryHost {
    /// Reads `name[:port]`, `address[:port]` or `[address][:port]`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Host(excerpt(text));
        let lower = text.to_ascii_lowercase();
        let (name, port) = split_port(&lower).ok_or_else(bad)?;
        let valid_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if !valid_port || !(is_name(name) || bracketed(name).is_some()) {
            return Err(bad());
        }
        Ok(Self(if name == "index.docker.io" { DOCKER_HUB.into() } else { lower }))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without its port.
    #[must_use]
    pub fn name(&self) -> &str {
        split_port(&self.0).map_or(&self.0, |(name, _)| name)
    }

    /// Whether it can only be this host itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = self.name();
        let address = bracketed(name).map(IpAddr::V6).or_else(|| name.parse().ok());
        name == "localhost"
            || name.ends_with(".localhost")
            || address.is_some_and(|address| address.is_loopback())
    }

    /// Whether it is Docker Hub, whose names and hosts have rules of their own.
    #[must_use]
    pub fn is_docker_hub(&self) -> bool {
        self.0 == DOCKER_HUB
    }

    /// Where the API answers: Docker Hub's is not where its images are named.
    pub(crate) fn api_host(&self) -> &str {
        if self.is_docker_hub() { "registry-1.docker.io" } else { &self.0 }
    }

    /// Which other hosts give tokens for it, as is public knowledge.
    pub(crate) fn known_token_host(&self) -> Option<&'static str> {
        match self.as_str() {
            DOCKER_HUB => Some("auth.docker.io"),
            "registry.gitlab.com" => Some("gitlab.com"),
            _ => None,
        }
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RegistryHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The host that is named or meant, and the rest.
fn split_host(name: &str) -> Result<(RegistryHost, &str), ReferenceError> {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            Ok((RegistryHost::parse(first)?, rest))
        }
        _ => Ok((RegistryHost(DOCKER_HUB.into()), name)),
    }
}

/// `None` where brackets do not match.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let (address, rest) = text.split_at(text.find(']')? + 1);
        return if rest.is_empty() {
            Some((address, None))
        } else {
            Some((address, Some(rest.strip_prefix(':')?)))
        };
    }
    Some(text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))))
}

fn bracketed(name: &str) -> Option<std::net::Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Labels of letters, digits and inner hyphens (RFC 1123, 2.1); addresses of version 4 are names, too.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// At most the first 80 characters of a text from outside, so that an error stays readable.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

const DOCKER_HUB: &str = "docker.io";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let hex = "a".repeat(64);
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("team/app", "docker.io/team/app"),
            ("docker.io/alpine", "docker.io/library/alpine"),
            ("index.docker.io/team/app:1", "docker.io/team/app:1"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/app:1", "localhost:5000/app:1"),
            ("Registry.Example.com/a/b/c", "registry.example.com/a/b/c"),
            ("[::1]:5000/app:1", "[::1]:5000/app:1"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app"),
            (&format!("ghcr.io/x/y@sha256:{hex}"), &format!("ghcr.io/x/y@sha256:{hex}")),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), whole, "{text}");
        }
        assert_eq!(ImageReference::parse("alpine").unwrap().manifest().to_string(), "latest");
    }

    #[test]
    fn what_names_no_image_is_refused() {
        let both = format!("a.b/c:1@sha256:{}", "a".repeat(64));
        for text in [
            "",
            "/",
            "a.b/",
            "a.b:x/c",
            "a.b:0/c",
            "a.b:65536/c",
            "user@a.b/c",
            "a..b/c",
            "[::1/c",
            "[x]:1/c",
            "-a.b/c",
            "a.b/C",
            "a.b/c:",
            "a.b/c@sha256:12",
            "a.b/../c",
            "http://a.b/c",
            &both,
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn loopback_is_known_by_its_name() {
        for (host, loopback) in [
            ("localhost", true),
            ("127.8.0.1:5", true),
            ("[::1]:5", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(RegistryHost::parse(host).unwrap().is_loopback(), loopback, "{host}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(text in "[a-c.:/@\\[\\]0-9-]{0,20}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                prop_assert_eq!(ImageReference::parse(&reference.to_string()).unwrap(), reference);
            }
        }

        #[test]
        fn no_text_panics_the_parser(text: String) {
            let _ = ImageReference::parse(&text);
        }
    }
}
