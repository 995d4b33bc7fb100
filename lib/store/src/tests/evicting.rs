//! A store with limits: who goes, who stays, who is refused.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_core::{Digest, PieceIndex};
use tempfile::TempDir;

use crate::testing::{
    MIB, assert_waits, content, create, files, lie, piece_of, proof, read_to_end, signed, write, write_all,
};
use crate::usage::SAVE_INTERVAL;
use crate::{
    Blob, CacheConfig, CreateError, Entry, Evictions, ImportError, NoRoom, OpenError, Percent, ReadError,
    Room, Store, Verify, WriteError,
};

/// A cache in a temporary directory, that gives nothing up in the background.
struct Cache {
    directory: TempDir,
    store: Store,
    evictions: Evictions,
}

fn config(directory: &Path, capacity: usize) -> CacheConfig {
    let all = Percent::new(100).unwrap();
    CacheConfig {
        capacity: Room::Bytes(bytesize::ByteSize(capacity as u64)),
        high_watermark: all,
        low_watermark: all,
        min_free: Room::Bytes(bytesize::ByteSize(0)),
        ..CacheConfig::new(directory.to_owned())
    }
}

impl Cache {
    async fn open(capacity: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), capacity);
        Self::over(directory, config).await
    }

    async fn over(directory: TempDir, config: CacheConfig) -> Self {
        let (store, evictions) = Store::open_cache(config).await.unwrap();
        Self { directory, store, evictions }
    }

    async fn reopen(self, capacity: usize) -> Self {
        self.store.close().await;
        drop((self.store, self.evictions));
        let config = config(self.directory.path(), capacity);
        Self::over(self.directory, config).await
    }

    async fn put(&self, content: &[u8]) -> Blob {
        let digest = Digest::sha256(content);
        self.store.put(Bytes::copy_from_slice(content), &digest, |_| proof()).await.unwrap()
    }

    async fn begin(&self, content: &[u8]) -> Result<Entry, CreateError> {
        self.store.create(&signed(content)).await
    }

    /// What went next; it must have gone already, or be about to.
    async fn evicted(&mut self) -> Digest {
        let next = tokio::time::timeout(PATIENCE, self.evictions.next()).await;
        next.expect("nothing was evicted").expect("the store is open")
    }

    fn has(&self, content: &[u8]) -> bool {
        self.store.entry(&Digest::sha256(content)).is_some()
    }

    fn evictions(&self) -> u64 {
        let registry = prometheus::Registry::new();
        self.store.register_metrics(&registry).unwrap();
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "shoal_store_evictions_total").unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}

/// For what happens at once, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

