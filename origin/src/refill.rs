//! Blobs that no origin holds come from the sources, once, and are read while they come.
//!
//! One fetch a blob, whoever and however many ask: it belongs to the node, so a client that goes away costs nothing. Bytes go
//! into the store's partial in order, and nothing is a blob before its digest is proved; wrong bytes are thrown away and their
//! source is barred for a while. Which origin fetches is for [`crate::cluster`] to say.

mod answers;
mod arrival;
mod config;
mod fetch;
mod memory;
mod metrics;
mod retry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Signer, TransferError};
use shoal_store::{Blob, Entry, Partial, Store};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::RefillConfig;
use self::memory::{Memory, Question, Word};
use self::metrics::RefillMetrics;
use crate::source::{Pace, Source, SourceError};

/// A source by its name.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    /// How fast it is read.
    pub(crate) pace: Option<Pace>,
}

/// Why a blob does not come. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RefillError {
    /// No source has it, or gives it.
    #[error("no source has the blob")]
    NotFound,
    /// Not now.
    #[error("{0}")]
    Unavailable(Arc<str>),
    /// This origin is broken: its disk, say.
    #[error("{0}")]
    Failed(Arc<str>),
}

/// The blobs that come from the sources. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Refill(Arc<Inner>);

struct Inner {
    config: RefillConfig,
    sources: Vec<Named>,
    store: Store,
    sign: Signer,
    active: Mutex<HashMap<Digest, Active>>,
    asked: Mutex<HashMap<Question, Asked>>,
    memory: Mutex<Memory>,
    turns: Arc<Semaphore>,
    /// Partials that were given up and may be gone on with, the oldest first.
    given_up: Mutex<VecDeque<Digest>>,
    /// What is done with a blob that has come, before its turn is over.
    landed: OnceLock<Landed>,
    metrics: RefillMetrics,
    /// The node's: requests run on others, which they may leave at any time.
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// See [`Refill::on_landed`].
pub(crate) type Landed = Box<dyn Fn(Digest) -> BoxFuture<'static, ()> + Send + Sync>;

type Asked = Shared<BoxFuture<'static, Result<u64, RefillError>>>;

/// A fetch under way.
struct Active {
    /// On whose behalf: another repository may be given what this one is not.
    repository: Option<RepositoryName>,
    state: watch::Receiver<State>,
}

/// Where a fetch stands.
#[derive(Clone, Debug)]
enum State {
    /// No source has answered yet.
    Asking,
    Arriving(Partial),
    /// All of it is being proved, or thrown away: whoever comes now waits for the outcome.
    Ending(Partial),
    Whole(Blob),
    Failed(RefillError),
}

impl State {
    /// Whether there is something to tell whoever asks for the blob.
    fn is_told(&self) -> bool {
        !matches!(self, Self::Asking | Self::Ending(_))
    }
}

impl std::fmt::Debug for Refill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refill").field("active", &self.active().len()).finish_non_exhaustive()
    }
}

impl Refill {
    /// How many fetches may be under way or wait for their turn; and as many questions for a length. Who is refused here comes
    /// back.
    const MAX_ACTIVE: usize = 1024;
    /// How many partials that were given up are kept to be gone on with. Nothing is evicted at an origin, so without a limit
    /// they would stay for good.
    const MAX_GIVEN_UP: usize = 32;

