//! What an operator can set of maintenance.

use std::time::Duration;

use bytesize::ByteSize;

use super::{GarbagePolicy, PurgePolicy};

/// What is done to a registry in the background, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceConfig {
    /// Removal of abandoned upload sessions.
    pub uploads: PurgeConfig,
    /// Removal of what no manifest names.
    pub garbage: GarbageConfig,
    /// Re-hashing of everything.
    pub scrub: ScrubConfig,
}

/// Settings of the upload purge.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeConfig {
    /// On: what is removed is a half upload that no client was told to have pushed.
    pub enabled: bool,
    /// From one run to the next. 24 hours.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Sessions started longer ago go. 168 hours: a push over the slowest line, taken up again after a weekend.
    #[serde(with = "humantime_serde")]
    pub age: Duration,
    /// Only says in the log what would go.
    pub dry_run: bool,
}

/// Settings of the garbage collection.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GarbageConfig {
    /// Off: what nothing names is deleted for good, and an operator should have seen a dry run first. Turn it on before the
    /// disk is full; leave it off where blobs are kept for their own sake, without a manifest.
    pub enabled: bool,
    /// From one run to the next. 24 hours.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Nothing younger goes. 7 days: as long as an upload session may live, so no layer goes before its manifest can
    /// come. Shorter than `uploads.age` is asking for failed pushes.
    #[serde(with = "humantime_serde")]
    pub min_age: Duration,
    /// Whether manifests without a tag go too. Off: who deploys by digest needs no tag.
    pub delete_untagged: bool,
    /// Only says in the log how much would go.
    pub dry_run: bool,
}

/// Settings of the scrub.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubConfig {
    /// Off: it reads the whole disk, and every pull verifies what it moves anyway.
    pub enabled: bool,
    /// From one run to the next. 30 days.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How much is read in a second. 16 MiB: a tenth of a slow disk, and 40 TiB in an interval.
    pub bytes_per_second: ByteSize,
}

impl Default for PurgeConfig {
    fn default() -> Self {
        Self { enabled: true, interval: DAY, age: 7 * DAY, dry_run: false }
    }
}

impl Default for GarbageConfig {
    fn default() -> Self {
        Self { enabled: false, interval: DAY, min_age: 7 * DAY, delete_untagged: false, dry_run: false }
    }
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { enabled: false, interval: 30 * DAY, bytes_per_second: ByteSize::mib(16) }
    }
}

impl PurgeConfig {
    /// What a run of it removes.
    #[must_use]
    pub fn policy(&self) -> PurgePolicy {
        PurgePolicy { age: self.age, dry_run: self.dry_run }
    }
}

impl GarbageConfig {
    /// What a run of it removes.
    #[must_use]
    pub fn policy(&self) -> GarbagePolicy {
        let Self { min_age, delete_untagged, dry_run, .. } = *self;
        GarbagePolicy { min_age, delete_untagged, dry_run }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
