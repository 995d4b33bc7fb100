//! Orders to fetch an image before anybody pulls it: what origins publish at trackers, and agents hear of with their announces.
//!
//! A tracker chooses the agents, names an order to those in its answers to their announces, and knows by what they announce how
//! far they are. So there is no other channel, and nothing to be kept anywhere: an order has an end.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use shoal_core::{Digest, RepositoryName, Zone};

/// How many of the agents, in percent: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

/// A text is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share of agents: expected 1% to 100%")]
pub struct ShareError(String);

/// Which agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Selection {
    /// Those that stand there: a data centre with all its racks, or a rack. Empty: anywhere.
    #[serde(default)]
    pub zone: Zone,
    /// How many of those, rounded up.
    #[serde(default)]
    pub share: Share,
}

/// "Have those agents fetch these blobs." `POST` to a tracker by an origin, for a [`PrefetchTaken`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrefetchOrder {
    /// Its name: drawn by chance.
    pub id: u64,
    /// What people call it.
    pub image: String,
    /// The blobs must be linked there.
    pub repository: RepositoryName,
    /// What is fetched: manifests, configurations, layers.
    pub blobs: Vec<PrefetchBlob>,
    /// By whom.
    #[serde(flatten)]
    pub selection: Selection,
    /// How long it holds, in milliseconds; 0: it is withdrawn.
    pub ttl_ms: u64,
}

/// One blob of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrefetchBlob {
    /// Which.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The order is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrefetchTaken {
    /// How many agents it is for.
    pub agents: u64,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrefetchState {
    /// What was ordered; `ttl_ms` is what is left.
    pub order: PrefetchOrder,
    /// How many agents it is for now. Agents are not told.
    #[serde(default)]
    pub agents: u64,
    /// How many of them have all of each blob, in the order of the blobs, as far as the tracker was told: a blob belongs to some
    /// trackers. Agents are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<u64>,
}

/// The orders that a tracker has: an agent gets those that are for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrefetchReply {
    /// All of them.
    pub orders: Vec<PrefetchState>,
}

impl PrefetchOrder {
    /// The most orders at a time: each is named with every announce.
    pub const MAX_ORDERS: usize = 64;
    /// The most blobs of one: an image for ten platforms has some hundred.
    pub const MAX_BLOBS: usize = 512;
    /// The longest time an order holds, in milliseconds: a day.
    pub const MAX_TTL_MS: u64 = 24 * 3600 * 1000;
    /// The longest name for people, in bytes.
    pub const MAX_IMAGE_LENGTH: usize = 512;
    /// The longest body: `MAX_BLOBS` of the longest digests (180 bytes each), and names.
    pub const MAX_LENGTH: usize = 128 << 10;
}

impl PrefetchReply {
    /// The longest body: `MAX_ORDERS` of the longest.
    pub const MAX_LENGTH: usize = PrefetchOrder::MAX_ORDERS * (PrefetchOrder::MAX_LENGTH + (16 << 10));
}

impl PrefetchState {
    /// Bytes that are there and that are to be, of all agents together.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |counts: &mut dyn Iterator<Item = (u64, u64)>| {
            counts.fold(0u64, |sum, (size, agents)| sum.saturating_add(size.saturating_mul(agents)))
        };
        let sizes = || self.order.blobs.iter().map(|blob| blob.size);
        let whole = self.whole.iter().map(|&agents| agents.min(self.agents));
        (sum(&mut sizes().zip(whole)), sum(&mut sizes().map(|size| (size, self.agents))))
    }

    /// Whether all agents have all of it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.agents > 0
            && self.whole.len() == self.order.blobs.len()
            && self.whole.iter().all(|&agents| agents >= self.agents)
    }

    /// What two trackers know together.
    fn join(&mut self, other: Self) {
        self.agents = self.agents.max(other.agents);
        self.order.ttl_ms = self.order.ttl_ms.max(other.order.ttl_ms);
        if self.whole.len() < other.whole.len() {
            self.whole.resize(other.whole.len(), 0);
        }
        for (known, other) in self.whole.iter_mut().zip(other.whole) {
            *known = other.max(*known);
        }
    }
}

/// What all trackers know together, by the orders' ids.
pub(crate) fn joined(replies: impl IntoIterator<Item = PrefetchReply>) -> Vec<PrefetchState> {
    let mut all: BTreeMap<u64, PrefetchState> = BTreeMap::new();
    for state in replies.into_iter().flat_map(|reply| reply.orders) {
        match all.get_mut(&state.order.id) {
            Some(known) => known.join(state),
            None => drop(all.insert(state.order.id, state)),
        }
    }
    all.into_values().collect()
}

