//! Which of the configured servers (trackers, origins) a blob belongs to, by rendezvous hashing (Thaler and Ravishankar,
//! 1998).
//!
//! Pure, and the same on every node that has the same servers in its configuration, in whatever order they are listed there: each
//! server has a score for each blob, and the highest ones own it. When a server goes, only its blobs move; when it comes
//! back, only they come back.

use crate::digest::Digest;
use crate::peer::PeerId;

/// Some of the configured servers, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places(u32);

/// The scores of the configured servers.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    /// What a server's scores are made of: the hash of its URL.
    seeds: Box<[u64]>,
}

impl Places {
    /// How many places there can be.
    pub const MAX: usize = 32;
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// The first `count` places.
    #[must_use]
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// Whether that place is one of them.
    #[must_use]
    pub fn contains(self, place: usize) -> bool {
        place < Self::MAX && self.0 & (1 << place) != 0
    }

    /// The same, with that place too.
    #[must_use]
    pub fn with(self, place: usize) -> Self {
        Self(self.0 | (1 << place))
    }

    /// The same, with that place too if it is `wanted`.
    #[must_use]
    pub fn with_if(self, place: usize, wanted: bool) -> Self {
        if wanted { self.with(place) } else { self }
    }

    /// The same, without those.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// These and those.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is nobody.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many they are.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Each of them, the first place first.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        (0..Self::MAX).filter(move |&place| self.contains(place))
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        places.into_iter().fold(Self::NONE, Self::with)
    }
}

impl Rendezvous {
    /// Servers by their URLs, at most [`Places::MAX`], each once.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a str>) -> Self {
        let seeds = urls.into_iter().map(|url| head(Digest::sha256(url.as_bytes()).as_bytes()));
        Self { seeds: seeds.collect() }
    }

    /// How many servers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seeds.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seeds.is_empty()
    }

    /// All servers, the one to which the blob belongs first.
    #[must_use]
    pub fn order(&self, digest: &Digest) -> Vec<usize> {
        self.sorted(head(digest.as_bytes()))
    }

    /// All servers as a node prefers them where any will do: nodes spread over them evenly, and each comes back to its own.
    #[must_use]
    pub fn homes(&self, node: &PeerId) -> Vec<usize> {
        self.sorted(head(node.public_key()))
    }

    /// To whom the blob belongs while only `live` ones count: `count` of them, or as many as there are.
    #[must_use]
    pub fn owners(&self, digest: &Digest, live: Places, count: usize) -> Places {
        let key = head(digest.as_bytes());
        let mut owners = Places::NONE;
        for _ in 0..count {
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

    const OWNERS: usize = 2;

    fn urls(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("https://tracker-{number}:15003")).collect()
    }

    fn of(urls: &[String]) -> Rendezvous {
        Rendezvous::new(urls.iter().map(String::as_str))
    }

    fn digest(number: u32) -> Digest {
        Digest::sha256(&number.to_le_bytes())
    }

    #[test]
    fn servers_own_about_the_same_number_of_blobs() {
        for count in [3, 5, 8] {
            let rendezvous = of(&urls(count));
            let mut owned = vec![0u32; count];
            let blobs = 20_000;
            for number in 0..blobs {
                let owners = rendezvous.owners(&digest(number), Places::first(count), OWNERS);
                (0..count).filter(|&place| owners.contains(place)).for_each(|place| owned[place] += 1);
            }
            let fair = blobs * OWNERS as u32 / count as u32;
            assert!(owned.iter().all(|&owned| owned.abs_diff(fair) < fair / 20), "{owned:?}, fair is {fair}");
        }
    }

    #[test]
    fn nodes_spread_over_the_servers() {
        let rendezvous = of(&urls(4));
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
            let named = |urls: &[String]| {
                let order = of(urls).order(&digest);
                order.into_iter().map(|place| urls[place].clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(named(&shuffled), named(&listed));
        }

        #[test]
        fn owners_are_the_first_live_ones_of_the_order(count in 1usize..9, live: u8, number: u32) {
            let rendezvous = of(&urls(count));
            let live = (0..count).filter(|place| live & (1 << place) != 0).collect::<Places>();
            let order = rendezvous.order(&digest(number));
            let expected = order.into_iter().filter(|&place| live.contains(place)).take(OWNERS).collect::<Places>();
            prop_assert_eq!(rendezvous.owners(&digest(number), live, OWNERS), expected);
        }

        #[test]
        fn when_a_server_goes_only_its_blobs_move(count in 2usize..9, gone in 0usize..9, number: u32) {
            let (rendezvous, gone) = (of(&urls(count)), gone % count);
            let all = Places::first(count);
            let before = rendezvous.owners(&digest(number), all, OWNERS);
            let after = rendezvous.owners(&digest(number), all.without(Places::NONE.with(gone)), OWNERS);
            if before.contains(gone) {
                prop_assert!(before.without(after) == Places::NONE.with(gone), "the other owner stays");
            } else {
                prop_assert_eq!(after, before);
            }
        }
    }
}
