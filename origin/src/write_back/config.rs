//! What an operator may set on how things get to the backends.

use std::time::Duration;

use serde::Deserialize;

/// How what was pushed gets to the backends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriteBackConfig {
    /// How many blobs, links and tags are written at a time. 4: each has 24 MiB in memory at most (blobs of more than 70 GiB: more),
    /// and pushes are to have most of the link.
    pub uploads_at_once: usize,
    /// How long a backend may take for one request, or for one part of a blob (8 MiB), or send nothing. 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a job waits after its first failure; doubled after each. 1 s.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// The longest it waits. 1 minute: so long after a backend came back everything is on its way.
    #[serde(with = "humantime_serde")]
    pub longest_retry: Duration,
    /// After how many tries a job is given up and waits for `shoal retry`. 0: never. 4320: three days without the backend, over a
    /// weekend.
    pub tries: u32,
    /// After how long the next origin in a blob's order looks whether the one before it has written it. 30 s: later than an
    /// origin is known to be away.
    #[serde(with = "humantime_serde")]
    pub takeover: Duration,
    /// How many jobs may wait, those that were given up included; with more pushes are answered 503. 250,000: some thousand
    /// images, about 100 MiB of memory.
    pub queue: usize,
}

impl Default for WriteBackConfig {
    fn default() -> Self {
        Self {
            uploads_at_once: 4,
            timeout: Duration::from_secs(30),
            retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            tries: 4320,
            takeover: Duration::from_secs(30),
            queue: 250_000,
        }
    }
}
