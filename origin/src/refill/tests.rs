//! What comes of sources that break off, lie, and keep silent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use shoal_core::{Digest, RepositoryName};
use shoal_store::{BlobReader, Config, Entry, Store};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::testing::refill;
use super::{Named, Refill, RefillError};
use crate::source::{Incoming, Source, SourceError};

const MIB: usize = 1 << 20;

/// A source that has one blob.
struct Scripted {
    digest: Digest,
    content: Vec<u8>,
    length: u64,
    /// After how many bytes each stream ends, the first first; those after them are whole.
    breaks: Mutex<Vec<usize>>,
    /// Permits are parts of half a MiB that may be sent.
    gate: Arc<Semaphore>,
    opened: Arc<AtomicUsize>,
    starts: Arc<Mutex<Vec<u64>>>,
}

impl Scripted {
    fn new(digest: Digest, content: &[u8]) -> Self {
        Self {
            digest,
            content: content.to_vec(),
            length: content.len() as u64,
            breaks: Mutex::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            opened: Arc::default(),
            starts: Arc::default(),
        }
    }

    fn of(content: &[u8]) -> Self {
        Self::new(Digest::sha256(content), content)
    }

    fn breaking(self, after: &[usize]) -> Self {
        Self { breaks: Mutex::new(after.iter().rev().copied().collect()), ..self }
    }

    fn named(self, name: &str) -> Named {
        Named { name: name.to_owned(), source: Arc::new(self), pace: None }
    }
}

#[async_trait]
impl Source for Scripted {
    async fn open(
        &self,
        _: Option<&RepositoryName>,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError> {
        if *digest != self.digest {
            return Err(SourceError::NotFound);
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.starts.lock().unwrap().push(start);
        let rest = &self.content[start as usize..];
        let broken = self.breaks.lock().unwrap().pop();
        let rest = &rest[..broken.unwrap_or(rest.len()).min(rest.len())];
        let parts: Vec<_> = rest.chunks(MIB / 2).map(Bytes::copy_from_slice).collect();
        let gate = self.gate.clone();
        let parts = stream::iter(parts).then(move |part| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(part)
            }
        });
        let end = broken.map(|_| Err(SourceError::Failed("cut".to_owned())));
        Ok(Incoming { length: self.length, bytes: parts.chain(stream::iter(end)).boxed() })
    }

    async fn stat(&self, _: Option<&RepositoryName>, digest: &Digest) -> Result<u64, SourceError> {
        if *digest == self.digest { Ok(self.length) } else { Err(SourceError::NotFound) }
    }
}

struct Scene {
    refill: Refill,
    store: Store,
    _directory: TempDir,
}

async fn scene(sources: Vec<Named>) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config { directory: directory.path().to_owned() }).await.unwrap();
    Scene { refill: refill(&store, sources), store, _directory: directory }
}

impl Scene {
    async fn read(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        let entry = self.refill.open(None, digest).await.map_err(|error| error.to_string())?;
        let mut reader = reader(&entry);
        let mut content = Vec::new();
        while let Some(part) = reader.next().await {
            content.extend_from_slice(&part.map_err(|error| error.to_string())?);
        }
        Ok(content)
    }

    async fn end(self) {
        self.refill.shutdown().await;
        self.store.close().await;
    }
}

fn reader(entry: &Entry) -> BlobReader {
    match entry {
        Entry::Whole(blob) => blob.reader(0..u64::MAX),
        Entry::Partial(partial) => partial.reader(0..u64::MAX),
    }
}

fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_a_blob_is_opened_once_and_is_read_while_it_comes() {
    let content = content(3 * MIB + 9, 1);
    let source = Scripted { gate: Arc::new(Semaphore::new(2)), ..Scripted::of(&content) };
    let (digest, opened, gate) = (source.digest, source.opened.clone(), source.gate.clone());
    let scene = scene(vec![source.named("slow")]).await;
    assert_eq!(scene.refill.stat(None, &digest).await.unwrap(), content.len() as u64);
    assert_eq!(opened.load(Ordering::SeqCst), 0, "a length needs no fetch");

    let entries = futures_util::future::join_all((0..20).map(|_| scene.refill.open(None, &digest))).await;
    for entry in &entries {
        // Only the first piece has come so far.
        let first = reader(entry.as_ref().unwrap()).next().await.unwrap().unwrap();
        assert_eq!(first, content[..first.len()]);
    }
    assert!(scene.store.blob(&digest).is_none());
    gate.add_permits(100);
    assert_eq!(scene.read(&digest).await.unwrap(), content);
    assert_eq!(scene.read(&digest).await.unwrap(), content);
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_off_is_gone_on_with_where_the_last_piece_ended() {
    let content = content(5 * MIB, 2);
    let source = Scripted::of(&content).breaking(&[MIB + 5, 0, 2 * MIB]);
    let (digest, starts) = (source.digest, source.starts.clone());
    let scene = scene(vec![source.named("shaky")]).await;
    assert_eq!(scene.read(&digest).await.unwrap(), content);
    let mib = MIB as u64;
    assert_eq!(*starts.lock().unwrap(), [0, mib, mib, 3 * mib]);
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_brings_nothing_further_is_given_up_and_what_came_is_used_the_next_time() {
    let content = content(3 * MIB, 3);
    let breaks: Vec<_> = [2 * MIB].into_iter().chain([0; 5]).collect();
    let source = Scripted::of(&content).breaking(&breaks);
    let (digest, starts) = (source.digest, source.starts.clone());
    let scene = scene(vec![source.named("broken")]).await;
    let error = scene.read(&digest).await.unwrap_err();
    assert!(error.contains("source broken"), "{error}");
    assert_eq!(scene.read(&digest).await.unwrap(), content);
    assert_eq!(starts.lock().unwrap()[..2], [0, 2 * MIB as u64]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_thrown_away_and_their_source_is_not_asked_again() {
    let (right, wrong) = (content(2 * MIB, 4), content(2 * MIB, 5));
    let digest = Digest::sha256(&right);
    let liar = Scripted::new(digest, &wrong);
    let opened = liar.opened.clone();
    let scene = scene(vec![liar.named("liar"), Scripted::of(&right).named("honest")]).await;
    let mut refused = 0;
    // Who reads what is wrong never comes to its end.
    while let Err(error) = scene.read(&digest).await {
        refused += 1;
        assert!(error.contains("digest"), "{error}");
    }
    // The second came while the first was thrown away, if there was one.
    assert!((1..=2).contains(&refused));
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    assert_eq!(scene.read(&digest).await.unwrap(), right);
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_who_mixed_a_wrong_blob_the_guilty_one_is_found() {
    let (right, wrong) = (content(3 * MIB, 6), content(3 * MIB, 7));
    let digest = Digest::sha256(&right);
    for liar_first in [true, false] {
        let lies = Scripted::new(digest, &wrong);
        let honest = Scripted::of(&right);
        // The first brings a part, and then nothing more.
        let breaks = [MIB, 0];
        let sources = if liar_first {
            vec![lies.breaking(&breaks).named("liar"), honest.named("honest")]
        } else {
            vec![honest.breaking(&breaks).named("honest"), lies.named("liar")]
        };
        let scene = scene(sources).await;
        let mut refused = 0;
        loop {
            match scene.read(&digest).await {
                Ok(content) => break assert_eq!(content, right),
                Err(_) => refused += 1,
            }
            assert!(refused < 6, "the honest one is never asked alone");
        }
        scene.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_asked_for_once_in_a_while_and_what_fails_is_no_absence() {
    let content = content(10, 8);
    let absent = Digest::sha256(b"absent");
    let scene = scene(vec![Scripted::of(&content).named("one")]).await;
    assert!(matches!(scene.refill.stat(None, &absent).await, Err(RefillError::NotFound)));
    assert!(matches!(scene.refill.open(None, &absent).await, Err(RefillError::NotFound)));
    scene.end().await;

    let late = Scripted { gate: Arc::new(Semaphore::new(0)), ..Scripted::of(&content) };
    let digest = late.digest;
    let scene = self::scene(vec![late.named("silent")]).await;
    let error = scene.read(&digest).await.unwrap_err();
    assert!(error.contains("no answer in time"), "{error}");
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn lengths_that_differ_and_bytes_beyond_the_end_are_no_blob() {
    let content = content(2 * MIB, 9);
    let digest = Digest::sha256(&content);
    let short = Scripted { length: MIB as u64, ..Scripted::of(&content) };
    let scene = scene(vec![short.named("short"), Scripted::of(&content).named("right")]).await;
    assert!(scene.read(&digest).await.is_err());
    // A reader hears of the end before the fetch is over, and whoever comes then shares how it ended.
    while scene.refill.active().contains_key(&digest) {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.read(&digest).await.unwrap(), content);
    scene.end().await;

    let long = Scripted { length: 3 * MIB as u64, ..Scripted::of(&content) };
    let scene = self::scene(vec![long.named("long"), Scripted::of(&content).named("right")]).await;
    let error = scene.read(&digest).await.unwrap_err();
    assert!(error.contains("gone") || error.contains("long"), "{error}");
    let huge = Scripted { length: u64::MAX, ..Scripted::of(&content) };
    scene.end().await;
    let scene = self::scene(vec![huge.named("huge")]).await;
    assert!(scene.refill.stat(None, &digest).await.unwrap_err().to_string().contains("max_blob_size"));
    assert!(scene.refill.open(None, &digest).await.unwrap_err().to_string().contains("max_blob_size"));
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_come_at_once_and_who_waits_too_long_is_told() {
    let gate = Arc::new(Semaphore::new(0));
    let sources: Vec<_> =
        (0..17).map(|seed| Scripted { gate: gate.clone(), ..Scripted::of(&content(100, seed)) }).collect();
    let digests: Vec<_> = sources.iter().map(|source| source.digest).collect();
    let named = sources.into_iter().enumerate().map(|(at, source)| source.named(&at.to_string()));
    let scene = scene(named.collect()).await;
    for digest in &digests[..16] {
        assert!(matches!(scene.refill.open(None, digest).await.unwrap(), Entry::Partial(_)));
    }
    let error = scene.refill.open(None, &digests[16]).await.unwrap_err();
    assert!(error.to_string().contains("try again"), "{error}");
    gate.add_permits(100);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.read(&digests[16]).await.unwrap(), content(100, 16));
    scene.end().await;
}

#[tokio::test]
async fn a_stop_ends_whoever_reads_and_keeps_what_came() {
    let content = content(3 * MIB, 10);
    let source = Scripted { gate: Arc::new(Semaphore::new(3)), ..Scripted::of(&content) };
    let digest = source.digest;
    let scene = scene(vec![source.named("slow")]).await;
    let entry = scene.refill.open(None, &digest).await.unwrap();
    let mut reader = reader(&entry);
    let mut read = 0;
    while read < MIB {
        read += reader.next().await.unwrap().unwrap().len();
    }
    scene.refill.shutdown().await;
    assert!(reader.next().await.unwrap().is_err());
    assert!(
        matches!(scene.store.entry(&digest), Some(Entry::Partial(partial)) if partial.bitfield().count() == 1)
    );
    scene.store.close().await;
}
