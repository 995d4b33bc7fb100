//! Where a node's identity is, and how it comes by one.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Where a node's files are: `ca.pem`, `cert.pem`, `key.pem` in one directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory.
    pub directory: PathBuf,
    /// How a node that has no certificate, or one whose time is over, gets one. Default: not at all; it says so and ends.
    #[serde(default)]
    pub join: Option<JoinConfig>,
    /// Who renews the certificate. Default `tracker`.
    #[serde(default)]
    pub renewal: Renewal,
    /// How often the files are looked at, in case others replaced them. Default 10 s: a certificate from elsewhere is in use
    /// within that time, and four file times are read for it.
    #[serde(default = "reload_interval", with = "humantime_serde")]
    pub reload_interval: Duration,
}

/// How a node joins: by a token of `shoal ca token`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// The token itself; better in the environment, `SHOAL_IDENTITY__JOIN__TOKEN`, than in a file that many may read.
    #[serde(default)]
    pub token: Option<String>,
    /// A file that holds the token, and nothing else.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Where trackers enrol nodes: `https://host:15004` each; any of them will do.
    pub trackers: Vec<String>,
}

/// Who renews a node's certificate before its time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Renewal {
    /// The node asks a tracker, which must hold the authority's key.
    #[default]
    Tracker,
    /// Others do, who replace `cert.pem`: cert-manager, say.
    Outside,
}

impl Config {
    /// The defaults, with the files in that directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        let (join, renewal) = (None, Renewal::default());
        Self { directory: directory.into(), join, renewal, reload_interval: reload_interval() }
    }
}

/// Without the token.
impl fmt::Debug for JoinConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinConfig")
            .field("token_file", &self.token_file)
            .field("trackers", &self.trackers)
            .finish_non_exhaustive()
    }
}

fn reload_interval() -> Duration {
    Duration::from_secs(10)
}
