//! Who holds what, as other nodes said: Kademlia's provider records, bounded whoever sends them.
//!
//! Bounds: all records together, those of one blob, and those that one provider may have here. So a provider that names a
//! million blobs displaces its own oldest names and nobody else's. Values, and keys that are no digest, are not kept at all. What has expired goes
//! first. The node's own records are beside the others and bounded by whoever announces ([`super::holdings`]).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use crate::overlay::addresses::{Belief, multiaddr};
use crate::overlay::behaviour::digest;

/// How much is kept for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Records in all. 65,536 take about 25 MB, and are what each node has to keep where all nodes announce as much as they
    /// may and records lie on eight nodes each, thirty times over.
    pub(crate) records: usize,
    /// Records of one blob: more than one who asks will ever turn to. Beyond that the newest takes the place of the oldest, so
    /// that those who are named are alive.
    pub(crate) of_blob: usize,
    /// Records of one provider: all that a node announces could lie here where the cluster is small.
    pub(crate) of_provider: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { records: 65_536, of_blob: 32, of_provider: 2 * crate::overlay::holdings::MAX_ANNOUNCED }
    }
}

/// The records.
#[derive(Debug)]
pub(crate) struct Records {
    local: PeerId,
    belief: Belief,
    bounds: Bounds,
    own: HashMap<RecordKey, ProviderRecord>,
    /// By blob, oldest first.
    others: HashMap<RecordKey, VecDeque<ProviderRecord>>,
    /// By provider, its blobs, oldest first.
    providers: HashMap<PeerId, VecDeque<RecordKey>>,
    count: usize,
}

impl Records {
    pub(crate) fn new(local: PeerId, belief: Belief, bounds: Bounds) -> Self {
        Self {
            local,
            belief,
            bounds,
            own: HashMap::new(),
            others: HashMap::new(),
            providers: HashMap::new(),
            count: 0,
        }
    }

    /// How many records of others are here.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Lets go of what has expired by then.
    pub(crate) fn expire(&mut self, now: Instant) {
        let expired: Vec<(RecordKey, PeerId)> = self
            .others
            .values()
            .flatten()
            .filter(|record| record.is_expired(now))
            .map(|record| (record.key.clone(), record.provider))
            .collect();
        for (key, provider) in expired {
            self.forget(&key, &provider);
        }
    }

    /// Forgets all that a provider said.
    pub(crate) fn forget_provider(&mut self, provider: &PeerId) {
        let keys: HashSet<RecordKey> = self.providers.get(provider).into_iter().flatten().cloned().collect();
        for key in keys {
            self.forget(&key, provider);
        }
    }

    fn keep(&mut self, mut record: ProviderRecord) -> Result<()> {
        if digest(&record.key).is_none() {
            return Err(Error::ValueTooLarge);
        }
        let believed = self.belief.plausible_of(&record.addresses);
        record.addresses = believed.into_iter().map(multiaddr).collect();
        self.forget(&record.key, &record.provider);
        self.make_room(&record)?;
        self.providers.entry(record.provider).or_default().push_back(record.key.clone());
        self.others.entry(record.key.clone()).or_default().push_back(record);
        self.count += 1;
        Ok(())
    }

    fn make_room(&mut self, record: &ProviderRecord) -> Result<()> {
        if let Some(keys) = self.providers.get(&record.provider)
            && keys.len() >= self.bounds.of_provider
            && let Some(oldest) = keys.front().cloned()
        {
            self.forget(&oldest, &record.provider);
        }
        if let Some(records) = self.others.get(&record.key)
            && records.len() >= self.bounds.of_blob
            && let Some(oldest) = records.front().map(|record| record.provider)
        {
            self.forget(&record.key, &oldest);
        }
        if self.count >= self.bounds.records { Err(Error::MaxProvidedKeys) } else { Ok(()) }
    }

