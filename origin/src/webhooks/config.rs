//! What an operator sets of a webhook.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use shoal_registry::event::{Action, Event};

use crate::queue::{Backoff, JournalError};

/// An address that is told what happens: `[[webhook]]` of `config/origin.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name in logs, metrics and the queue: renamed, it begins with an empty queue.
    pub name: String,
    /// Where events are posted, `http://` or `https://`.
    pub url: String,
    /// Headers of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A file whose content is the `Authorization` header; read again for each request.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// An authority (PEM) that is trusted beside those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Which actions: `push`, `mount`, `pull`, `delete`. Every pull of every host is an event: they are left out unless asked for.
    #[serde(default = "default_actions")]
    pub actions: BTreeSet<String>,
    /// Which repositories, as patterns (`team/*`); all by default.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Whether blobs are events too, or manifests alone.
    #[serde(default)]
    pub blobs: bool,
    /// How long a request may take.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// How long it waits after the first failure; doubled after each, up to five minutes.
    #[serde(default = "default_retry", with = "humantime_serde")]
    pub retry: Duration,
    /// After how many tries an event is given up, and the next is posted. 0: never. 100 tries are eight hours.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// How many events may wait, those that were given up included; more are lost.
    #[serde(default = "default_queue")]
    pub queue: usize,
}

/// A webhook cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Two have one name, or one has none.
    #[error("webhook.name {0:?}: each webhook needs a name of its own, of letters, digits, `-` and `_`")]
    Name(String),
    /// It is no address.
    #[error("webhook {name}: url is not an http:// or https:// address")]
    Url {
        /// Which webhook.
        name: String,
    },
    /// There is no such action.
    #[error("webhook {name}: there is no action {action:?}: push, mount, pull, delete")]
    Action {
        /// Which webhook.
        name: String,
        /// What it names.
        action: String,
    },
    /// A pattern cannot be read.
    #[error("webhook {name}: repositories: {source}")]
    Pattern {
        /// Which webhook.
        name: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A header cannot be sent.
    #[error("webhook {name}: the header {header:?} cannot be sent")]
    Header {
        /// Which webhook.
        name: String,
        /// Its name; its value may be a secret.
        header: String,
    },
    /// Its authority cannot be used.
    #[error("webhook {name}: ca {path}: {reason}")]
    Authority {
        /// Which webhook.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client of it cannot be made.
    #[error("webhook {name}: {source}")]
    Client {
        /// Which webhook.
        name: String,
        /// What the library said.
        source: reqwest::Error,
    },
    /// The queue is not there.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Which events a webhook gets.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    actions: BTreeSet<String>,
    /// Nothing: all.
    repositories: Option<GlobSet>,
    blobs: bool,
}

impl Rule {
    pub(super) fn wants_action(&self, action: &Action) -> bool {
        self.actions.contains(name_of(action))
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        let is_blob = event.target.as_ref().is_some_and(|target| !target.is_manifest);
        let matches = |repositories: &GlobSet| repositories.is_match(event.repository.as_str());
        self.wants_action(&event.action)
            && (self.blobs || !is_blob)
            && self.repositories.as_ref().is_none_or(matches)
    }
}

impl WebhookConfig {
    pub(super) fn rule(&self) -> Result<Rule, WebhookError> {
        if let Some(action) = self.actions.iter().find(|action| !ACTIONS.contains(&action.as_str())) {
            return Err(WebhookError::Action { name: self.name.clone(), action: action.clone() });
        }
        let pattern = |source| WebhookError::Pattern { name: self.name.clone(), source };
        let mut repositories = GlobSetBuilder::new();
        for repository in &self.repositories {
            let glob = GlobBuilder::new(repository).literal_separator(true).build();
            repositories.add(glob.map_err(pattern)?);
        }
        let repositories = match self.repositories.is_empty() {
            true => None,
            false => Some(repositories.build().map_err(pattern)?),
        };
        Ok(Rule { actions: self.actions.clone(), repositories, blobs: self.blobs })
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { first: self.retry, longest: LONGEST_RETRY.max(self.retry), tries: self.tries }
    }
}

/// Each has a name, and its own.
pub(super) fn check_names(configs: &[WebhookConfig]) -> Result<(), WebhookError> {
    let mut names = BTreeSet::new();
    for WebhookConfig { name, .. } in configs {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) || !names.insert(name) {
            return Err(WebhookError::Name(name.clone()));
        }
    }
    Ok(())
}

/// As the envelope calls it.
pub(super) fn name_of(action: &Action) -> &'static str {
    match action {
        Action::Push => "push",
        Action::Mount { .. } => "mount",
        Action::Pull => "pull",
        Action::Delete => "delete",
    }
}

const ACTIONS: [&str; 4] = ["push", "mount", "pull", "delete"];

/// A receiver that comes back hears of it soon enough.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

fn default_actions() -> BTreeSet<String> {
    ["push", "mount", "delete"].map(str::to_owned).into()
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_retry() -> Duration {
    Duration::from_secs(1)
}

fn default_tries() -> u32 {
    100
}

fn default_queue() -> usize {
    10_000
}

#[cfg(test)]
mod tests {
    use shoal_core::{Digest, RepositoryName};
    use shoal_registry::event::{Client, Target};

    use super::*;

    fn config(text: &str) -> WebhookConfig {
        toml::from_str(&format!("name = \"ci\"\nurl = \"http://127.0.0.1/\"\n{text}")).unwrap()
    }

    fn event(action: Action, repository: &str, is_manifest: bool) -> Event {
        let (digest, path) = (Digest::sha256(b""), String::new());
        let target = Some(Target { digest, content: None, path, is_manifest });
        let repository = RepositoryName::parse(repository).unwrap();
        Event { action, repository, tag: None, target, client: Client::default() }
    }

    #[test]
    fn a_rule_takes_what_it_names() {
        let rule = config("repositories = [\"team/*\", \"base\"]").rule().unwrap();
        let pushed = |repository, is_manifest| rule.wants(&event(Action::Push, repository, is_manifest));
        assert!(pushed("team/app", true) && pushed("base", true));
        assert!(!pushed("team/app/part", true) && !pushed("other", true), "`*` is one part of a name");
        assert!(!pushed("team/app", false), "blobs are left out unless asked for");
        assert!(!rule.wants(&event(Action::Pull, "base", true)));
        let rule = config("actions = [\"pull\"]\nblobs = true").rule().unwrap();
        assert!(rule.wants(&event(Action::Pull, "any/thing", false)));
        assert!(!rule.wants_action(&Action::Push));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = config("actions = [\"explode\"]").rule().unwrap_err().to_string();
        assert!(error.contains("ci") && error.contains("explode"), "{error}");
        assert!(config("repositories = [\"a[\"]").rule().is_err());
        let twice = [config(""), config("")];
        assert!(matches!(check_names(&twice), Err(WebhookError::Name(_))));
    }
}