    pub(crate) fn new(
        config: RefillConfig,
        sources: Vec<Named>,
        store: Store,
        sign: Signer,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let (memory, metrics) =
            (Memory::new(config.remember, config.bar), RefillMetrics::register(registry)?);
        let turns = config.fetches_at_once.clamp(1, Self::MAX_ACTIVE);
        let refill = Self(Arc::new(Inner {
            config,
            sources,
            active: Mutex::default(),
            asked: Mutex::default(),
            memory: Mutex::new(memory),
            turns: Arc::new(Semaphore::new(turns)),
            given_up: Mutex::new(left_over(&store)),
            landed: OnceLock::new(),
            store,
            sign,
            metrics,
            runtime: Handle::current(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        Ok(refill)
    }

    /// Has this done with every blob that has come. To be said once, before the first request.
    pub(crate) fn on_landed(&self, landed: Landed) {
        // The first to say it counts.
        let _ = self.0.landed.set(landed);
    }

    /// Whether there is anything behind this origin.
    pub(crate) fn has_sources(&self) -> bool {
        !self.0.sources.is_empty()
    }

    /// The blob, whole or on its way. Answers when its first byte came or cannot come.
    pub(crate) async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<Entry, RefillError> {
        let question = (repository.cloned(), *digest);
        // A fetch on behalf of another repository may fail where this one's would not.
        for _ in 0..2 {
            if let Some(blob) = self.0.store.blob(digest) {
                return Ok(Entry::Whole(blob));
            }
            if self.recall(&question) == Some(Word::Absent) {
                return Err(RefillError::NotFound);
            }
            let (mut state, is_ours) = self.join_or_start(&question)?;
            let state = match state.wait_for(State::is_told).await {
                Ok(state) => state.clone(),
                Err(_) => return Err(unavailable("the origin stops")),
            };
            match state {
                State::Arriving(partial) => return Ok(Entry::Partial(partial)),
                State::Whole(blob) => return Ok(Entry::Whole(blob)),
                State::Failed(RefillError::NotFound) if !is_ours => {}
                State::Failed(error) => return Err(error),
                State::Asking | State::Ending(_) => {}
            }
        }
        Err(RefillError::NotFound)
    }

    /// What is on its way of a blob.
    pub(crate) fn arriving(&self, digest: &Digest) -> Option<Partial> {
        match &*self.active().get(digest)?.state.borrow() {
            State::Arriving(partial) | State::Ending(partial) => Some(partial.clone()),
            State::Asking | State::Whole(_) | State::Failed(_) => None,
        }
    }

    /// Gives up what is on its way and waits until its tasks have ended. Pieces stay on disk.
    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn join_or_start(&self, question: &Question) -> Result<(watch::Receiver<State>, bool), RefillError> {
        let (repository, digest) = question;
        let mut active = self.active();
        if let Some(found) = active.get(digest) {
            return Ok((found.state.clone(), found.repository == *repository));
        }
        if active.len() >= Self::MAX_ACTIVE {
            return Err(unavailable("too many blobs are on their way from the sources: try again"));
        }
        let (sender, state) = watch::channel(State::Asking);
        active.insert(*digest, Active { repository: repository.clone(), state: state.clone() });
        self.0.metrics.active.inc();
        let task = self.clone().run(question.clone(), sender);
        self.0.tasks.spawn_on(task, &self.0.runtime);
        Ok((state, true))
    }

    /// What an answer means for whoever asked; nothing where the source does not have the blob.
    fn note(&self, source: &str, digest: &Digest, error: &SourceError) -> Option<RefillError> {
        match error {
            SourceError::NotFound => None,
            SourceError::Refused(reason) => {
                tracing::warn!(source, %digest, reason, "a source does not give a blob, or nothing that can be used");
                None
            }
            SourceError::Unavailable { .. } | SourceError::Failed(_) => {
                self.0.metrics.broken.with_label_values(&[source]).inc();
                tracing::warn!(source, %digest, %error, "a source does not give a blob");
                Some(unavailable(&format!("source {source}: {error}")))
            }
        }
    }

    /// How long that source may take to answer.
    fn patience(&self, named: &Named) -> Duration {
        named.source.patience().unwrap_or(self.0.config.answer_timeout)
    }

    fn too_long(&self, source: &str, length: u64) -> RefillError {
        let most = self.0.config.max_blob_size;
        unavailable(&format!(
            "source {source} has it with {length} bytes, and refill.max_blob_size is {most}"
        ))
    }

    fn recall(&self, question: &Question) -> Option<Word> {
        self.memory().recall(Instant::now(), question)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Digest, Active>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<RefillError> for TransferError {
    fn from(error: RefillError) -> Self {
        match error {
            RefillError::NotFound => Self::NotFound,
            RefillError::Unavailable(reason) => Self::Unavailable(reason.to_string()),
            RefillError::Failed(reason) => Self::Failed(reason.to_string().into()),
        }
    }
}

fn unavailable(reason: &str) -> RefillError {
    RefillError::Unavailable(reason.into())
}

/// A source took longer than it may.
fn late() -> SourceError {
    SourceError::Unavailable { reason: "no answer in time".to_owned(), retry_after: None }
}

/// What an earlier life began to receive, and did not end.
fn left_over(store: &Store) -> VecDeque<Digest> {
    let partials = store.digests().into_iter().filter(|(_, whole)| !whole);
    let uncut = partials.filter(|(digest, _)| match store.entry(digest) {
        Some(Entry::Partial(partial)) => partial.signed().is_none(),
        _ => false,
    });
    uncut.map(|(digest, _)| digest).collect()
}
