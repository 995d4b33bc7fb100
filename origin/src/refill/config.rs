//! What an operator may set on how blobs come from behind the cluster.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// How blobs come from the sources.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefillConfig {
    /// How many blobs this origin fetches at a time. 16: a few images' layers; each holds one piece (16 MiB at most) in memory.
    pub fetches_at_once: usize,
    /// How long a blob waits for its turn. 10 s: a client that is told 503 comes back, or turns to another mirror.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// How long a source may take to say whether it has a blob. 5 s.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Duration,
    /// How long a source may send nothing before it is asked anew, from where it stopped. 20 s.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
    /// How often in a row the sources may fail without a further piece before a fetch is given up. 6: with the pauses between
    /// them, which double from half a second, that is a quarter of a minute.
    pub attempts: u32,
    /// How long a source's word is believed that it does not have a blob, or how long it is. 10 s: what is pushed there is seen
    /// soon, and a fleet that asks for what is nowhere asks once.
    #[serde(with = "humantime_serde")]
    pub remember: Duration,
    /// How long a source is not asked for a blob of which it sent wrong bytes. 10 minutes.
    #[serde(with = "humantime_serde")]
    pub bar: Duration,
    /// The longest blob that is fetched: its room is taken before its first byte comes. 128 GiB.
    pub max_blob_size: ByteSize,
}

impl Default for RefillConfig {
    fn default() -> Self {
        Self {
            fetches_at_once: 16,
            queue_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(20),
            attempts: 6,
            remember: Duration::from_secs(10),
            bar: Duration::from_secs(600),
            max_blob_size: ByteSize::gib(128),
        }
    }
}
