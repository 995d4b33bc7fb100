//! The tasks that keep a node known to its trackers: they renew its leases, tell changes soon and in batches, send everything
//! to a tracker that asks for it, and say goodbye.
//!
//! One task a tracker, so that a slow one delays nobody else; what each has to be told is the book's to decide. Invariant: once
//! a tracker answers and nothing changes any more, it knows all of the caller's snapshot that is its share, and nothing that is
//! not in it. Noting a change never blocks and never fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::{Digest, PeerAddress};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::changes::Change;
use crate::message::{Announced, Holding};
use crate::prefetch::PrefetchOrder;
use crate::tracker::TrackerClient;
use book::{Book, Errand};
use session::{Node, Session, Snapshot};

/// Announces a node for as long as it lives. Dropped, it stops at once, and the leases run out.
#[derive(Debug)]
pub struct Announcer {
    handle: AnnouncerHandle,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Tells the announcer what changed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnnouncerHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: TrackerClient,
    book: Mutex<Book>,
    /// One a session: there may be something to tell.
    changed: Vec<Notify>,
    /// Whether all trackers that answer know all that was noted.
    settled: watch::Sender<bool>,
    /// Whether a tracker has taken an announce at all.
    taken: AtomicBool,
    /// The number of the latest revocation list that a tracker was heard of.
    revocations: watch::Sender<u64>,
    /// The orders that trackers have for this node, by the trackers' places.
    orders: watch::Sender<Orders>,
}

/// Ids of orders to fetch something, by the place of the tracker that has them.
pub type Orders = BTreeMap<usize, Vec<u64>>;

/// How long a node that shuts down waits for the trackers to hear its goodbye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

impl Announcer {
    /// Starts to announce the node, wherever it is (`api`: an origin's internal API), with everything first.
    ///
    /// `snapshot` says what the node has. It is called on a blocking thread whenever a tracker must be told everything; a
    /// change must be in it before it is noted here.
    pub fn start<S>(
        client: TrackerClient,
        address: watch::Receiver<PeerAddress>,
        api: Option<String>,
        snapshot: S,
    ) -> Self
    where
        S: Fn() -> Vec<Holding> + Send + Sync + 'static,
    {
        let book = Book::new(client.rendezvous(), &address.borrow().id);
        let places = 0..=book.stand_in();
        let shared = Arc::new(Shared {
            client,
            book: Mutex::new(book),
            changed: places.clone().map(|_| Notify::new()).collect(),
            settled: watch::Sender::new(false),
            taken: AtomicBool::new(false),
            revocations: watch::Sender::new(0),
            orders: watch::Sender::default(),
        });
        let (node, snapshot) = (Node { address, api: api.map(Arc::from) }, Snapshot::new(snapshot));
        let sessions =
            places.map(|place| Session::new(place, Arc::clone(&shared), node.clone(), snapshot.clone()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(sessions.collect(), Arc::clone(&shared), stop.clone()));
        Self { handle: AnnouncerHandle(shared), stop, task: AbortOnDropHandle::new(task) }
    }

    /// What others note changes with.
    #[must_use]
    pub fn handle(&self) -> AnnouncerHandle {
        self.handle.clone()
    }

    /// Stops, and says goodbye to the trackers that answer within a second.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn std::error::Error, "announcer ended badly");
        }
    }
}

impl AnnouncerHandle {
    /// The node has this blob now, or more of it than before.
    pub fn added(&self, holding: Holding) {
        self.0.note(holding.digest, Change::Added { complete: holding.complete });
    }

    /// The node has this blob no more.
    pub fn removed(&self, digest: Digest) {
        self.0.note(digest, Change::Removed);
    }

    /// Whether a tracker has taken an announce of this node since it started; if not, why it is not ready.
    pub fn ready(&self) -> Result<(), String> {
        if self.0.taken.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("no tracker has taken an announce of this node yet".into())
    }

    /// The number of the latest revocation list that trackers were heard of; 0: none.
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.0.revocations.subscribe()
    }

    /// Which orders to fetch something trackers have for this node, as they said last.
    #[must_use]
    pub fn orders(&self) -> watch::Receiver<Orders> {
        self.0.orders.subscribe()
    }

    /// Waits until the trackers that answer know all that was noted before this call. It never ends while none does, so limit it.
    pub async fn settled(&self) {
        let mut settled = self.0.settled.subscribe();
        // The sender is in `self`.
        let _ = settled.wait_for(|&settled| settled).await;
    }
}

impl Shared {
    fn note(&self, digest: Digest, change: Change) {
        let mut book = self.book();
        book.note(digest, change);
        self.settled.send_replace(false);
        drop(book);
        self.wake();
    }

    fn take(&self, place: usize) -> Errand {
        self.book().take(place)
    }

    fn put_back(&self, place: usize, errand: Errand) -> u32 {
        let mut book = self.book();
        let (failures, live) = (book.failed(place, errand), book.live());
        self.settled.send_replace(book.is_settled());
        drop(book);
        self.client.rely_on(live);
        // There may be others to tell instead.
        self.wake();
        failures
    }

    /// Notes that a tracker took what was taken out for it last. `moved`: it is another than the last time.
    fn settle(&self, place: usize, errand: &Errand, announced: &Announced, moved: bool) {
        self.taken.store(true, Ordering::Relaxed);
        self.revocations.send_if_modified(|known| {
            let is_news = *known < announced.revocations;
            *known = announced.revocations.max(*known);
            is_news
        });
        let mut book = self.book();
        book.taken(place, errand, announced, moved);
        let (live, any) = (book.live(), book.any_will_do().then(|| book.sharing()));
        self.settled.send_replace(book.is_settled());
        drop(book);
        self.client.rely_on(live);
        self.client.take_any(any);
        self.wake();
    }

    /// Notes which orders a tracker has for this node.
    fn note_orders(&self, server: usize, announced: &Announced) {
        let ids = &announced.prefetch[..announced.prefetch.len().min(PrefetchOrder::MAX_ORDERS)];
        self.orders.send_if_modified(|orders| {
            let is_news = orders.get(&server).map_or(&[][..], Vec::as_slice) != ids;
            if ids.is_empty() {
                orders.remove(&server);
            } else if is_news {
                orders.insert(server, ids.to_vec());
            }
            is_news
        });
    }

    fn wake(&self) {
        self.changed.iter().for_each(Notify::notify_one);
    }

    async fn wait_until(&self, place: usize, so: impl Fn(&Book) -> bool) {
        while !so(&self.book()) {
            self.changed[place].notified().await;
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is one call on the book, which has no half-done state that a panic could leave.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run<S>(sessions: Vec<Session<S>>, shared: Arc<Shared>, stop: CancellationToken)
where
    S: Fn() -> Vec<Holding> + Send + Sync + 'static,
{
    let mut tasks: JoinSet<()> = sessions.into_iter().map(Session::run).collect();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        Some(Err(error)) = tasks.join_next() => {
            tracing::error!(error = &error as &dyn std::error::Error, "a tracker is told nothing any more");
            stop.cancelled().await;
        }
    }
    tasks.shutdown().await;
    match timeout(LEAVE_TIMEOUT, shared.client.leave()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::info!(error = &error as &dyn std::error::Error, "left without a goodbye");
        }
        Err(_) => tracing::info!("left without a goodbye: no tracker answered in time"),
    }
}

mod book;
mod session;
