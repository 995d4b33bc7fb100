//! Notifications: what clients do to this origin's content is posted to the configured addresses, in the CNCF registry's
//! envelope, in order, and not forgotten over a restart.
//!
//! An event is in the queue of its webhook before the client gets its answer. A webhook that does not answer holds up
//! its own events alone; one that never does loses the oldest after some tries, and all that comes once its queue is full,
//! which metrics and `shoal status` show. In a cluster the origin that took a request posts what came of it.

mod config;
mod delivery;
mod envelope;

use std::time::SystemTime;

use async_trait::async_trait;
use prometheus::{IntCounterVec, Opts};
use serde::{Deserialize, Serialize};
use shoal_core::PeerId;
use shoal_registry::event::{Action, Event, Watcher};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::config::Rule;
pub use self::config::{WebhookConfig, WebhookError};
use self::delivery::Delivery;
use crate::queue::{Journal, Order, Queue, QueueMetrics, QueueOptions, Shown};

/// The webhooks of an origin.
pub(crate) struct Webhooks {
    all: Vec<Webhook>,
    lost: IntCounterVec,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Webhook {
    name: String,
    rule: Rule,
    queue: Queue<Notification>,
}

/// An event as it waits to be posted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Notification {
    /// The same in all tries.
    id: String,
    /// When it happened.
    at: SystemTime,
    event: Event,
}

impl Webhooks {
    /// Takes up what the queues still hold.
    pub(crate) fn start(
        configs: &[WebhookConfig],
        (journal, queue_metrics): (&Journal, &QueueMetrics),
        id: PeerId,
        metrics: &prometheus::Registry,
    ) -> Result<Self, WebhookError> {
        config::check_names(configs)?;
        let lost = Opts::new("shoal_webhook_lost_total", "Events that a webhook's queue did not take");
        let lost = IntCounterVec::new(lost, &["webhook"])?;
        metrics.register(Box::new(lost.clone()))?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut all = Vec::new();
        for config in configs {
            let options = QueueOptions {
                name: format!("webhook:{}", config.name).into(),
                order: Order::Strict,
                backoff: config.backoff(),
                limit: config.queue.max(1),
            };
            let queue = Queue::open(journal, options, queue_metrics.clone())?;
            let delivery = Delivery::new(config, id)?;
            tasks.spawn(delivery.run(queue.clone(), stop.clone()));
            all.push(Webhook { name: config.name.clone(), rule: config.rule()?, queue });
        }
        Ok(Self { all, lost, stop, tasks })
    }

    /// Ends the deliveries; what is not posted stays in its queue.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = Box<dyn Shown>> {
        self.all.iter().map(|webhook| Box::new(webhook.queue.clone()) as Box<dyn Shown>)
    }
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.iter().map(|webhook| &webhook.name)).finish()
    }
}

#[async_trait]
impl Watcher for Webhooks {
    fn watches(&self, action: &Action) -> bool {
        self.all.iter().any(|webhook| webhook.rule.wants_action(action))
    }

    async fn happened(&self, event: Event) {
        for Webhook { name, queue, .. } in self.all.iter().filter(|webhook| webhook.rule.wants(&event)) {
            let id = envelope::new_id(rand::random());
            let notification = Notification { id: id.clone(), at: SystemTime::now(), event: event.clone() };
            if let Err(error) = queue.add(&id, notification).await {
                tracing::error!(webhook = name, %error, repository = %event.repository, "an event is lost");
                self.lost.with_label_values(&[name]).inc();
            }
        }
    }
}
