//! Which of the configured trackers a blob belongs to, by rendezvous hashing (Thaler and Ravishankar, 1998).
//!
//! Pure, and the same on every node that has the same trackers in its configuration, in whatever order they are listed there: each
//! tracker has a score for each blob, and the highest ones own it. When a tracker goes, only its blobs move; when it comes
//! back, only they come back.

use shoal_core::{Digest, PeerId};

use crate::server_url::ServerUrl;

/// How many trackers are told of a blob: one may be lost, and until nodes have noticed and told another, the second knows.
pub(crate) const OWNERS: usize = 2;
/// The most trackers that may be configured: each costs every node a heartbeat an interval.
pub const MAX_TRACKERS: usize = 32;

/// Some of the configured trackers, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places(u32);

/// The scores of the configured trackers.
#[derive(Clone, Debug)]
pub(crate) struct Rendezvous {
    /// What a tracker's scores are made of: the hash of its URL.
    seeds: Box<[u64]>,
}

impl Places {
    pub(crate) const NONE: Self = Self(0);

    /// The first `count` places.
    pub(crate) fn first(count: usize) -> Self {
        (0..count).collect()
    }

    pub(crate) fn contains(self, place: usize) -> bool {
        place < MAX_TRACKERS && self.0 & (1 << place) != 0
    }

    pub(crate) fn with(self, place: usize) -> Self {
        Self(self.0 | (1 << place))
    }

    /// The same, with that place too if it is `wanted`.
    pub(crate) fn with_if(self, place: usize, wanted: bool) -> Self {
        if wanted { self.with(place) } else { self }
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        places.into_iter().fold(Self::NONE, Self::with)
    }
}

impl Rendezvous {
    pub(crate) fn new<'a>(urls: impl IntoIterator<Item = &'a ServerUrl>) -> Self {
        let seeds = urls.into_iter().map(|url| head(Digest::sha256(url.as_str().as_bytes()).as_bytes()));
        Self { seeds: seeds.collect() }
    }

    /// How many trackers there are.
    pub(crate) fn len(&self) -> usize {
        self.seeds.len()
    }

    /// All trackers, the one to which the blob belongs first.
    pub(crate) fn order(&self, digest: &Digest) -> Vec<usize> {
        self.sorted(head(digest.as_bytes()))
    }

    /// All trackers as a node prefers them where any will do: nodes spread over them evenly, and each comes back to its own.
    pub(crate) fn homes(&self, node: &PeerId) -> Vec<usize> {
        self.sorted(head(node.public_key()))
    }

    /// To whom the blob belongs while only `live` ones count: [`OWNERS`] of them, or as many as there are.
    pub(crate) fn owners(&self, digest: &Digest, live: Places) -> Places {
        let key = head(digest.as_bytes());
        let mut owners = Places::NONE;
        for _ in 0..OWNERS {
            let left = (0..self.seeds.len()).filter(|&place| live.without(owners).contains(place));
            if let Some(next) = left.max_by_key(|&place| self.score(place, key)) {
                owners = owners.with(next);
            }
        }
        owners
    }

    fn sorted(&self, key: u64) -> Vec<usize> {
        let mut places: Vec<_> = (0..self.seeds.len()).collect();
        places.sort_by_key(|&place| std::cmp::Reverse(self.score(place, key)));
        places
    }

    /// Scores of one blob differ: the mixing has an inverse, and no URL is there twice.
    fn score(&self, place: usize, key: u64) -> u64 {
        mix(self.seeds[place] ^ mix(key))
    }
}

/// The beginning of bytes that are random all over, as digests and keys are.
fn head(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(head)
}

/// The finisher of splitmix64 (Steele, Lea and Flood, 2014): each bit of the input reaches every bit of the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urls(count: usize) -> Vec<ServerUrl> {
        (0..count)
            .map(|number| ServerUrl::parse(&format!("https://tracker-{number}:15003")).unwrap())
            .collect()
    }

    fn digest(number: u32) -> Digest {
        Digest::sha256(&number.to_le_bytes())
    }

    #[test]
    fn trackers_own_about_the_same_number_of_blobs() {
        for count in [3, 5, 8] {
            let rendezvous = Rendezvous::new(&urls(count));
            let mut owned = vec![0u32; count];
            let blobs = 20_000;
            for number in 0..blobs {
                let owners = rendezvous.owners(&digest(number), Places::first(count));
                (0..count).filter(|&place| owners.contains(place)).for_each(|place| owned[place] += 1);
            }
            let fair = blobs * OWNERS as u32 / count as u32;
            assert!(owned.iter().all(|&owned| owned.abs_diff(fair) < fair / 20), "{owned:?}, fair is {fair}");
        }
    }

    #[test]
    fn nodes_spread_over_the_trackers() {
        let rendezvous = Rendezvous::new(&urls(4));
        let mut nodes = [0u32; 4];
        for number in 0..4_000u32 {
            let mut key = [0; 32];
            key.copy_from_slice(digest(number).as_bytes());
            nodes[rendezvous.homes(&PeerId::from_public_key(key))[0]] += 1;
        }
        assert!(nodes.iter().all(|&nodes| (850..1150).contains(&nodes)), "{nodes:?}");
    }

    proptest! {
        #[test]
        fn who_owns_a_blob_does_not_depend_on_the_order_of_the_list(
            shuffled in Just(urls(7)).prop_shuffle(), number: u32
        ) {
            let (listed, digest) = (urls(7), digest(number));
            let named = |urls: &[ServerUrl]| {
                let order = Rendezvous::new(urls).order(&digest);
                order.into_iter().map(|place| urls[place].clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(named(&shuffled), named(&listed));
        }

        #[test]
        fn owners_are_the_first_live_ones_of_the_order(count in 1usize..9, live: u8, number: u32) {
            let rendezvous = Rendezvous::new(&urls(count));
            let live = (0..count).filter(|place| live & (1 << place) != 0).collect::<Places>();
            let order = rendezvous.order(&digest(number));
            let expected = order.into_iter().filter(|&place| live.contains(place)).take(OWNERS).collect::<Places>();
            prop_assert_eq!(rendezvous.owners(&digest(number), live), expected);
        }

        #[test]
        fn when_a_tracker_goes_only_its_blobs_move(count in 2usize..9, gone in 0usize..9, number: u32) {
            let (rendezvous, gone) = (Rendezvous::new(&urls(count)), gone % count);
            let all = Places::first(count);
            let before = rendezvous.owners(&digest(number), all);
            let after = rendezvous.owners(&digest(number), all.without(Places::NONE.with(gone)));
            if before.contains(gone) {
                prop_assert!(before.without(after) == Places::NONE.with(gone), "the other owner stays");
            } else {
                prop_assert_eq!(after, before);
            }
        }
    }
}
