//! Preheat: agents fetch an image before anybody pulls it, after all that is read.
//!
//! An order names the blobs of an image and which agents are to have it. It is published at the trackers, which choose the agents,
//! tell them with the answers to their announces, and know how far they are by what they announce: so any origin can say how far,
//! and nothing is kept here but what waits to be ordered. Whoever published an order says again that it holds, for a tracker that
//! has started since, and takes it back when all have it.

mod config;
mod notifications;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lru::LruCache;
use prometheus::{IntCounter, IntCounterVec, Opts};
use serde::{Deserialize, Serialize};
use shoal_control::prefetch::{PrefetchBlob, PrefetchOrder, PrefetchState, Selection};
use shoal_control::{ControlError, TrackerClient};
use shoal_core::{NameError, Reference, RepositoryName, causes};
use shoal_driver::TransferError;
use shoal_images::{ImageError, Plan, Source as _};
use shoal_registry::event::{Action, Event, Watcher};
use shoal_upstream::{Manifest, Platform};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::{NotificationsConfig, PreheatConfig};
pub(crate) use self::notifications::router;
use crate::images::Images;
use crate::queue::{
    Backoff, Journal, JournalError, Order, Queue, QueueError, QueueMetrics, QueueOptions, Shown,
};
use crate::replication::is_list_of_referrers;

/// Orders agents to fetch images. Clones are one.
#[derive(Clone)]
pub struct Preheat(Arc<Inner>);

struct Inner {
    images: Images,
    trackers: TrackerClient,
    rules: Vec<PreheatConfig>,
    queue: Queue<Job>,
    /// Orders of this origin that hold, and until when.
    held: Mutex<Vec<(PrefetchOrder, Instant)>>,
    /// The last orders that all agents have carried out.
    complete: Mutex<LruCache<u64, PrefetchState>>,
    orders: IntCounterVec,
    lost: IntCounter,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Who is to have an image, and for how long that is looked after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which agents.
    #[serde(flatten)]
    pub selection: Selection,
    /// The image for that platform; without it all.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// How long the order holds.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
}

/// An image that is to be ordered. The key names it, so that the latest replaces those before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Job {
    repository: RepositoryName,
    /// A tag or a digest.
    reference: String,
    wish: Wish,
}

