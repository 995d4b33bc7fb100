//! What is rehearsed.

use std::time::Duration;

use shoal_core::{Geometry, GeometryError};
use shoal_tracker::handout::Policy;

use crate::fault::Fault;

/// A cluster, what it is to do, and what goes wrong meanwhile.
///
/// The model: each host has a pipe out and a pipe in, of a fixed rate each. A host's uploads share its pipe out frame by
/// frame, by turns, each with at most a window of bytes under way, so that one slow receiver does not hold up the
/// others. A frame cuts through: it enters the receiver's pipe as it leaves the sender's, half a round trip later,
/// behind what came before it; between zones it passes both zones' trunks too. A piece that is whole is checked and
/// written, one after the other, and only then counts. Messages take half a round trip and no bandwidth (they are
/// less than a thousandth of it). A new connection takes three round trips and the time of the handshake's
/// cryptography. A tracker takes one request after the other on each of its processors. Not modelled: packet loss, congestion control,
/// processors that are busy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Agents that pull everything.
    pub hosts: u32,
    /// Origins, which have everything; they are spread over the zones.
    pub origins: u32,
    /// The blobs' lengths in bytes. Each host asks for all of them at its start.
    pub blobs: Vec<u64>,
    /// Each host's link in bytes a second, in each direction.
    pub host_rate: u64,
    /// Each origin's, likewise.
    pub origin_rate: u64,
    /// Zones, among which hosts are dealt out evenly.
    pub zones: u32,
    /// What a zone can exchange with the others, in bytes a second and direction. No limit if it is `None`.
    pub trunk_rate: Option<u64>,
    /// Round trip within a zone, and to the tracker.
    pub round_trip: Duration,
    /// Round trip between zones.
    pub far_round_trip: Duration,
    /// Hosts start at random within that time, the first at once.
    pub start_within: Duration,
    /// When one more host starts.
    pub late_joiner: Option<Duration>,
    /// Whether a container runtime reads each blob from its beginning while it arrives.
    pub readers: bool,
    /// How fast a host checks and writes pieces, in bytes a second. Default 1.5 GB/s: BLAKE3, and a write to the page
    /// cache, on one processor.
    pub store_rate: u64,
    /// Processor time that the tracker takes for a request. Default 0.3 ms: what `tests/bench/tracker` measures of a busy one.
    pub tracker_service: Duration,
    /// Processors of the tracker: as many requests are answered at once. Default 4.
    pub tracker_processors: u32,
    /// Processor time of a handshake. Default 1 ms.
    pub handshake: Duration,
    /// How long a host takes to notice that a silent one is gone, and how long a dial to it takes. Default 5 s.
    pub silence: Duration,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Of all chance.
    pub seed: u64,
    /// When the run is ended whatever is missing, in virtual time.
    pub limit: Duration,
    /// The engine's, of all hosts.
    pub engine: shoal_swarm::Config,
    /// The tracker's.
    pub policy: Policy,
}

/// A scenario that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// A number that must not be 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// More than the simulator is made for.
    #[error("{what} must be at most {max}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many are allowed.
        max: u32,
    },
    /// A blob that cannot be cut.
    #[error("a blob of {length} bytes cannot be cut into pieces")]
    Blob {
        /// Its length.
        length: u64,
        /// Why not.
        source: GeometryError,
    },
    /// A fault in a zone that there is not.
    #[error("there is no zone {0}: zones count from 0")]
    Zone(u32),
}

impl Scenario {
    /// More hosts than any cluster known.
    pub const MAX_HOSTS: u32 = 100_000;
    /// As many origins.
    pub const MAX_ORIGINS: u32 = 1_000;
    /// As many blobs as an image has layers at most.
    pub const MAX_BLOBS: usize = 128;
    /// As many as a large host has.
    pub const MAX_PROCESSORS: u32 = 1_024;
    /// As many zones as a byte counts.
    pub const MAX_ZONES: u32 = 255;

    /// Whether it can be run.
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        let rates = [("the rate of a host", self.host_rate), ("the rate of an origin", self.origin_rate)];
        let rates = rates.into_iter().chain([("the store's rate", self.store_rate)]);
        let counts = [
            ("hosts", self.hosts),
            ("origins", self.origins),
            ("zones", self.zones),
            ("the processors of the tracker", self.tracker_processors),
        ];
        for (what, value) in counts.map(|(what, count)| (what, u64::from(count))).into_iter().chain(rates) {
            if value == 0 {
                return Err(ScenarioError::Zero(what));
            }
        }
        if self.trunk_rate == Some(0) {
            return Err(ScenarioError::Zero("the rate between zones"));
        }
        if self.blobs.is_empty() || self.blobs.contains(&0) {
            return Err(ScenarioError::Zero("the length of a blob"));
        }
        let blobs = u32::try_from(self.blobs.len()).unwrap_or(u32::MAX);
        let limits = [
            ("hosts", self.hosts, Self::MAX_HOSTS),
            ("origins", self.origins, Self::MAX_ORIGINS),
            ("zones", self.zones, Self::MAX_ZONES),
            ("the processors of the tracker", self.tracker_processors, Self::MAX_PROCESSORS),
            ("blobs", blobs, Self::MAX_BLOBS as u32),
        ];
        if let Some(&(what, _, max)) = limits.iter().find(|(_, count, max)| count > max) {
            return Err(ScenarioError::TooMany { what, max });
        }
        for &length in &self.blobs {
            Geometry::for_blob(length).map_err(|source| ScenarioError::Blob { length, source })?;
        }
        self.faults.iter().try_for_each(|fault| match fault {
            Fault::Cut { zone, .. } if *zone >= self.zones => Err(ScenarioError::Zone(*zone)),
            _ => Ok(()),
        })
    }

    /// How long a host's link alone takes for all blobs: nobody can be faster.
    #[must_use]
    pub fn bound(&self) -> Duration {
        let bytes: u64 = self.blobs.iter().sum();
        // What the origins give out first, together, bounds everybody too.
        let supply = self.origin_rate.saturating_mul(u64::from(self.origins));
        let rate = self.host_rate.min(supply).max(1);
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        )
    }
}

impl Default for Scenario {
    /// Kraken's published case: 2,600 hosts pull 3 GB in two layers over links of 300 MB/s, from 5 origins.
    fn default() -> Self {
        Self {
            hosts: 2600,
            origins: 5,
            blobs: vec![1_500_000_000; 2],
            host_rate: 300_000_000,
            origin_rate: 300_000_000,
            zones: 1,
            trunk_rate: None,
            round_trip: Duration::from_micros(500),
            far_round_trip: Duration::from_millis(2),
            start_within: Duration::from_secs(1),
            late_joiner: None,
            readers: true,
            store_rate: 1_500_000_000,
            tracker_service: Duration::from_micros(300),
            tracker_processors: 4,
            handshake: Duration::from_millis(1),
            silence: Duration::from_secs(5),
            faults: Vec::new(),
            seed: 1,
            limit: Duration::from_secs(3600),
            engine: shoal_swarm::Config::default(),
            policy: Policy::default(),
        }
    }
}