fn no_room(result: Result<Entry, CreateError>) -> NoRoom {
    match result {
        Err(CreateError::NoRoom { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_least_recently_used_goes_for_a_newcomer_and_is_told_of() {
    let mut cache = Cache::open(4 * MIB).await;
    let [a, b, c, d] = [1, 2, 3, 4].map(|seed| content(MIB, seed));
    cache.put(&a).await;
    cache.put(&b).await;
    let blob = cache.put(&c).await;
    read_to_end(&mut cache.store.blob(&Digest::sha256(&a)).unwrap().reader(0..10)).await.unwrap();
    blob.read_piece(PieceIndex(0)).await.unwrap();
    // There is room for this one still.
    let partial = create(&cache.store, &signed(&d)).await;
    assert_eq!(cache.evictions(), 0);
    let newcomer = content(2 * MIB, 5);
    cache.begin(&newcomer).await.unwrap();
    assert_eq!(cache.evicted().await, Digest::sha256(&b));
    assert_eq!(cache.evicted().await, Digest::sha256(&a));
    assert!(cache.has(&c) && cache.has(&d) && !cache.has(&a) && !cache.has(&b));
    assert_eq!(cache.store.bytes(), 4 * MIB as u64);
    // Two for the blob, two each for the partials.
    assert_eq!(files(cache.directory.path()).len(), 6);
    write_all(&partial, &d).await;
    partial.commit().await.unwrap();
    assert_eq!(cache.evictions(), 2);
}

#[tokio::test]
async fn above_the_high_watermark_the_store_goes_down_to_the_low_one_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (high_watermark, low_watermark) = (Percent::new(80).unwrap(), Percent::new(50).unwrap());
    let config = CacheConfig { high_watermark, low_watermark, ..config(directory.path(), 10 * MIB) };
    let mut cache = Cache::over(directory, config).await;
    let contents: Vec<_> = (0..9).map(|seed| content(MIB, seed)).collect();
    for content in &contents[..8] {
        cache.put(content).await;
    }
    assert_eq!(cache.evictions(), 0);
    cache.put(&contents[8]).await;
    for content in &contents[..4] {
        assert_eq!(cache.evicted().await, Digest::sha256(content));
    }
    assert_eq!(cache.store.bytes(), 5 * MIB as u64);
    assert_waits(pin!(cache.evictions.next()));
}

#[tokio::test]
async fn what_is_read_stays_and_makes_who_needs_its_room_wait_for_another_time() {
    let cache = Cache::open(3 * MIB).await;
    let (old, new) = (content(2 * MIB, 1), content(2 * MIB, 2));
    let mut reader = cache.put(&old).await.reader(0..u64::MAX);
    let mut bytes = reader.next().await.unwrap().unwrap().to_vec();
    let refused = no_room(cache.begin(&new).await);
    assert!(matches!(refused, NoRoom::InUse { evictable: 1_048_576, .. }), "{refused:?}");
    bytes.extend(read_to_end(&mut reader).await.unwrap());
    assert_eq!(bytes, old);
    assert!(cache.has(&old));
    drop(reader);
    cache.begin(&new).await.unwrap();
    assert!(!cache.has(&old));
}

#[tokio::test]
async fn eviction_works_while_others_are_read() {
    let cache = Cache::open(4 * MIB).await;
    let (read, idle) = (content(2 * MIB, 1), content(2 * MIB, 2));
    let mut reader = cache.put(&read).await.reader(0..u64::MAX);
    cache.put(&idle).await;
    for seed in 3..8 {
        let content = content(2 * MIB, seed);
        let partial = create(&cache.store, &signed(&content)).await;
        write_all(&partial, &content).await;
        partial.commit().await.unwrap();
    }
    assert_eq!(cache.evictions(), 5);
    assert_eq!(read_to_end(&mut reader).await.unwrap(), read);
}

#[tokio::test]
async fn what_is_fetched_stays_and_what_was_given_up_goes() {
    let mut cache = Cache::open(4 * MIB).await;
    let (fetched, next) = (content(3 * MIB, 1), content(2 * MIB, 2));
    let partial = create(&cache.store, &signed(&fetched)).await;
    write(&partial, &fetched, 0).await;
    assert!(matches!(no_room(cache.begin(&next).await), NoRoom::InUse { .. }));
    partial.fail("nobody has it");
    let mut reader = partial.reader(0..MIB as u64);
    assert!(matches!(no_room(cache.begin(&next).await), NoRoom::InUse { .. }));
    assert_eq!(read_to_end(&mut reader).await.unwrap(), fetched[..MIB]);
    drop(reader);
    cache.begin(&next).await.unwrap();
    assert_eq!(cache.evicted().await, Digest::sha256(&fetched));

    assert!(partial.reader(0..10).is_gone());
    let late = partial.write_piece(PieceIndex(1), piece_of(&partial, &fetched, 1)).await;
    assert!(matches!(late, Err(WriteError::Gone { .. })));
    partial.0.checkpoint();
    assert!(partial.commit().await.is_err());
    assert_eq!(files(cache.directory.path()).len(), 2);
}

#[tokio::test]
async fn what_is_taken_up_or_read_after_it_was_chosen_to_go_stays() {
    let cache = Cache::open(4 * MIB).await;
    let (fetched, read) = (content(MIB, 1), content(MIB, 2));
    create(&cache.store, &signed(&fetched)).await;
    let reader = cache.put(&read).await.reader(0..u64::MAX);
    let evict = async |content: &[u8]| {
        let (space, digest) = (cache.store.space.clone(), Digest::sha256(content));
        tokio::task::spawn_blocking(move || space.evict(&digest)).await.unwrap()
    };
    assert_eq!((evict(&fetched).await, evict(&read).await, evict(b"unknown").await), (0, 0, 0));
    assert!(cache.has(&fetched) && cache.has(&read));
    drop(reader);
    assert_eq!(evict(&read).await, MIB as u64);
    assert!(cache.has(&fetched) && !cache.has(&read));
}

#[tokio::test]
async fn a_fetch_that_is_taken_up_again_is_safe_again() {
    let cache = Cache::open(4 * MIB).await;
    let (fetched, next) = (content(3 * MIB, 1), content(2 * MIB, 2));
    create(&cache.store, &signed(&fetched)).await.fail("nobody has it");
    create(&cache.store, &signed(&fetched)).await;
    assert!(matches!(no_room(cache.begin(&next).await), NoRoom::InUse { .. }));
}

#[tokio::test]
async fn a_handle_to_what_was_evicted_says_so_and_a_look_up_helps() {
    let cache = Cache::open(2 * MIB).await;
    let content = content(2 * MIB, 1);
    let stale = cache.put(&content).await;
    create(&cache.store, &signed(b"next")).await.fail("enough");
    assert!(stale.reader(0..10).is_gone());
    assert!(matches!(stale.read_piece(PieceIndex(0)).await, Err(ReadError::Gone { .. })));
    let fresh = cache.put(&content).await;
    assert!(!fresh.reader(0..10).is_gone());
    assert_eq!(fresh.read_piece(PieceIndex(1)).await.unwrap(), content[MIB..]);
}

#[tokio::test]
async fn a_blob_larger_than_the_capacity_is_refused_and_costs_nobody_anything() {
    let cache = Cache::open(2 * MIB).await;
    let small = content(MIB, 1);
    cache.put(&small).await;
    let large = content(2 * MIB + 1, 2);
    let refused = no_room(cache.begin(&large).await);
    assert_eq!(refused, NoRoom::TooLarge { length: 2 * MIB as u64 + 1, capacity: 2 * MIB as u64 });
    let digest = Digest::sha256(&large);
    let refused = cache.store.put(Bytes::from(large), &digest, |_| proof()).await;
    assert!(
        matches!(refused, Err(ImportError::NoRoom { source: NoRoom::TooLarge { .. }, .. })),
        "{refused:?}"
    );
    assert!(cache.has(&small));
    assert_eq!(files(cache.directory.path()).len(), 2);
}

#[tokio::test]
async fn a_file_system_that_is_too_full_refuses_and_costs_nobody_anything() {
    let directory = tempfile::tempdir().unwrap();
    let min_free = Room::Share(Percent::new(100).unwrap());
    let config = CacheConfig { min_free, ..config(directory.path(), MIB) };
    let cache = Cache::over(directory, config).await;
    assert!(matches!(no_room(cache.begin(b"blob").await), NoRoom::MinFree { .. }));
    assert!(files(cache.directory.path()).is_empty());
}

#[tokio::test]
async fn a_restart_knows_what_was_used_last() {
    let cache = Cache::open(4 * MIB).await;
    let [a, b, c] = [1, 2, 3].map(|seed| content(MIB, seed));
    for content in [&a, &b, &c] {
        cache.put(content).await;
    }
    // Time goes by; then the oldest is read by a client, and the next by a peer.
    let now = cache.store.space.clock.tick();
    cache.store.space.clock.reach(crate::usage::Moment(now.0 + SAVE_INTERVAL.as_micros() as u64 + 1));
    cache.store.blob(&Digest::sha256(&b)).unwrap().read_piece(PieceIndex(0)).await.unwrap();
    read_to_end(&mut cache.store.blob(&Digest::sha256(&a)).unwrap().reader(0..10)).await.unwrap();
    let hex = Digest::sha256(&a).hex();
    let metainfo = cache.directory.path().join(format!("metainfo/sha256/{}/{hex}", &hex[..2]));
    let saved = || std::fs::metadata(&metainfo).unwrap().modified().unwrap() >= now.time() + SAVE_INTERVAL;
    let saving = async {
        while !saved() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, saving).await.expect("the use was not saved");
    let mut cache = cache.reopen(4 * MIB).await;
    cache.begin(&content(3 * MIB, 4)).await.unwrap();
    assert_eq!(cache.evicted().await, Digest::sha256(&c));
    assert_eq!(cache.evicted().await, Digest::sha256(&b));
    assert!(cache.has(&a));
}

#[tokio::test]
async fn a_restart_with_less_capacity_gives_up_what_is_too_much() {
    let cache = Cache::open(4 * MIB).await;
    let contents: Vec<_> = (0..4).map(|seed| content(MIB, seed)).collect();
    for content in &contents {
        cache.put(content).await;
    }
    let mut cache = cache.reopen(2 * MIB).await;
    for content in &contents[..2] {
        assert_eq!(cache.evicted().await, Digest::sha256(content));
    }
    assert_eq!(cache.store.bytes(), 2 * MIB as u64);
}

#[tokio::test]
async fn a_partial_that_a_restart_finds_may_go_until_it_is_taken_up() {
    let cache = Cache::open(3 * MIB).await;
    let [left, resumed] = [1, 2].map(|seed| content(MIB, seed));
    create(&cache.store, &signed(&left)).await;
    create(&cache.store, &signed(&resumed)).await;
    let mut cache = cache.reopen(3 * MIB).await;
    create(&cache.store, &signed(&resumed)).await;
    cache.begin(&content(2 * MIB, 3)).await.unwrap();
    assert_eq!(cache.evicted().await, Digest::sha256(&left));
    assert!(cache.has(&resumed));
}

#[tokio::test]
async fn a_crash_in_the_middle_of_an_eviction_leaves_the_blob_or_nothing() {
    let contents = [content(MIB, 1), content(MIB, 2), content(MIB, 3)];
    let cache = Cache::open(3 * MIB).await;
    for content in &contents {
        cache.put(content).await;
    }
    let layout = crate::layout::Layout::new(cache.directory.path().to_owned());
    // The first lost its bytes and not yet its metainfo; of the second, power was lost in the wrong order.
    std::fs::remove_file(layout.blob(&Digest::sha256(&contents[0]))).unwrap();
    std::fs::remove_file(layout.metainfo(&Digest::sha256(&contents[1]))).unwrap();
    let cache = cache.reopen(3 * MIB).await;
    assert_eq!(contents.map(|content| cache.has(&content)), [false, false, true]);
    assert_eq!(files(cache.directory.path()).len(), 2);
}

/// The next file that the store writes is on a disk without room; those after it are not.
fn fill_disk_once(store: &Store) {
    let next = store.space.directory.temporary();
    let name: u64 = next.path().file_name().unwrap().to_str().unwrap().parse().unwrap();
    let path = next.path().with_file_name((name + 1).to_string());
    drop(next);
    std::os::unix::fs::symlink("/dev/full", path).unwrap();
}

#[tokio::test]
async fn a_full_disk_makes_others_go_once_and_the_newcomer_comes_in() {
    let mut cache = Cache::open(100 * MIB).await;
    let (old, new) = (content(MIB, 1), content(MIB, 2));
    cache.put(&old).await;
    fill_disk_once(&cache.store);
    let partial = create(&cache.store, &signed(&new)).await;
    assert_eq!(cache.evicted().await, Digest::sha256(&old));
    write_all(&partial, &new).await;

    cache.put(&old).await;
    fill_disk_once(&cache.store);
    let blob = partial.commit().await.unwrap();
    assert_eq!(cache.evicted().await, Digest::sha256(&old));
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), new);

    fill_disk_once(&cache.store);
    cache.put(&old).await;
    assert_eq!(cache.evicted().await, Digest::sha256(&new));
    assert_eq!(files(cache.directory.path()).len(), 2);
}

#[tokio::test]
async fn a_disk_that_stays_full_refuses_and_what_is_in_use_is_served_on() {
    let cache = Cache::open(100 * MIB).await;
    let kept = content(MIB, 1);
    let mut reader = cache.put(&kept).await.reader(0..u64::MAX);
    for _ in 0..2 {
        fill_disk_once(&cache.store);
        // Nothing may go, so nothing is tried again.
        let refused = cache.begin(b"new").await;
        assert!(matches!(refused, Err(CreateError::NoSpace { .. })), "{refused:?}");
    }
    assert_eq!(read_to_end(&mut reader).await.unwrap(), kept);
    assert!(cache.begin(b"new").await.is_ok());
}

#[tokio::test]
async fn a_store_that_keeps_everything_gives_up_no_blob_for_a_full_disk() {
    let scene = crate::testing::Scene::open().await;
    scene.put(b"kept").await;
    fill_disk_once(&scene.store);
    let refused = scene.store.create(&signed(b"new")).await;
    assert!(matches!(refused, Err(CreateError::NoSpace { .. })), "{refused:?}");
    assert!(scene.store.blob(&Digest::sha256(b"kept")).is_some());
    assert_eq!(scene.store.capacity(), None);
}

#[tokio::test]
async fn trusted_pieces_are_not_hashed_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = CacheConfig { verify: Verify::Pieces, ..config(directory.path(), 4 * MIB) };
    let cache = Cache::over(directory, config).await;
    let content = content(2 * MIB, 1);
    let partial = create(&cache.store, &lie(&content)).await;
    let corrupt = partial.write_piece(PieceIndex(0), piece_of(&partial, &content, 1)).await;
    assert!(matches!(corrupt, Err(WriteError::Corrupt { .. })));
    write_all(&partial, &content).await;
    let mut reader = partial.reader(0..u64::MAX);
    let blob = partial.commit().await.unwrap();
    assert_eq!(read_to_end(&mut reader).await.unwrap(), content);
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), content);
}

