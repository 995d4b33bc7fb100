//! One fetch a blob, whoever and how many ask for it.
//!
//! The first caller starts it and the others wait on the same entry. A fetch belongs to the agent, not to the request
//! that caused it: a client that goes away costs nothing, the next one finds more pieces. One of which only parts were
//! asked for brings what is read, and ends when nobody has read for long.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use lru::LruCache;
use shoal_control::Seen;
use shoal_core::{Digest, PeerAddress, RepositoryName, causes};
use shoal_store::{CreateError, Entry, Evictions, Partial, Store};
use shoal_transfer::{Fetch, FetchEvent, Transfer, Want};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::follow::{FollowError, Follower};
use crate::holdings::Holdings;
use crate::interest::{Interest, Reading};
use crate::news::{Answer, News, Watch};
use crate::search::{Search, Verified};

/// Why a blob cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The cluster does not have it, or not in that repository.
    #[error("the cluster does not have the blob in that repository")]
    NotFound,
    /// Nobody who could say, or give it, answers.
    #[error("{0}")]
    Unavailable(Arc<str>),
    /// Something here is broken: the disk, say.
    #[error("{0}")]
    Failed(Arc<str>),
}

/// The blobs that are on their way. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetches(Arc<Inner>);

struct Inner {
    store: Store,
    transfer: Transfer,
    search: Search,
    follower: Follower,
    holdings: Holdings,
    /// The node's: requests run on others, which they may leave at any time.
    runtime: Handle,
    admission: tokio::sync::Mutex<()>,
    /// Rings whoever waits for room when a fetch has ended.
    ended: Notify,
    active: Mutex<HashMap<Digest, Active>>,
    found: Mutex<LruCache<Digest, (Verified, Instant)>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// How long a fetch of what is read goes on without a reader.
    idle_timeout: Duration,
}

/// A blob on its way.
struct Active {
    opening: Opening,
    interest: Arc<Interest>,
}

type Opening = Shared<Pin<Box<dyn Future<Output = Result<Entry, FetchError>> + Send>>>;

impl std::fmt::Debug for Fetches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetches").field("active", &self.active().len()).finish_non_exhaustive()
    }
}

impl Fetches {
    /// How many answers of the cluster are kept for the request that follows at once.
    const MAX_FOUND: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
    /// How long an answer is good for: a runtime asks for a blob's head and then for its body.
    const FOUND_TTL: Duration = Duration::from_secs(10);
    /// How many blobs may be on their way at once: what one more asks for is refused, and asked for again. Those that rest do
    /// not count.
    const MAX_ACTIVE: usize = 1024;
    /// How many fetches of what is read may wait for their next reader: one more ends at once, as if nobody were to come. A
    /// host that mounts a few images lazily has some hundred layers.
    const MAX_RESTING: usize = 256;
    /// How often is looked whether what nobody waits for is there.
    const PREFETCH_LOOK: Duration = Duration::from_millis(250);
    /// How long a blob may wait for room that is about to be there. 3 s: a disk that takes longer to sync is in trouble, and a
    /// runtime is to turn to its next mirror within 5.
    const MAKE_WAY: Duration = Duration::from_secs(3);

