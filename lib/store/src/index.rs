//! What the store has, in memory: a lookup never touches the disk.
//!
//! Entries change only under the directory's [`change`](crate::directory::Directory::change) of their digest, so disk
//! and index tell the same story to everybody who changes something.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use shoal_core::{Digest, Metainfo, PieceIndex};

use crate::blob::Blob;
use crate::directory::locked;
use crate::eviction::{Candidate, Kind};
use crate::partial::Partial;
use crate::reader::ReadError;
use crate::usage::Usage;

/// What the store has of a digest.
#[derive(Clone, Debug)]
pub enum Entry {
    /// All of it.
    Whole(Blob),
    /// Some of it (maybe none yet).
    Partial(Partial),
}

/// All entries, and the sum of their lengths.
#[derive(Debug, Default)]
pub(crate) struct Index {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    partials: usize,
    bytes: u64,
    reserved: u64,
}

/// The index takes no more entries of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexFull {
    pub(crate) limit: usize,
    /// Whether fewer partials would make a place; else only fewer entries do.
    pub(crate) is_of_partials: bool,
}

/// Bytes that are promised to an entry which is about to be. Dropped once that is in the index.
#[derive(Debug)]
pub(crate) struct Reservation {
    index: Arc<Index>,
    bytes: u64,
}

impl Entry {
    /// Some of the bytes of a piece that is there (clamped), by their place in it.
    pub async fn read_part(&self, piece: PieceIndex, part: Range<u32>) -> Result<Bytes, ReadError> {
        match self {
            Self::Whole(blob) => blob.read_part(piece, part).await,
            Self::Partial(partial) => partial.read_part(piece, part).await,
        }
    }

    /// Its metainfo.
    #[must_use]
    pub fn metainfo(&self) -> &Metainfo {
        match self {
            Self::Whole(blob) => blob.metainfo(),
            Self::Partial(partial) => partial.metainfo(),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.metainfo().length()
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Whole(_) => Kind::Blob,
            Self::Partial(_) => Kind::Partial,
        }
    }

    /// Takes it away from all to come, unless somebody reads or fetches it. Call under the digest's change.
    pub(crate) fn claim(&self) -> bool {
        !self.is_fetched() && self.usage().claim()
    }

    fn is_in_use(&self) -> bool {
        self.is_fetched() || self.usage().is_pinned()
    }

    fn is_fetched(&self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Partial(partial) => partial.is_fetched(),
        }
    }

    fn usage(&self) -> &Usage {
        match self {
            Self::Whole(blob) => blob.usage(),
            Self::Partial(partial) => &partial.0.usage,
        }
    }
}

impl Index {
    pub(crate) fn find(&self, digest: &Digest) -> Option<Entry> {
        locked(&self.state).entries.get(digest).cloned()
    }

    pub(crate) fn digests(&self) -> Vec<(Digest, bool)> {
        let state = locked(&self.state);
        state.entries.iter().map(|(digest, entry)| (*digest, matches!(entry, Entry::Whole(_)))).collect()
    }

    pub(crate) fn partials(&self) -> Vec<Partial> {
        let state = locked(&self.state);
        let partials = state.entries.values().filter_map(|entry| match entry {
            Entry::Partial(partial) => Some(partial.clone()),
            Entry::Whole(_) => None,
        });
        partials.collect()
    }

    /// How many entries are whole, and how many are not.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = locked(&self.state);
        (state.entries.len() - state.partials, state.partials)
    }

    pub(crate) fn bytes(&self) -> u64 {
        locked(&self.state).bytes
    }

    /// Bytes that are in or promised, and how many of them are only promised.
    pub(crate) fn used(&self) -> (u64, u64) {
        let state = locked(&self.state);
        (state.bytes.saturating_add(state.reserved), state.reserved)
    }

    /// What nobody uses now.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let state = locked(&self.state);
        let idle = state.entries.iter().filter(|(_, entry)| !entry.is_in_use());
        let candidates = idle.map(|(digest, entry)| Candidate {
            digest: *digest,
            kind: entry.kind(),
            length: entry.length(),
            last_used: entry.usage().last_used(),
        });
        candidates.collect()
    }

    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        let mut state = locked(&self.state);
        state.reserved = state.reserved.saturating_add(bytes);
        Reservation { index: self.clone(), bytes }
    }

    /// The same, if no more than `capacity` is in or promised then.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: u64, capacity: u64) -> Option<Reservation> {
        let mut state = locked(&self.state);
        let reserved = state.reserved.saturating_add(bytes);
        if state.bytes.saturating_add(reserved) > capacity {
            return None;
        }
        state.reserved = reserved;
        Some(Reservation { index: self.clone(), bytes })
    }

    /// Whether there is a place for one more entry of that kind.
    pub(crate) fn check_room(&self, kind: Kind) -> Result<(), IndexFull> {
        let state = locked(&self.state);
        if kind == Kind::Partial && state.partials >= MAX_PARTIALS {
            return Err(IndexFull { limit: MAX_PARTIALS, is_of_partials: true });
        }
        if state.entries.len() >= MAX_ENTRIES {
            return Err(IndexFull { limit: MAX_ENTRIES, is_of_partials: false });
        }
        Ok(())
    }

    /// Whether there is room for that blob, which may be here as a partial already.
    pub(crate) fn check_room_for_blob(&self, digest: &Digest) -> Result<(), IndexFull> {
        let state = locked(&self.state);
        let fits = state.entries.contains_key(digest) || state.entries.len() < MAX_ENTRIES;
        if fits { Ok(()) } else { Err(IndexFull { limit: MAX_ENTRIES, is_of_partials: false }) }
    }

    /// Puts an entry in, and gives back the one it replaces.
    pub(crate) fn insert(&self, digest: Digest, entry: Entry) -> Option<Entry> {
        let mut state = locked(&self.state);
        state.count_in(&entry);
        let replaced = state.entries.insert(digest, entry);
        if let Some(old) = &replaced {
            state.count_out(old);
        }
        replaced
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Option<Entry> {
        let mut state = locked(&self.state);
        let removed = state.entries.remove(digest)?;
        state.count_out(&removed);
        Some(removed)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = locked(&self.index.state);
        state.reserved = state.reserved.saturating_sub(self.bytes);
    }
}