    fn forget(&mut self, key: &RecordKey, provider: &PeerId) {
        let Some(records) = self.others.get_mut(key) else { return };
        let Some(place) = records.iter().position(|record| record.provider == *provider) else { return };
        records.remove(place);
        if records.is_empty() {
            self.others.remove(key);
        }
        if let Some(keys) = self.providers.get_mut(provider) {
            if let Some(place) = keys.iter().position(|known| known == key) {
                keys.remove(place);
            }
            if keys.is_empty() {
                self.providers.remove(provider);
            }
        }
        self.count -= 1;
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.provider == self.local {
            self.own.insert(record.key.clone(), record);
            return Ok(());
        }
        self.keep(record)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        // The newest first: those are alive.
        self.own
            .get(key)
            .into_iter()
            .chain(self.others.get(key).into_iter().flatten().rev())
            .cloned()
            .collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.own.values().map(Cow::Borrowed).collect::<Vec<_>>().into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.local {
            self.own.remove(key);
        } else {
            self.forget(key, provider);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::Multiaddr;
    use proptest::prelude::*;
    use shoal_core::Digest;

    use super::*;
    use crate::overlay::behaviour::key;

    const BOUNDS: Bounds = Bounds { records: 20, of_blob: 3, of_provider: 5 };

    fn peer(number: u8) -> PeerId {
        let key = libp2p::identity::Keypair::ed25519_from_bytes([number; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn blob_key(blob: u32) -> RecordKey {
        key(&Digest::sha256(&blob.to_be_bytes()))
    }

    fn record(blob: u8, provider: u8, expires: Instant) -> ProviderRecord {
        ProviderRecord {
            key: blob_key(blob.into()),
            provider: peer(provider),
            expires: Some(expires),
            addresses: vec![],
        }
    }

    fn records() -> Records {
        Records::new(peer(255), Belief::new([10, 0, 0, 1].into(), vec![]), BOUNDS)
    }

    #[test]
    fn who_names_blobs_without_end_displaces_only_his_own() {
        let (mut records, later) = (records(), Instant::now() + Duration::from_secs(60));
        records.add_provider(record(1, 1, later)).unwrap();
        for number in 0..10_000u32 {
            let mut flood = record(0, 2, later);
            flood.key = blob_key(1000 + number);
            records.add_provider(flood).unwrap();
        }
        assert_eq!(records.len(), 1 + BOUNDS.of_provider);
        assert_eq!(records.providers(&blob_key(1)).len(), 1);
        records.forget_provider(&peer(2));
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn the_newest_providers_of_a_blob_are_kept_and_named_first() {
        let (mut records, later) = (records(), Instant::now() + Duration::from_secs(60));
        for provider in 1..=5 {
            records.add_provider(record(1, provider, later)).unwrap();
        }
        let named: Vec<PeerId> =
            records.providers(&blob_key(1)).into_iter().map(|record| record.provider).collect();
        assert_eq!(named, [5, 4, 3].map(peer));
    }

    #[test]
    fn addresses_are_checked_and_few_and_keys_that_are_no_digest_are_refused() {
        let (mut records, later) = (records(), Instant::now() + Duration::from_secs(60));
        let mut named = record(1, 1, later);
        let hosts = (0..=255u8).map(|host| format!("/ip4/10.0.0.{host}/tcp/1"));
        let bad = ["/ip4/127.0.0.1/tcp/6379", "/dns4/evil.example/tcp/1"].map(str::to_owned);
        named.addresses =
            bad.into_iter().chain(hosts).map(|text| text.parse::<Multiaddr>().unwrap()).collect();
        records.add_provider(named).unwrap();
        let kept = &records.providers(&blob_key(1))[0];
        assert_eq!(kept.addresses.len(), 4);
        assert!(kept.addresses.iter().all(|address| address.to_string().starts_with("/ip4/10.")));

        for key in [vec![], vec![0u8; 4096], b"sha256:short".to_vec(), vec![0xff; 71]] {
            let nameless = ProviderRecord { key: RecordKey::new(&key), ..record(1, 1, later) };
            assert!(records.add_provider(nameless).is_err());
        }
        let value = Record::new(vec![1], vec![0; 9]);
        assert!(records.put(value).is_err() && records.get(&blob_key(1)).is_none());
    }

    proptest! {
        #[test]
        fn bounds_hold_and_counts_are_true(
            steps in prop::collection::vec((0u8..4, 0u8..30, 0u8..12, 0u64..50), 0..300)
        ) {
            let (mut records, start) = (records(), Instant::now());
            for (what, blob, provider, seconds) in steps {
                let at = start + Duration::from_secs(seconds);
                match what {
                    0 | 1 => { let _ = records.add_provider(record(blob, provider, at)); }
                    2 => records.remove_provider(&blob_key(blob.into()), &peer(provider)),
                    _ => records.expire(at),
                }
                let all: usize = records.others.values().map(VecDeque::len).sum();
                let named: usize = records.providers.values().map(VecDeque::len).sum();
                prop_assert_eq!((all, named), (records.len(), records.len()));
                prop_assert!(records.len() <= BOUNDS.records);
                prop_assert!(records.others.values().all(|of| !of.is_empty() && of.len() <= BOUNDS.of_blob));
                prop_assert!(records.providers.values().all(|of| !of.is_empty() && of.len() <= BOUNDS.of_provider));
            }
            records.expire(start + Duration::from_secs(60));
            prop_assert_eq!(records.len(), 0);
            prop_assert!(records.others.is_empty() && records.providers.is_empty());
        }
    }
}
