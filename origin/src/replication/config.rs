//! What an operator sets of replication.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_core::{RepositoryName, Tag};
use shoal_registry::Pattern;
use shoal_upstream::{CredentialsError, EndpointConfig, RegistryHost, UpstreamError, fallback_tag};

use crate::queue::{Backoff, JournalError};

/// A registry that gets what is pushed here: `[[replication]]` of `config/origin.toml`. Of several rules with one target the
/// first that fits a tag counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicationConfig {
    /// Its name in logs, metrics and the queue: renamed, it begins with an empty queue.
    pub name: String,
    /// The registry, `host[:port]`; or several that are one cluster, of which the next is taken where one fails.
    pub to: Hosts,
    /// How it is reached.
    #[serde(default)]
    pub endpoint: EndpointConfig,
    /// A file with credentials, of the form of docker's config.json; read again for each image.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Which repositories, as patterns (`team/**`); all by default.
    #[serde(default)]
    pub repositories: Vec<Pattern>,
    /// Which tags, as patterns (`v*`); all by default. Signatures and attestations by `subject` come with their image.
    #[serde(default)]
    pub tags: Vec<Pattern>,
    /// What is taken from the front of a repository's name; a repository that does not begin so is left out.
    #[serde(default)]
    pub strip: String,
    /// What is put in front of a repository's name then.
    #[serde(default)]
    pub prefix: String,
    /// Whether tags and manifests that are deleted here are deleted there too.
    #[serde(default)]
    pub delete: bool,
    /// Whether what came here by replication goes on there: for a chain of clusters. Two that replicate to each other do without.
    #[serde(default)]
    pub pass_on: bool,
    /// How often all tags are looked for there. 0 s: never. Without it what a full queue, a lost disk or the S3 face kept from the
    /// queue stays away until it is pushed again.
    #[serde(default, with = "humantime_serde")]
    pub reconcile: Duration,
    /// What that does about tags that name something else there.
    #[serde(default)]
    pub reconcile_moved: Moved,
    /// How many images are on their way at a time: the manifests of each are in memory.
    #[serde(default = "default_images")]
    pub images_at_once: usize,
    /// How many blobs of each.
    #[serde(default = "default_blobs")]
    pub blobs_at_once: usize,
    /// How long it waits after the first failure; doubled after each, up to five minutes.
    #[serde(default = "default_retry", with = "humantime_serde")]
    pub retry: Duration,
    /// After how many tries an image is given up. 0: never. 100 tries are eight hours.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// How many images may wait, those that were given up included; more are left to `reconcile`.
    #[serde(default = "default_queue")]
    pub queue: usize,
}

/// One registry, or several that are one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Hosts {
    /// One.
    One(RegistryHost),
    /// Several.
    Several(Vec<RegistryHost>),
}

/// What is done about tags that name something else at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moved {
    /// They are counted. Nobody knows who is right where both sides are written to.
    #[default]
    Report,
    /// They are written over: the target is a mirror, and nobody else writes there.
    Overwrite,
}

/// Replication cannot be done as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// Two have one name, or one has none.
    #[error("replication.name {0:?}: each rule needs a name of its own, of letters, digits, `-` and `_`")]
    Name(String),
    /// Nowhere to go.
    #[error("replication {0}: `to` names no registry")]
    Nowhere(String),
    /// What is put in front is no beginning of a name.
    #[error("replication {name}: prefix {prefix:?} and a repository's name make no name of a repository")]
    Prefix {
        /// Which rule.
        name: String,
        /// What it says.
        prefix: String,
    },
    /// The target cannot be reached so.
    #[error("replication {name}: {source}")]
    Endpoint {
        /// Which rule.
        name: String,
        /// What is wrong.
        source: UpstreamError,
    },
    /// The credentials cannot be used.
    #[error("replication {name}: credentials: {source}")]
    Credentials {
        /// Which rule.
        name: String,
        /// What is wrong.
        source: CredentialsError,
    },
    /// The queue is not there.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Hosts {
    pub(super) fn all(&self) -> &[RegistryHost] {
        match self {
            Self::One(host) => std::slice::from_ref(host),
            Self::Several(hosts) => hosts,
        }
    }
}

impl ReplicationConfig {
    /// How a repository is called there, if it goes there.
    pub(super) fn rename(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let fits = |pattern: &Pattern| pattern.is_match(repository.as_str());
        if !self.repositories.is_empty() && !self.repositories.iter().any(fits) {
            return None;
        }
        let rest = repository.as_str().strip_prefix(&self.strip)?;
        // Too long with the prefix, or nothing without what was taken: it has no name there.
        RepositoryName::parse(&format!("{}{rest}", self.prefix)).ok()
    }

