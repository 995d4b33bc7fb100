//! What an operator sets of preheat.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use shoal_control::prefetch::{Selection, Share};
use shoal_core::{Reference, RepositoryName, Zone};
use shoal_registry::Pattern;
use shoal_upstream::Platform;

use super::Wish;

/// What agents are to fetch as soon as it is pushed: `[[preheat]]` of `config/origin.toml`. The first rule that fits a tag counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreheatConfig {
    /// Which repositories, as patterns (`team/**`); all by default.
    #[serde(default)]
    pub repositories: Vec<Pattern>,
    /// Which tags, as patterns (`v*`); all by default.
    #[serde(default)]
    pub tags: Vec<Pattern>,
    /// The agents of that data centre or rack; all by default.
    #[serde(default)]
    pub zone: Zone,
    /// How many of those.
    #[serde(default)]
    pub share: Share,
    /// The image for that platform (`linux/amd64`); the images for all by default.
    #[serde(default, deserialize_with = "platform")]
    pub platform: Option<Platform>,
    /// How long agents are told, and how far they are is known; a day at most.
    #[serde(default = "default_ttl", with = "humantime_serde")]
    pub ttl: Duration,
}

/// Where other registries say what was pushed to them: `[notifications]` of `config/origin.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotificationsConfig {
    /// Where `POST /registry/notifications` is, plain HTTP. Loopback unless something in front of it speaks TLS.
    pub listen: SocketAddr,
    /// A file whose content the `Authorization` header must be; read for each request. Without it whoever reaches the port may
    /// have agents fetch what the rules name.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// What is put in front of a repository's name: how images of that registry are called here.
    #[serde(default)]
    pub prefix: String,
}

impl PreheatConfig {
    pub(super) fn takes(&self, repository: &RepositoryName, reference: &Reference) -> bool {
        let fits = |patterns: &[Pattern], name: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_match(name))
        };
        let tag_fits = match reference {
            Reference::Tag(tag) => fits(&self.tags, tag.as_str()),
            Reference::Digest(_) => self.tags.is_empty(),
        };
        tag_fits && fits(&self.repositories, repository.as_str())
    }

    pub(super) fn wish(&self) -> Wish {
        let selection = Selection { zone: self.zone.clone(), share: self.share };
        Wish { selection, platform: self.platform.clone(), ttl: self.ttl }
    }
}

fn platform<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platform>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn default_ttl() -> Duration {
    Duration::from_secs(3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_takes_what_it_names() {
        let rule: PreheatConfig = toml::from_str(
            "repositories = [\"team/**\"]\ntags = [\"v*\"]\nshare = \"50%\"\nzone = \"berlin\"\nplatform = \"linux/arm64\"",
        )
        .unwrap();
        let takes = |repository: &str, reference: &str| {
            rule.takes(&RepositoryName::parse(repository).unwrap(), &Reference::parse(reference).unwrap())
        };
        assert!(takes("team/app", "v1") && !takes("team/app", "latest") && !takes("app", "v1"));
        assert!(!takes("team/app", &shoal_core::Digest::sha256(b"").to_string()), "it has no tag");
        let wish = rule.wish();
        assert_eq!(
            (wish.selection.share.to_string(), wish.selection.zone.0),
            ("50%".into(), "berlin".into())
        );
        assert_eq!(wish.platform.unwrap().to_string(), "linux/arm64");
        for bad in ["share = \"0%\"", "share = 50", "platform = \"x\"", "tags = [\"[\"]", "unknown = 1"] {
            assert!(toml::from_str::<PreheatConfig>(bad).is_err(), "{bad}");
        }
    }
}