    pub(crate) fn new(
        store: Store,
        transfer: Transfer,
        search: Search,
        follower: Follower,
        holdings: Holdings,
        idle_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            transfer,
            search,
            follower,
            holdings,
            admission: tokio::sync::Mutex::default(),
            ended: Notify::new(),
            active: Mutex::default(),
            found: Mutex::new(LruCache::new(Self::MAX_FOUND)),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            idle_timeout,
        }))
    }

    /// Asks the cluster for a blob that the repository must be allowed to see (`None`: any repository).
    pub(crate) async fn find(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<Verified, FetchError> {
        let verified = self.0.search.find(repository, digest).await?;
        self.found().put(*digest, (verified.clone(), Instant::now()));
        Ok(verified)
    }

    /// The blob, whole or on its way as far as is wanted. The caller has checked that it may be seen, and holds what comes with
    /// a blob on its way for as long as it reads.
    pub(crate) async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        want: Want,
    ) -> Result<(Entry, Option<Reading>), FetchError> {
        if let Some(blob) = self.0.store.blob(digest) {
            self.0.holdings.used(digest);
            return Ok((Entry::Whole(blob), None));
        }
        let (opening, reading) = self.join_or_start(repository, digest, want)?;
        Ok((opening.await?, Some(reading)))
    }

    /// Fetches all of a blob for whoever asks for it later. The caller has checked that it may be seen.
    pub(crate) async fn prefetch(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), FetchError> {
        let (entry, reading) = self.open(Some(repository), digest, Want::Prefetch).await?;
        if matches!(entry, Entry::Whole(_)) {
            return Ok(());
        }
        // Nobody reads it: it shall make room as what was read does.
        drop(reading);
        loop {
            let is_under_way = self.active().contains_key(digest);
            if self.0.store.blob(digest).is_some() {
                return Ok(());
            }
            if !is_under_way {
                return Err(FetchError::Unavailable("its fetch was given up".into()));
            }
            tokio::time::sleep(Self::PREFETCH_LOOK).await;
        }
    }

    /// Sees to it that nobody is promised what the store gave up, until `shutdown`.
    pub(crate) fn follow(&self, mut evictions: Evictions, access: Access) {
        let (stop, holdings, transfer) =
            (self.0.stop.clone(), self.0.holdings.clone(), self.0.transfer.clone());
        let follow = async move {
            while let Some(digest) = evictions.next().await {
                access.forget(&digest).await;
                holdings.changed(&digest);
                transfer.forget(&digest).await;
            }
        };
        self.0.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
    }

    /// Gives up what is on its way and waits until its tasks have ended. Pieces stay on disk.
    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn join_or_start(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        want: Want,
    ) -> Result<(Opening, Reading), FetchError> {
        let mut active = self.active();
        if let Some(Active { opening, interest }) = active.get(digest) {
            return Ok((opening.clone(), interest.join(want)));
        }
        if active.len() - resting(&active) >= Self::MAX_ACTIVE {
            return Err(FetchError::Unavailable("too many blobs are being fetched: try again".into()));
        }
        let interest = Interest::new(want);
        let reading = interest.join(want);
        let opening = self.clone().start(repository.cloned(), *digest, interest.clone()).boxed().shared();
        active.insert(*digest, Active { opening: opening.clone(), interest });
        // The task goes on if the request that started it goes away.
        self.0.tasks.spawn_on(opening.clone(), &self.0.runtime);
        Ok((opening, reading))
    }

    async fn start(
        self,
        repository: Option<RepositoryName>,
        digest: Digest,
        interest: Arc<Interest>,
    ) -> Result<Entry, FetchError> {
        let want = interest.want();
        let result = self.begin(repository.as_ref(), &digest, want).await;
        match result {
            Ok((Entry::Partial(partial), Some((fetch, seen)))) => {
                let whose = (repository, partial.clone());
                let supervised = self.clone().supervise(fetch, seen, want, interest, whose);
                self.0.tasks.spawn_on(supervised, &self.0.runtime);
                Ok(Entry::Partial(partial))
            }
            Ok((entry, _)) => {
                self.active().remove(&digest);
                Ok(entry)
            }
            Err(error) => {
                self.active().remove(&digest);
                Err(error)
            }
        }
    }

    async fn begin(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        want: Want,
    ) -> Result<(Entry, Option<(Fetch, Option<Seen>)>), FetchError> {
        let verified = match self.recall(digest) {
            Some(verified) => verified,
            None => self.find(repository, digest).await?,
        };
        let entry = self.make_room_and_create(&verified).await;
        let entry = entry.map_err(|error| FetchError::Failed(causes(&error).into()))?;
        match entry {
            Entry::Whole(blob) => Ok((Entry::Whole(blob), None)),
            Entry::Partial(partial) => {
                let fetch = self.fetch(&partial, verified.peers(), want).await?;
                Ok((Entry::Partial(partial), Some((fetch, verified.seen()))))
            }
        }
    }

    /// One at a time, or two would count on the same room. Those that come meanwhile wait no longer for it.
    async fn make_room_and_create(&self, verified: &Verified) -> Result<Entry, CreateError> {
        let deadline = tokio::time::Instant::now() + Self::MAKE_WAY;
        let _alone = self.0.admission.lock().await;
        while !self.0.store.has_room(verified.length()).await && self.is_about_to_make_room() {
            if timeout_at(deadline, self.0.ended.notified()).await.is_err() {
                break;
            }
        }
        self.0.store.create(verified.metainfo()).await
    }

    /// Ends what rests, so that the store may give it up; and a blob that was read to its end is on its way to the disk, which
    /// may be slow. Says whether there is any of either.
    fn is_about_to_make_room(&self) -> bool {
        let active = self.active();
        let leaving =
            active.values().filter(|Active { interest, .. }| interest.make_way() || interest.is_read());
        leaving.count() > 0
    }

    async fn fetch(
        &self,
        partial: &Partial,
        peers: Vec<PeerAddress>,
        want: Want,
    ) -> Result<Fetch, FetchError> {
        let fetch = self.0.transfer.fetch_some(partial.clone(), peers, want).await;
        let fetch = fetch.map_err(|error| FetchError::Failed(causes(&error).into()))?;
        self.0.holdings.changed(partial.metainfo().digest());
        Ok(fetch)
    }

    /// Answers the fetch's questions, and tells it what more is wanted than `told`, until it has ended or rested for long.
    async fn supervise(
        self,
        mut fetch: Fetch,
        seen: Option<Seen>,
        mut told: Want,
        interest: Arc<Interest>,
        (repository, partial): (Option<RepositoryName>, Partial),
    ) {
        let digest = *partial.metainfo().digest();
        let follow = self.0.follower.follow(repository.as_ref(), &partial);
        let (mut follow, mut follows) = (std::pin::pin!(follow), true);
        let (started, mut changes) = (Instant::now(), interest.changes());
        let question = |seen| self.more_peers(repository.as_ref(), &digest, seen).boxed();
        let mut watch = Watch::new(seen);
        loop {
            let want = interest.want();
            if want > told {
                fetch.raise(want).await;
                told = want;
            }
            let rest_ends = self.rest_ends(&interest);
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => break,
                event = fetch.next() => match event {
                    Some(FetchEvent::FindPeers) => watch.ask(question),
                    Some(event) => self.ended(&digest, event, started),
                    None => break,
                },
                news = watch.next(question) => match news {
                    News::Peers(peers) => fetch.add_peers(peers).await,
                    News::Nobody => fetch.add_peers(Vec::new()).await,
                },
                followed = &mut follow, if follows => match followed {
                    Ok(()) => follows = false,
                    Err(error) => {
                        self.lost_its_origin(fetch, &partial, &error).await;
                        break;
                    }
                },
                () = changes.next() => {}
                () = sleep_until(rest_ends.unwrap_or_else(tokio::time::Instant::now)), if rest_ends.is_some() => {
                    match self.end_if_unread(fetch, &interest, &digest) {
                        Some(read) => fetch = read,
                        None => return,
                    }
                }
            }
        }
        self.active().remove(&digest);
        self.0.ended.notify_one();
    }

    /// When a fetch that rests has done so for long; at once if too many rest.
    fn rest_ends(&self, interest: &Interest) -> Option<tokio::time::Instant> {
        let crowded = resting(&self.active()) > Self::MAX_RESTING;
        interest.rest_ends(if crowded { Duration::ZERO } else { self.0.idle_timeout })
    }

    /// Ends a fetch that nobody reads; gives back one that somebody came to just now. Whoever comes after that begins anew.
    fn end_if_unread(&self, fetch: Fetch, interest: &Interest, digest: &Digest) -> Option<Fetch> {
        let mut active = self.active();
        if interest.rests_since().is_none() {
            return Some(fetch);
        }
        // Gone before another can begin.
        drop(fetch);
        active.remove(digest);
        drop(active);
        self.0.ended.notify_one();
        tracing::debug!(%digest, "nobody reads the blob, its fetch ends");
        self.0.holdings.gave_up(digest);
        None
    }

    /// What a blob's pieces must be is not to be learned any more. Where that is because they were wrong, they go.
    async fn lost_its_origin(&self, fetch: Fetch, partial: &Partial, error: &FollowError) {
        let digest = *partial.metainfo().digest();
        tracing::warn!(%digest, %error, "fetch was given up: its origin does not say how it goes on");
        partial.fail(&error.to_string());
        drop(fetch);
        if error.is_of_the_blob()
            && let Err(error) = self.0.store.delete(&digest).await
        {
            tracing::warn!(%digest, error = causes(&error), "wrong pieces stay on the disk");
        }
        self.0.holdings.gave_up(&digest);
    }

    fn ended(&self, digest: &Digest, event: FetchEvent, started: Instant) {
        match event {
            FetchEvent::FindPeers => {}
            FetchEvent::Complete(blob) => {
                let (bytes, seconds) = (blob.metainfo().length(), started.elapsed().as_secs_f64());
                tracing::info!(%digest, bytes, seconds, "blob is whole");
                self.0.holdings.changed(digest);
            }
            FetchEvent::Failed(error) => {
                tracing::warn!(%digest, %error, "fetch was given up");
                self.0.holdings.gave_up(digest);
            }
        }
    }

    async fn more_peers(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        seen: Option<Seen>,
    ) -> Answer {
        let found = match seen {
            Some(seen) => self.0.search.find_news(repository, digest, seen, Watch::WAIT).await,
            None => self.0.search.find(repository, digest).await,
        };
        match found {
            Ok(verified) => Answer { peers: verified.peers(), seen: verified.seen() },
            Err(error) => {
                tracing::info!(%digest, %error, "no more peers known");
                Answer::default()
            }
        }
    }

    fn recall(&self, digest: &Digest) -> Option<Verified> {
        let mut found = self.found();
        let (verified, at) = found.get(digest)?;
        (at.elapsed() < Self::FOUND_TTL).then(|| verified.clone())
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Digest, Active>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, LruCache<Digest, (Verified, Instant)>> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many wait for their next reader.
fn resting(active: &HashMap<Digest, Active>) -> usize {
    active.values().filter(|active| active.interest.rests_since().is_some()).count()
}