    /// Whether a tag of a repository that goes there does. Lists of referrers are the target's own, and are added to.
    pub(super) fn takes(&self, tag: &Tag) -> bool {
        let fits = |pattern: &Pattern| pattern.is_match(tag.as_str());
        !is_list_of_referrers(tag) && (self.tags.is_empty() || self.tags.iter().any(fits))
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { first: self.retry, longest: LONGEST_RETRY.max(self.retry), tries: self.tries }
    }

    fn check(&self) -> Result<(), ReplicationError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(is_name) {
            return Err(ReplicationError::Name(self.name.clone()));
        }
        if self.to.all().is_empty() {
            return Err(ReplicationError::Nowhere(self.name.clone()));
        }
        if RepositoryName::parse(&format!("{}a", self.prefix)).is_err() {
            return Err(ReplicationError::Prefix { name: self.name.clone(), prefix: self.prefix.clone() });
        }
        Ok(())
    }
}

/// Each can be used, and has a name of its own.
pub(super) fn check(configs: &[ReplicationConfig]) -> Result<(), ReplicationError> {
    let mut names = BTreeSet::new();
    for config in configs {
        config.check()?;
        if !names.insert(&config.name) {
            return Err(ReplicationError::Name(config.name.clone()));
        }
    }
    Ok(())
}

/// The tag of a digest: the list that clients keep where a registry lists no referrers.
pub(crate) fn is_list_of_referrers(tag: &Tag) -> bool {
    let Some((algorithm, hex)) = tag.as_str().split_once('-') else { return false };
    let digest = shoal_core::Digest::parse(&format!("{algorithm}:{hex}"));
    // That of a longer digest is cut.
    digest.is_ok_and(|digest| fallback_tag(&digest) == *tag) || (algorithm == "sha512" && hex.len() == 64)
}

/// A target that comes back hears of it soon enough.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

fn default_images() -> usize {
    2
}

fn default_blobs() -> usize {
    4
}

fn default_retry() -> Duration {
    Duration::from_secs(1)
}

fn default_tries() -> u32 {
    100
}

fn default_queue() -> usize {
    100_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ReplicationConfig {
        toml::from_str(&format!("name = \"west\"\nto = \"west.example\"\n{text}")).unwrap()
    }

    fn renamed(config: &ReplicationConfig, name: &str) -> Option<String> {
        Some(config.rename(&RepositoryName::parse(name).unwrap())?.to_string())
    }

    #[test]
    fn a_repository_has_its_own_name_there() {
        assert_eq!(renamed(&config(""), "a/b"), Some("a/b".into()));
        let rule = config("repositories = [\"team/**\"]\nstrip = \"team/\"\nprefix = \"mirror/\"");
        assert_eq!(renamed(&rule, "team/app"), Some("mirror/app".into()));
        assert_eq!(renamed(&rule, "team/app/part"), Some("mirror/app/part".into()));
        assert_eq!(renamed(&rule, "other/app"), None);
        assert_eq!(renamed(&config("strip = \"team\""), "team"), None);
        assert_eq!(renamed(&config("strip = \"x/\""), "team"), None);
    }

    #[test]
    fn tags_go_by_pattern_and_lists_of_referrers_never() {
        let tag = |text: &str| Tag::parse(text).unwrap();
        let rule = config("tags = [\"v*\"]");
        assert!(rule.takes(&tag("v1")) && !rule.takes(&tag("latest")));
        let list = format!("sha256-{}", "a".repeat(64));
        assert!(!config("").takes(&tag(&list)) && config("").takes(&tag(&format!("{list}.sig"))));
        assert!(!config("").takes(&tag(&format!("sha512-{}", "a".repeat(64)))));
        assert!(config("").takes(&tag("sha256-abc")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(matches!(config("prefix = \"A/\"").check(), Err(ReplicationError::Prefix { .. })));
        let nowhere = ReplicationConfig { to: Hosts::Several(vec![]), ..config("") };
        assert!(matches!(nowhere.check(), Err(ReplicationError::Nowhere(_))));
        assert!(matches!(check(&[config(""), config("")]), Err(ReplicationError::Name(_))));
        assert!(toml::from_str::<ReplicationConfig>("name = \"x\"\nto = \"http://x\"").is_err());
        assert!(toml::from_str::<ReplicationConfig>("name = \"x\"\nto = \"x\"\ntags = [\"a[\"]").is_err());
    }
}
