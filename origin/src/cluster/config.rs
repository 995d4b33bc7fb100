//! What an operator may set on an origin that is one of several.

use std::time::Duration;

use serde::Deserialize;

/// The origins that keep blobs together. The same on all of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The internal APIs of all origins, this one's `advertise_api` among them: `https://host:port`, 32 at most.
    pub origins: Vec<String>,
    /// How many origins have each blob. 2: one may be lost.
    #[serde(default = "default_replicas")]
    pub replicas: usize,
    /// How many of them must have it before a push is acknowledged, while fewer than `replicas` origins are well. As many as
    /// `replicas` unless set: less is a push that the loss of one origin may undo.
    #[serde(default)]
    pub min_replicas: Option<usize>,
    /// How often each of the others is asked whether it is there. 1 s: a probe costs nothing on a kept connection.
    #[serde(default = "default_probe_interval", with = "humantime_serde")]
    pub probe_interval: Duration,
    /// How long it may take to say so. 1 s: several round trips around the world.
    #[serde(default = "default_probe_timeout", with = "humantime_serde")]
    pub probe_timeout: Duration,
    /// After how many failures in a row an origin counts as away. 2: one may be a lost packet.
    #[serde(default = "default_failures_until_down")]
    pub failures_until_down: u32,
    /// After how many answers in a row it counts as back. 2, so that one that comes and goes is not relied on.
    #[serde(default = "default_successes_until_up")]
    pub successes_until_up: u32,
    /// How long another origin may take to answer, or to go on with a blob. 3 s: a link is a sync of its disk.
    #[serde(default = "default_request_timeout", with = "humantime_serde")]
    pub request_timeout: Duration,
    /// After how long without a further piece a copy is given up, and the next origin tried. 20 s: a disk that stalls longer
    /// is in trouble.
    #[serde(default = "default_stall_timeout", with = "humantime_serde")]
    pub stall_timeout: Duration,
    /// How often an origin compares its blobs with the others, beside each time that one of them comes or goes. 5 minutes: a
    /// question for every thousand blobs is little over that time.
    #[serde(default = "default_repair_interval", with = "humantime_serde")]
    pub repair_interval: Duration,
    /// How often it reads the links and tags of the others, beside each time that one of them comes or goes. 1 hour: it reads
    /// all of them, and until then whoever lacks one asks the others.
    #[serde(default = "default_metadata_interval", with = "humantime_serde")]
    pub metadata_interval: Duration,
    /// How many copies an origin gives to others at a time when it repairs. 2, to leave the disk to pushes and pulls; the rate
    /// is that of `transfer.egress.repair`.
    #[serde(default = "default_repairs_at_once")]
    pub repairs_at_once: usize,
    /// For how long an origin to which a blob does not belong keeps its copy, once those to which it belongs have theirs. 1 hour:
    /// what was just pushed is pulled by many, and one origin more gives it out.
    #[serde(default = "default_surplus_age", with = "humantime_serde")]
    pub surplus_age: Duration,
}

fn default_replicas() -> usize {
    2
}

fn default_probe_interval() -> Duration {
    Duration::from_secs(1)
}

fn default_probe_timeout() -> Duration {
    Duration::from_secs(1)
}

fn default_failures_until_down() -> u32 {
    2
}

fn default_successes_until_up() -> u32 {
    2
}

fn default_request_timeout() -> Duration {
    Duration::from_secs(3)
}

fn default_stall_timeout() -> Duration {
    Duration::from_secs(20)
}

fn default_repair_interval() -> Duration {
    Duration::from_secs(300)
}

fn default_metadata_interval() -> Duration {
    Duration::from_secs(3600)
}

fn default_repairs_at_once() -> usize {
    2
}

fn default_surplus_age() -> Duration {
    Duration::from_secs(3600)
}
