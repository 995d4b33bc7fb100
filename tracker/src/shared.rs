//! State that several trackers share through a Redis or Valkey server.
//!
//! Memory is what is served from: no request waits for the server. What a node says is written there with its lease, and told to
//! the other trackers, who apply it; whoever was away compares everything. While the server is away nodes are told so, and
//! tell all trackers. What counts of a node is its latest word (see [`crate::state::replica`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_control::Sharing;
use shoal_core::PeerId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::state::replica::{Event, Followed, Record, Said};
use crate::state::{Limits, State};
use crate::waits::{Newcomer, Waits};
use link::Link;
use metrics::Metrics;
use outbox::Outbox;

/// What requests see of it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    waits: Arc<Waits>,
    outbox: Mutex<Outbox>,
    /// Something may wait to be written.
    noted: Notify,
    connection: Mutex<Connection>,
    /// How long after the connection broke nodes may still rely on it.
    patience: Duration,
    metrics: Metrics,
}

/// Shares for as long as it lives.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// What the task needs to know.
#[derive(Clone, Debug)]
struct Config {
    redis: Redis,
    lease: Duration,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
enum Connection {
    /// There was none yet.
    None,
    Good,
    BrokenSince(Instant),
}

impl Shared {
    /// Begins to share `state`, if that is configured.
    pub(crate) fn start(
        config: &crate::Config,
        state: &Arc<Mutex<State>>,
        waits: &Arc<Waits>,
        registry: &prometheus::Registry,
    ) -> Result<Option<Running>, prometheus::Error> {
        let Some(redis) = config.redis.clone() else { return Ok(None) };
        let shared = Arc::new(Self {
            state: Arc::clone(state),
            waits: Arc::clone(waits),
            outbox: Mutex::new(Outbox::new(redis.max_waiting)),
            noted: Notify::new(),
            connection: Mutex::new(Connection::None),
            // Nodes have told all trackers before their leases run out.
            patience: config.announce_interval,
            metrics: Metrics::register(registry)?,
        });
        let config = Config { redis, lease: config.lease, limits: config.limits.clone() };
        let task = tokio::spawn(Link::new(Arc::clone(&shared), config).run());
        Ok(Some(Running { shared, _task: AbortOnDropHandle::new(task) }))
    }

    /// Has an event written, and told to the others, soon.
    pub(crate) fn publish(&self, event: Event) {
        let waiting = {
            let mut outbox = self.outbox();
            outbox.push(event);
            outbox.len()
        };
        self.metrics.waiting.set(crate::metrics::gauge(waiting));
        self.noted.notify_one();
    }

    /// Whether it is enough to tell this tracker.
    pub(crate) fn sharing(&self) -> Sharing {
        let connection = *self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match connection {
            Connection::Good => Sharing::Shared,
            Connection::BrokenSince(since) if since.elapsed() < self.patience => Sharing::Shared,
            Connection::None | Connection::BrokenSince(_) => Sharing::Cut,
        }
    }

    fn connected(&self) {
        self.set(Connection::Good);
        self.metrics.connected.set(1);
        tracing::info!("state is shared");
    }

    fn disconnected(&self) {
        self.outbox().close();
        let connection = *self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(connection, Connection::Good) {
            self.set(Connection::BrokenSince(Instant::now()));
        }
        self.metrics.connected.set(0);
        self.metrics.waiting.set(0);
    }

    fn set(&self, connection: Connection) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Until something may wait to be written, which stays so while something does.
    async fn wait_for_events(&self) {
        while !self.outbox().is_due() {
            self.noted.notified().await;
        }
    }

    fn refuse(&self, what: &'static str, node: Option<PeerId>, error: &message::Nonsense) {
        let refused = self.metrics.refused.with_label_values(&[what]);
        let (count, node, error) =
            (refused.get(), node.map(|node| node.to_string()), error as &dyn std::error::Error);
        refused.inc();
        if count.is_multiple_of(REFUSALS_PER_WARNING) {
            tracing::warn!(node, error, count = count + 1, "shared {what} refused");
        } else {
            tracing::debug!(node, error, "shared {what} refused");
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Each change is one call, which leaves it whole.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what another tracker was told.
    fn follow(&self, event: Event) -> Followed {
        let now = Instant::now().into_std();
        match &event.said {
            Said::Changed { announce, .. } => {
                let newcomer = Newcomer::of(announce);
                self.waits.tell(&self.state, newcomer, |state| state.follow(now, event))
            }
            Said::Whole | Said::Left => self.state().follow(now, event),
        }
    }

    /// Takes all that is known of a node elsewhere.
    fn adopt(&self, record: Record) -> Followed {
        let (now, newcomer) = (Instant::now().into_std(), Newcomer::of(&record.announce));
        self.waits.tell(&self.state, newcomer, |state| state.adopt(now, record))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        crate::api::lock(&self.state)
    }
}

/// Whoever writes nonsense to the server without end shall not fill the log too.
const REFUSALS_PER_WARNING: u64 = 1000;

mod config;
mod link;
mod message;
mod metrics;
mod outbox;
mod store;

pub use config::Redis;
