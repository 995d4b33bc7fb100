//! What an operator may set on what an origin gives up.

use std::time::Duration;

use serde::Deserialize;
use shoal_store::{Percent, Room};

/// When blobs are given up that a backend has. Its presence turns it on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvictionConfig {
    /// How many bytes of blobs there may be: `"2TiB"`, or a share of the file system. 80 %. It is no wall: what is not at a
    /// backend yet stays, and pushes go on until `min_free` of the origin.
    pub capacity: Room,
    /// The share of the capacity above which blobs are given up. 95 %.
    pub high_watermark: Percent,
    /// The share of the capacity at which that ends. 90 %.
    pub low_watermark: Percent,
    /// How much of the file system is kept free by it, whatever the capacity. 10 %: more than the `min_free` below which pushes
    /// are refused.
    pub min_free: Room,
    /// What was used more recently stays. 10 minutes: a push is pulled soon after it.
    #[serde(with = "humantime_serde")]
    pub min_idle: Duration,
    /// How often it is looked. 30 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for EvictionConfig {
    fn default() -> Self {
        Self {
            capacity: Room::Share(EIGHTY),
            high_watermark: NINETY_FIVE,
            low_watermark: NINETY,
            min_free: Room::Share(TEN),
            min_idle: Duration::from_secs(600),
            interval: Duration::from_secs(30),
        }
    }
}

const TEN: Percent = Percent::new(10).expect("a share");
const EIGHTY: Percent = Percent::new(80).expect("a share");
const NINETY: Percent = Percent::new(90).expect("a share");
const NINETY_FIVE: Percent = Percent::new(95).expect("a share");