/// Why an image is not ordered.
#[derive(Debug, thiserror::Error)]
pub enum PreheatError {
    /// It is not here.
    #[error("{0} is not in this cluster: push it first")]
    NotFound(String),
    /// It is no reference.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It cannot be looked up now.
    #[error("it cannot be looked up: {0}")]
    Here(#[from] TransferError),
    /// What it names cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It names more than an order has room for.
    #[error("the image has {0} blobs, and an order at most {max}: choose one platform", max = PrefetchOrder::MAX_BLOBS)]
    TooManyBlobs(usize),
    /// No tracker takes it.
    #[error(transparent)]
    Tracker(#[from] ControlError),
}

impl Preheat {
    /// Takes up what the queue still holds.
    pub(crate) fn start(
        rules: Vec<PreheatConfig>,
        images: Images,
        trackers: TrackerClient,
        (journal, queue_metrics): (&Journal, &QueueMetrics),
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let options =
            QueueOptions { name: "preheat".into(), order: Order::Any, backoff: BACKOFF, limit: MAX_WAITING };
        let help = "Orders to fetch an image that were published, by result: taken, failed";
        let orders = IntCounterVec::new(Opts::new("shoal_preheat_orders_total", help), &["result"])?;
        let help = "Pushes and notifications that the queue of orders did not take";
        let lost = IntCounter::new("shoal_preheat_lost_total", help)?;
        registry.register(Box::new(orders.clone()))?;
        registry.register(Box::new(lost.clone()))?;
        let preheat = Self(Arc::new(Inner {
            images,
            trackers,
            rules,
            queue: Queue::open(journal, options, queue_metrics.clone())?,
            held: Mutex::default(),
            complete: Mutex::new(LruCache::new(MAX_COMPLETE)),
            orders,
            lost,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        preheat.0.tasks.spawn(preheat.clone().work());
        preheat.0.tasks.spawn(preheat.clone().hold());
        Ok(preheat)
    }

    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn shown(&self) -> Box<dyn Shown> {
        Box::new(self.0.queue.clone())
    }

    /// Orders an image; gives the order and how many agents it is for, none of which has begun.
    pub async fn order(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        wish: &Wish,
    ) -> Result<PrefetchState, PreheatError> {
        let ordered = self.publish(repository, reference, wish).await;
        let result = if ordered.is_ok() { "taken" } else { "failed" };
        self.0.orders.with_label_values(&[result]).inc();
        ordered
    }

    /// All orders of the cluster that hold, and the last of this origin that all agents have carried out.
    pub async fn states(&self) -> Result<Vec<PrefetchState>, ControlError> {
        let mut states = self.0.trackers.prefetch_states().await?;
        let complete = self.0.complete.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, state) in complete.iter() {
            if !states.iter().any(|known| known.order.id == *id) {
                states.push(state.clone());
            }
        }
        Ok(states)
    }

    async fn publish(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        wish: &Wish,
    ) -> Result<PrefetchState, PreheatError> {
        let image = name_of(repository, reference);
        let blobs = self.blobs(repository, reference, wish.platform.as_ref()).await?;
        let ttl_ms = u64::try_from(wish.ttl.as_millis()).unwrap_or(u64::MAX);
        let ttl_ms = ttl_ms.clamp(1, PrefetchOrder::MAX_TTL_MS);
        let (id, repository, selection) = (rand::random(), repository.clone(), wish.selection.clone());
        let order = PrefetchOrder { id, image, repository, blobs, selection, ttl_ms };
        let agents = self.0.trackers.order_prefetch(&order).await?;
        tracing::info!(image = order.image, agents, zone = order.selection.zone.0, share = %order.selection.share, "agents are to fetch an image");
        let mut held = self.held();
        held.push((order.clone(), Instant::now() + Duration::from_millis(ttl_ms)));
        // As many as trackers take; more come only from before they started anew.
        let excess = held.len().saturating_sub(PrefetchOrder::MAX_ORDERS);
        held.drain(..excess);
        let whole = vec![0; order.blobs.len()];
        Ok(PrefetchState { order, agents, whole })
    }

    /// What an image consists of: manifests first, for whoever pulls reads them first.
    async fn blobs(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Vec<PrefetchBlob>, PreheatError> {
        let root = self.0.images.find(repository, reference).await?;
        let root = root.ok_or_else(|| PreheatError::NotFound(name_of(repository, reference)))?;
        let image = self.0.images.image(repository, root);
        let index = image.root().await?.descriptor();
        let plan = Plan::make(&image, platform, false).await?;
        let manifests = plan.manifests.iter().rev().map(Manifest::descriptor);
        let others = manifests.chain(plan.blobs.iter().cloned()).filter(|other| other.digest != root);
        let all = std::iter::once(index.clone()).chain(others);
        let blobs: Vec<_> = all.map(|blob| PrefetchBlob { digest: blob.digest, size: blob.size }).collect();
        match blobs.len() {
            count if count > PrefetchOrder::MAX_BLOBS => Err(PreheatError::TooManyBlobs(count)),
            _ => Ok(blobs),
        }
    }

    /// Orders what was pushed, one after the other, until it is to stop.
    async fn work(self) {
        loop {
            let taken = tokio::select! {
                () = self.0.stop.cancelled() => return,
                taken = self.0.queue.take() => taken,
            };
            let Job { repository, reference, wish } = taken.job.clone();
            let ordered = async {
                let reference = Reference::parse(&reference)?;
                self.order(&repository, &reference, &wish).await
            };
            let ordered = tokio::select! {
                () = self.0.stop.cancelled() => return,
                ordered = ordered => ordered,
            };
            match ordered {
                Ok(_) => taken.done().await,
                Err(error) => taken.failed(&causes(&error)).await,
            }
        }
    }

    /// Says again which orders hold, until it is to stop.
    async fn hold(self) {
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                () = tokio::time::sleep(HOLD) => {}
            }
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                () = self.hold_once() => {}
            }
        }
    }

    async fn hold_once(&self) {
        let now = Instant::now();
        self.held().retain(|(_, until)| now < *until);
        let held = self.held().clone();
        if held.is_empty() {
            return;
        }
        let states = self.0.trackers.prefetch_states().await.unwrap_or_default();
        for (mut order, until) in held {
            let complete = states.iter().find(|state| state.order.id == order.id && state.is_complete());
            let left = u64::try_from((until - now).as_millis()).unwrap_or(u64::MAX);
            order.ttl_ms = if complete.is_some() { 0 } else { left.max(1) };
            if let Err(error) = self.0.trackers.order_prefetch(&order).await {
                tracing::warn!(
                    image = order.image,
                    error = causes(&error),
                    "no tracker hears that an order holds"
                );
            } else if let Some(state) = complete {
                tracing::info!(image = order.image, agents = state.agents, "all agents have the image");
                self.held().retain(|(held, _)| held.id != order.id);
                let mut complete = self.0.complete.lock().unwrap_or_else(PoisonError::into_inner);
                complete.put(order.id, state.clone());
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<(PrefetchOrder, Instant)>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an image, if there is a rule for it. `digest` names it where it is known: the tag may move.
    async fn queue(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        exactly: Option<&Reference>,
    ) -> Result<(), QueueError> {
        let Some(rule) = self.0.rules.iter().find(|rule| rule.takes(repository, reference)) else {
            return Ok(());
        };
        let wish = rule.wish();
        let exactly = exactly.unwrap_or(reference).to_string();
        let job = Job { repository: repository.clone(), reference: exactly, wish };
        let queued = self.0.queue.add(&name_of(repository, reference), job).await;
        if let Err(error) = &queued {
            tracing::error!(%repository, %reference, %error, "no agent is told to fetch an image");
            self.0.lost.inc();
        }
        queued
    }
}

impl std::fmt::Debug for Preheat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preheat").field("held", &self.held().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Watcher for Preheat {
    fn watches(&self, action: &Action) -> bool {
        *action == Action::Push && !self.0.rules.is_empty()
    }

    async fn happened(&self, event: Event) {
        let is_manifest = event.target.as_ref().is_some_and(|target| target.is_manifest);
        if let Some(tag) = event.tag.filter(|tag| is_manifest && !is_list_of_referrers(tag)) {
            // It is counted and in the log; the push is done in any case.
            let _ = self.queue(&event.repository, &Reference::Tag(tag), None).await;
        }
    }
}

/// Preheat cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue is not there.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// As people call an image of this cluster.
fn name_of(repository: &RepositoryName, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{repository}:{tag}"),
        Reference::Digest(digest) => format!("{repository}@{digest}"),
    }
}

/// A tracker that restarts hears of an order before agents ask for the second time.
const HOLD: Duration = Duration::from_secs(10);
/// What is not here after a quarter of an hour does not come.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(120), tries: 15 };
/// How many images may wait to be ordered.
const MAX_WAITING: usize = 10_000;
/// How many orders that were carried out are remembered, for whoever waits for them.
const MAX_COMPLETE: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
