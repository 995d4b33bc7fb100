//! `[[upstream]]`: which registries are pulled through, what of them, and as whom.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use shoal_core::RepositoryName;
use shoal_upstream::{Credentials, EndpointConfig, RegistryHost, Scheme, Secret};

/// One upstream registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Its host as clients say it: `docker.io`, `registry.example.com:5000`. It is what containerd sends as `ns`, and what stands in
    /// front of the repository where podman and docker ask for `localhost:16000/docker.io/library/alpine`.
    pub name: RegistryHost,
    /// Where its API answers, `https://host[:port]`; at its name unless set. `http://` is spoken only where it stands here.
    #[serde(default)]
    pub url: Option<String>,
    /// Which of its repositories may be pulled, by pattern: `*` is anything within a part of the name, `**` any parts. There is no
    /// default: whoever may ask this registry gets what they name, with the credentials below.
    pub repositories: Vec<String>,
    /// What its repositories are below here; its name unless set, with `-` for the `:` of a port. Nobody can push there.
    #[serde(default)]
    pub prefix: Option<RepositoryName>,
    /// Where it is this registry alone, for clients that can name no upstream, such as docker's `registry-mirrors`. TLS and `auth` are
    /// those of `listen`. Off unless set.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Who we are there; needs `password_file`.
    #[serde(default)]
    pub username: Option<String>,
    /// A file with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A file with a token that the registry takes as it is.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// A file of `docker login` or `podman login`, the credential helpers that it names among it. It is read again every few
    /// minutes.
    #[serde(default)]
    pub docker_config: Option<PathBuf>,
    /// PEM file with authorities that are trusted beside the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate to show there. Needs `key`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Other hosts that are shown the password when the registry says that they give its tokens.
    #[serde(default)]
    pub token_hosts: Vec<RegistryHost>,
    /// How long what a tag names is believed before the upstream is asked again, by one origin for all. 5 minutes.
    #[serde(default = "default_tag_ttl", with = "humantime_serde")]
    pub tag_ttl: Duration,
    /// How long it is believed that the upstream does not have something. 30 s: what is pushed there is seen soon.
    #[serde(default = "default_absent_ttl", with = "humantime_serde")]
    pub absent_ttl: Duration,
    /// What nobody pulled for so long is unlinked; its bytes go with the garbage. A week; 0 keeps it.
    #[serde(default = "default_ttl", with = "humantime_serde")]
    pub ttl: Duration,
}

/// Why upstreams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamConfigError {
    /// Two of one name.
    #[error("two [[upstream]] are named {0}")]
    SameName(RegistryHost),
    /// Their repositories would mix.
    #[error(
        "the [[upstream]] {name} has the prefix {prefix:?}, which {other} has or is below of: give each its own"
    )]
    SamePrefix {
        /// One.
        name: RegistryHost,
        /// Its prefix.
        prefix: String,
        /// The other.
        other: RegistryHost,
    },
    /// No prefix can be made of the name.
    #[error("the [[upstream]] {0} needs a prefix: its name is none that a repository can have")]
    Prefix(RegistryHost),
    /// `url` is none.
    #[error("the [[upstream]] {name} has url = {url:?}: expected https://host[:port] or http://host[:port]")]
    Url {
        /// Which.
        name: RegistryHost,
        /// Its `url`.
        url: String,
    },
    /// Nothing of it may be pulled.
    #[error("the [[upstream]] {0} names no repositories: list what may be pulled, [\"**\"] for everything")]
    Nothing(RegistryHost),
    /// A pattern that is none.
    #[error("the [[upstream]] {name} has the pattern {pattern:?}")]
    Pattern {
        /// Which.
        name: RegistryHost,
        /// The pattern.
        pattern: String,
        /// In what.
        source: globset::Error,
    },
    /// Several ways of saying who we are, or half of one.
    #[error(
        "the [[upstream]] {0} needs username with password_file, or token_file, or docker_config, or none of them"
    )]
    Credentials(RegistryHost),
    /// A secret cannot be read.
    #[error("the [[upstream]] {name}: {path} cannot be read")]
    Secret {
        /// Which.
        name: RegistryHost,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The client cannot be made.
    #[error("the [[upstream]] {name}: {source}")]
    Client {
        /// Which.
        name: RegistryHost,
        /// In what.
        source: shoal_upstream::UpstreamError,
    },
    /// The names of the registry say otherwise.
    #[error("registry.namespaces names {0}, and an [[upstream]] does: keep one of them, with its prefix")]
    Namespace(RegistryHost),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// When what was pulled cannot be kept.
    #[error(transparent)]
    Uses(#[from] super::uses::UsesError),
}

/// Where the credentials come from.
#[derive(Clone, Debug)]
pub(super) enum Login {
    Fixed(Credentials),
    DockerConfig(PathBuf),
}

impl UpstreamConfig {
    /// What its repositories are below here.
    pub(super) fn prefix(&self) -> Result<RepositoryName, UpstreamConfigError> {
        match &self.prefix {
            Some(prefix) => Ok(prefix.clone()),
            None => RepositoryName::parse(&self.name.as_str().replace(':', "-"))
                .map_err(|_| UpstreamConfigError::Prefix(self.name.clone())),
        }
    }

    pub(super) fn allowed(&self) -> Result<GlobSet, UpstreamConfigError> {
        if self.repositories.is_empty() {
            return Err(UpstreamConfigError::Nothing(self.name.clone()));
        }
        let mut set = GlobSetBuilder::new();
        let wrong = |pattern: &str| {
            let (name, pattern) = (self.name.clone(), pattern.to_owned());
            move |source| UpstreamConfigError::Pattern { name, pattern, source }
        };
        for pattern in &self.repositories {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            set.add(glob.map_err(wrong(pattern))?);
        }
        set.build().map_err(wrong(""))
    }

    pub(super) fn endpoint(&self) -> Result<EndpointConfig, UpstreamConfigError> {
        let (scheme, address) = match &self.url {
            None => (Scheme::Https, None),
            Some(url) => {
                let (scheme, address) = self.parse_url(url)?;
                (scheme, Some(address))
            }
        };
        Ok(EndpointConfig {
            scheme,
            address,
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            token_hosts: self.token_hosts.clone(),
            // When to ask again is decided here, for all origins.
            attempts: 1,
            ..EndpointConfig::default()
        })
    }

    fn parse_url(&self, url: &str) -> Result<(Scheme, RegistryHost), UpstreamConfigError> {
        let wrong = || UpstreamConfigError::Url { name: self.name.clone(), url: url.to_owned() };
        let (scheme, host) = url.split_once("://").ok_or_else(wrong)?;
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(wrong()),
        };
        let host = RegistryHost::parse(host.trim_end_matches('/')).map_err(|_| wrong())?;
        Ok((scheme, host))
    }

    /// Reads the secrets. Blocks for the moment that a small file takes.
    pub(super) fn login(&self) -> Result<Login, UpstreamConfigError> {
        match (&self.username, &self.password_file, &self.token_file, &self.docker_config) {
            (None, None, None, None) => Ok(Login::Fixed(Credentials::Anonymous)),
            (Some(user), Some(file), None, None) => {
                let password = self.secret(file)?;
                Ok(Login::Fixed(Credentials::Basic { user: user.clone(), password }))
            }
            (None, None, Some(file), None) => Ok(Login::Fixed(Credentials::Token(self.secret(file)?))),
            (None, None, None, Some(file)) => Ok(Login::DockerConfig(file.clone())),
            _ => Err(UpstreamConfigError::Credentials(self.name.clone())),
        }
    }

    fn secret(&self, path: &Path) -> Result<Secret, UpstreamConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| UpstreamConfigError::Secret {
            name: self.name.clone(),
            path: path.to_owned(),
            source,
        })?;
        Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
    }
}