impl Selection {
    /// Whether an agent that stands there may be one of them.
    #[must_use]
    pub fn has(&self, zone: &Zone) -> bool {
        let Some(rest) = zone.0.strip_prefix(&self.zone.0) else { return false };
        self.zone.0.is_empty() || rest.is_empty() || rest.starts_with('/')
    }
}

impl Share {
    /// All.
    pub const ALL: Self = Self(100);

    /// How many of so many, rounded up.
    #[must_use]
    pub fn of(self, count: usize) -> usize {
        if self == Self::ALL { count } else { count.saturating_mul(usize::from(self.0)).div_ceil(100) }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
        let number = number.filter(|number| (1..=100).contains(number));
        number.map(Self).ok_or_else(|| ShareError(text.chars().take(20).collect()))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::Algorithm;

    use super::*;

    fn order(id: u64, blobs: usize) -> PrefetchOrder {
        let digest = |number: usize| Digest::of(Algorithm::Sha512, &number.to_be_bytes());
        PrefetchOrder {
            id,
            image: "x".repeat(PrefetchOrder::MAX_IMAGE_LENGTH),
            repository: RepositoryName::parse(&["a"; 128].join("/")).unwrap(),
            blobs: (0..blobs).map(|number| PrefetchBlob { digest: digest(number), size: u64::MAX }).collect(),
            selection: Selection { zone: Zone("z".repeat(64)), share: Share::ALL },
            ttl_ms: u64::MAX,
        }
    }

    #[test]
    fn the_longest_order_fits() {
        let longest = order(u64::MAX, PrefetchOrder::MAX_BLOBS);
        assert!(serde_json::to_vec(&longest).unwrap().len() < PrefetchOrder::MAX_LENGTH);
        let whole = vec![u64::MAX; PrefetchOrder::MAX_BLOBS];
        let state = PrefetchState { order: longest, agents: u64::MAX, whole };
        let longest = serde_json::to_vec(&state).unwrap().len() * PrefetchOrder::MAX_ORDERS;
        assert!(longest < PrefetchReply::MAX_LENGTH);
    }

    #[test]
    fn a_share_is_of_percent_and_rounded_up() {
        let share = |text: &str| text.parse::<Share>();
        assert_eq!([0, 1, 3, 4].map(|count| share("50%").unwrap().of(count)), [0, 1, 2, 2]);
        assert_eq!((share("100%").unwrap().of(7), share("1%").unwrap().of(7)), (7, 1));
        for bad in ["0%", "101%", "50", "%", "-1%", "1.5%", ""] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_zone_has_its_racks() {
        let has = |wanted: &str, zone: &str| {
            Selection { zone: Zone(wanted.into()), share: Share::ALL }.has(&Zone(zone.into()))
        };
        assert!(has("", "") && has("", "berlin/a") && has("berlin", "berlin") && has("berlin", "berlin/a"));
        assert!(!has("berlin", "berlin-2") && !has("berlin/a", "berlin") && !has("berlin", ""));
    }

    #[test]
    fn two_trackers_know_more_than_one() {
        let state = |id, agents, whole: &[u64]| PrefetchState {
            order: PrefetchOrder { ttl_ms: 5, ..order(id, 2) },
            agents,
            whole: whole.to_vec(),
        };
        let one = PrefetchReply { orders: vec![state(1, 3, &[3, 0]), state(2, 1, &[0, 0])] };
        let other = PrefetchReply { orders: vec![state(1, 2, &[1, 3])] };
        let all = joined([one, other]);
        assert_eq!(all, [state(1, 3, &[3, 3]), state(2, 1, &[0, 0])]);
        assert!(all[0].is_complete() && !all[1].is_complete());
        assert!(!state(3, 0, &[0, 0]).is_complete(), "nobody has it");
    }

    #[test]
    fn bytes_are_those_of_all_agents() {
        let mut order = order(1, 2);
        (order.blobs[0].size, order.blobs[1].size) = (10, 5);
        let state = PrefetchState { order, agents: 2, whole: vec![3, 1] };
        assert_eq!(state.bytes(), (25, 30), "one that has it and is chosen no more does not count");
    }
}