impl State {
    fn count_in(&mut self, entry: &Entry) {
        self.bytes += entry.length();
        self.partials += usize::from(matches!(entry, Entry::Partial(_)));
    }

    fn count_out(&mut self, entry: &Entry) {
        self.bytes -= entry.length();
        self.partials -= usize::from(matches!(entry, Entry::Partial(_)));
    }
}

/// A metainfo takes 32 bytes a piece and about 1 KiB of proof: 256 Ki blobs of a few MiB each take about 300 MiB.
const MAX_ENTRIES: usize = 1 << 18;
/// Each holds a file open; the usual limit of open files is 1,024.
const MAX_PARTIALS: usize = 512;

#[cfg(test)]
mod tests {
    use crate::testing::{Scene, content, signed};
    use crate::{CreateError, Entry};

    #[tokio::test]
    async fn partials_have_a_limit_and_a_deleted_one_makes_room() {
        let scene = Scene::open().await;
        for number in 0..super::MAX_PARTIALS {
            scene.store.create(&signed(number.to_string().as_bytes())).await.unwrap();
        }
        let one_more = signed(b"one more");
        assert!(matches!(scene.store.create(&one_more).await, Err(CreateError::Full { .. })));
        assert!(scene.store.delete(signed(b"0").metainfo.digest()).await.unwrap());
        assert!(matches!(scene.store.create(&one_more).await, Ok(Entry::Partial(_))));
    }

    #[tokio::test]
    async fn partials_that_nobody_fetches_make_room_for_one_that_somebody_does() {
        let scene = Scene::open().await;
        let number = |number: usize| signed(number.to_string().as_bytes());
        for each in 0..super::MAX_PARTIALS {
            let Entry::Partial(partial) = scene.store.create(&number(each)).await.unwrap() else { panic!() };
            if each == 5 || each == 7 {
                partial.fail("nobody has it");
            }
        }
        let held = |each: usize| scene.store.entry(number(each).metainfo.digest()).is_some();
        scene.store.create(&number(1000)).await.unwrap();
        assert!(!held(5) && held(7));
        scene.store.create(&number(1001)).await.unwrap();
        assert!(!held(7) && held(6));
        assert!(matches!(scene.store.create(&number(1002)).await, Err(CreateError::Full { .. })));
    }

    #[tokio::test]
    async fn what_is_promised_counts_until_it_is_there() {
        let scene = Scene::open().await;
        scene.put(&content(1000, 1)).await;
        let index = &scene.store.space.index;
        assert!(index.try_reserve(1001, 2000).is_none());
        let promised = index.try_reserve(600, 2000).unwrap();
        assert_eq!(index.used(), (1600, 600));
        assert!(index.try_reserve(401, 2000).is_none());
        drop(promised);
        assert!(index.try_reserve(1000, 2000).is_some());
        assert_eq!(index.used(), (1000, 0));
    }

    #[tokio::test]
    async fn bytes_are_the_exact_sum() {
        let scene = Scene::open().await;
        let (one, two) = (content(3_000_000, 1), content(1_500_000, 2));
        assert_eq!(scene.store.bytes(), 0);
        scene.put(&one).await;
        let partial = scene.create(&two).await;
        assert_eq!(scene.store.bytes(), 4_500_000);
        crate::testing::write_all(&partial, &two).await;
        partial.commit().await.unwrap();
        assert_eq!(scene.store.bytes(), 4_500_000);
        scene.store.delete(signed(&one).metainfo.digest()).await.unwrap();
        assert_eq!(scene.store.bytes(), 1_500_000);
    }
}