#[tokio::test]
async fn watermarks_the_wrong_way_round_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let low_watermark = Percent::new(96).unwrap();
    let config = CacheConfig { low_watermark, ..CacheConfig::new(directory.path().into()) };
    let error = Store::open_cache(config).await.unwrap_err();
    assert!(matches!(error, OpenError::Watermarks { .. }));
    assert!(error.to_string().contains("96%") && error.to_string().contains("95%"), "{error}");
}

/// Pulls one blob as a client does, from what is there or piece by piece; whether there was room.
async fn pull(store: &Store, content: &[u8]) -> bool {
    let entry = match store.create(&signed(content)).await {
        Ok(entry) => entry,
        Err(CreateError::NoRoom { source: NoRoom::InUse { .. }, .. }) => return false,
        Err(error) => panic!("{error:?}"),
    };
    let mut reader = match &entry {
        Entry::Whole(blob) => blob.reader(0..u64::MAX),
        Entry::Partial(partial) => partial.reader(0..u64::MAX),
    };
    if let Entry::Partial(partial) = &entry {
        for index in 0..partial.metainfo().geometry().piece_count() {
            partial.write_piece(PieceIndex(index), piece_of(partial, content, index)).await.unwrap();
        }
        partial.commit().await.unwrap();
    }
    if reader.is_gone() {
        // Between its look-up and now: as if it had not been there.
        return false;
    }
    assert_eq!(read_to_end(&mut reader).await.unwrap(), content);
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_never_exceed_the_capacity_and_never_read_a_wrong_byte() {
    const CAPACITY: usize = 6 * MIB;
    let directory = tempfile::tempdir().unwrap();
    let low_watermark = Percent::new(70).unwrap();
    let config = CacheConfig { low_watermark, ..config(directory.path(), CAPACITY) };
    let Cache { directory, store, mut evictions } = Cache::over(directory, config).await;
    let heard = tokio::spawn(async move {
        let mut count = 0_u64;
        while evictions.next().await.is_some() {
            count += 1;
        }
        count
    });
    let contents: Arc<Vec<_>> =
        Arc::new((0..16).map(|seed| content(MIB / 4 + 90_000 * seed as usize, seed)).collect());
    let pullers: Vec<_> = (0..4_u64)
        .map(|puller| {
            let (store, contents) = (store.clone(), contents.clone());
            tokio::spawn(async move {
                let mut pulled = 0;
                for round in 0..40_u64 {
                    let number = (round * 7 + puller * 5 + round * round * 3) % contents.len() as u64;
                    pulled += u32::from(pull(&store, &contents[number as usize]).await);
                    let bytes = store.space.index.bytes();
                    assert!(bytes <= CAPACITY as u64, "{bytes} bytes");
                }
                pulled
            })
        })
        .collect();
    let mut pulled = 0;
    for puller in pullers {
        pulled += puller.await.unwrap();
    }
    assert!(pulled > 100, "only {pulled} of 160 pulls found room");
    store.close().await;
    let whole = store.digests().len();
    assert_eq!(files(directory.path()).iter().filter(|name| name.starts_with("blobs/")).count(), whole);
    drop(store);
    let evicted = tokio::time::timeout(PATIENCE, heard).await.unwrap().unwrap();
    assert!(evicted > 20, "{evicted} evictions");
}