/// Refuses what would mix the repositories of two.
pub(super) fn check(configs: &[UpstreamConfig]) -> Result<(), UpstreamConfigError> {
    let mut names = HashSet::new();
    for (place, config) in configs.iter().enumerate() {
        if !names.insert(config.name.as_str()) {
            return Err(UpstreamConfigError::SameName(config.name.clone()));
        }
        let prefix = config.prefix()?;
        for other in &configs[..place] {
            let others = other.prefix()?;
            if is_below(prefix.as_str(), others.as_str()) || is_below(others.as_str(), prefix.as_str()) {
                let (name, other) = (config.name.clone(), other.name.clone());
                return Err(UpstreamConfigError::SamePrefix { name, prefix: prefix.to_string(), other });
            }
        }
    }
    Ok(())
}

/// Whether a name is that prefix, or below it.
fn is_below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn default_tag_ttl() -> Duration {
    Duration::from_secs(300)
}

fn default_absent_ttl() -> Duration {
    Duration::from_secs(30)
}

fn default_ttl() -> Duration {
    Duration::from_secs(7 * 24 * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> UpstreamConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_may_be_pulled_must_be_said() {
        assert!(toml::from_str::<UpstreamConfig>("name = \"docker.io\"").is_err());
        let none = config("name = \"docker.io\"\nrepositories = []");
        assert!(matches!(none.allowed(), Err(UpstreamConfigError::Nothing(_))));
        let some =
            config("name = \"docker.io\"\nrepositories = [\"library/*\", \"team/**\"]").allowed().unwrap();
        for (name, allowed) in
            [("library/a", true), ("library/a/b", false), ("team/a/b", true), ("other/a", false)]
        {
            assert_eq!(some.is_match(name), allowed, "{name}");
        }
    }

    #[test]
    fn http_is_spoken_only_where_it_is_said() {
        let endpoint = |more: &str| {
            config(&format!("name = \"localhost:5000\"\nrepositories = [\"**\"]\n{more}")).endpoint()
        };
        assert_eq!(endpoint("").unwrap().scheme, Scheme::Https);
        assert_eq!(endpoint("url = \"http://localhost:5000\"").unwrap().scheme, Scheme::Http);
        for url in ["localhost:5000", "ftp://a", "https://a/b", "https://user@a"] {
            assert!(endpoint(&format!("url = {url:?}")).is_err(), "{url}");
        }
    }

    #[test]
    fn repositories_of_two_never_mix() {
        let upstream =
            |name: &str, more: &str| config(&format!("name = {name:?}\nrepositories = [\"**\"]\n{more}"));
        let fine = [upstream("docker.io", ""), upstream("a.example:5000", "")];
        check(&fine).unwrap();
        assert_eq!(fine[1].prefix().unwrap().as_str(), "a.example-5000");
        assert!(check(&[upstream("a.b", ""), upstream("a.b", "")]).is_err());
        for prefix in ["a.b", "a.b/c"] {
            let other = upstream("c.d", &format!("prefix = {prefix:?}"));
            assert!(check(&[upstream("a.b", ""), other.clone()]).is_err(), "{prefix}");
            assert!(check(&[other, upstream("a.b", "")]).is_err(), "{prefix}");
        }
    }

    #[test]
    fn credentials_are_said_in_one_way() {
        for more in ["username = \"me\"", "token_file = \"/a\"\ndocker_config = \"/b\""] {
            let config = config(&format!("name = \"a.b\"\nrepositories = [\"**\"]\n{more}"));
            assert!(matches!(config.login(), Err(UpstreamConfigError::Credentials(_))), "{more}");
        }
    }
}
