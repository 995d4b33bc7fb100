//! Replication: what is pushed here is copied to other registries, by rules, and not forgotten over a restart.
//!
//! A tag that was pushed is a job before the client has its answer. What a job does is decided by what the tag names when it is
//! done: several pushes of a tag are one job, and one that is done twice does nothing the second time. All that an image names is
//! there before its tag.
//!
//! No write goes round: a tag that names the same there is not written, what came by replication makes no job (or, passed on,
//! comes over eight clusters at most), and of two writes that crossed each other one is done again (`swaps`). Comparing all tags
//! by and by (`reconcile`) only adds tags, unless the target is a mirror.

mod config;
mod mark;
mod metrics;
mod reconcile;
mod sink;
mod swaps;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_images::Sessions;
use shoal_registry::event::{Action, Event, Watcher};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::config::is_list_of_referrers;
pub use self::config::{Hosts, Moved, ReplicationConfig, ReplicationError};
use self::metrics::Metrics;
use self::sink::Turns;
use self::swaps::Swaps;
use self::worker::Worker;
use crate::images::Images;
use crate::queue::{Journal, Order, Queue, QueueMetrics, QueueOptions, Shown};

/// The rules of an origin, at work.
pub(crate) struct Replication {
    rules: Vec<Arc<Rule>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// One rule, and what it needs.
struct Rule {
    config: ReplicationConfig,
    queue: Queue<Job>,
    images: Images,
    swaps: Swaps,
    turns: Turns,
    sessions: Option<Sessions>,
    metrics: Metrics,
}

/// What is to be there as it is here. The key says the same, so that the latest replaces those before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Job {
    repository: RepositoryName,
    what: What,
    /// Over how many clusters it came.
    #[serde(default)]
    hops: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Tag(Tag),
    /// One that came without a tag: it goes where the manifest is that it is about.
    Manifest(Digest),
}

impl Replication {
    /// Takes up what the queues still hold. `directory`: where uploads are noted that a restart goes on with.
    pub(crate) fn start(
        configs: &[ReplicationConfig],
        images: &Images,
        (journal, queue_metrics): (&Journal, &QueueMetrics),
        directory: &Path,
        registry: &prometheus::Registry,
    ) -> Result<Self, ReplicationError> {
        config::check(configs)?;
        let metrics = Metrics::register(registry)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut rules = Vec::new();
        for config in configs {
            let options = QueueOptions {
                name: format!("replication:{}", config.name).into(),
                order: Order::Any,
                backoff: config.backoff(),
                limit: config.queue.max(1),
            };
            let rule = Rule {
                config: config.clone(),
                queue: Queue::open(journal, options, queue_metrics.clone())?,
                images: images.clone(),
                swaps: Swaps::new(),
                turns: Turns::default(),
                sessions: Sessions::open(&directory.join(&config.name)),
                metrics: metrics.clone(),
            };
            rules.push(Arc::new(rule));
        }
        for rule in &rules {
            // A file that cannot be read is said now and not by each job.
            rule.check()?;
            for _ in 0..rule.config.images_at_once.max(1) {
                tasks.spawn(Worker(rule.clone()).run(stop.clone()));
            }
            if !rule.config.reconcile.is_zero() {
                tasks.spawn(reconcile::run(rule.clone(), stop.clone()));
            }
        }
        Ok(Self { rules, stop, tasks })
    }

    /// Ends the copies; what is not done stays in its queue.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = Box<dyn Shown>> {
        self.rules.iter().map(|rule| Box::new(rule.queue.clone()) as Box<dyn Shown>)
    }

    /// The rules that an event is for: for each target the first that takes it.
    fn rules_for(&self, job: &Job) -> Vec<&Rule> {
        let mut chosen: Vec<&Rule> = Vec::new();
        for rule in &self.rules {
            let is_first = !chosen.iter().any(|other| other.config.to == rule.config.to);
            if is_first && rule.takes(job) {
                chosen.push(rule);
            }
        }
        chosen
    }
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| &rule.config.name)).finish()
    }
}

impl Rule {
    fn takes(&self, job: &Job) -> bool {
        let tag_is = match &job.what {
            What::Tag(tag) => self.config.takes(tag),
            What::Manifest(_) => true,
        };
        tag_is && self.config.rename(&job.repository).is_some()
    }

    /// Whether there is anything to do about an event that has that job.
    fn heeds(&self, event: &Event, job: &Job) -> bool {
        if event.action == Action::Delete && !self.config.delete {
            return false;
        }
        if job.hops == 0 || (self.config.pass_on && job.hops < mark::MAX_HOPS) {
            return true;
        }
        let came = event.target.as_ref().map(|target| target.digest);
        let is_swap = came.is_some_and(|came| self.swaps.is_to_go_back(Instant::now(), &job.key(), &came));
        if is_swap {
            tracing::warn!(
                rule = self.config.name,
                tag = job.key(),
                "two clusters wrote a tag at once: the greater digest is sent again"
            );
        }
        is_swap
    }

    async fn add(&self, job: Job) {
        let key = job.key();
        if let Err(error) = self.queue.add(&key, job).await {
            tracing::error!(rule = self.config.name, key, %error, "not queued for replication");
            self.metrics.lost(&self.config.name);
        }
    }
}

impl Job {
    fn of(event: &Event) -> Option<Self> {
        let what = match (&event.tag, &event.target) {
            (_, Some(target)) if !target.is_manifest => return None,
            (Some(tag), _) => What::Tag(tag.clone()),
            (None, Some(target)) => What::Manifest(target.digest),
            (None, None) => return None,
        };
        let hops = mark::hops(&event.client.user_agent);
        Some(Self { repository: event.repository.clone(), what, hops })
    }

    fn key(&self) -> String {
        match &self.what {
            What::Tag(tag) => key_of(&self.repository, tag),
            What::Manifest(digest) => format!("{}@{digest}", self.repository),
        }
    }
}

/// A tag's name in the queue.
fn key_of(repository: &RepositoryName, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

#[async_trait]
impl Watcher for Replication {
    fn watches(&self, action: &Action) -> bool {
        match action {
            Action::Push => !self.rules.is_empty(),
            Action::Delete => self.rules.iter().any(|rule| rule.config.delete),
            Action::Pull | Action::Mount { .. } => false,
        }
    }

    async fn happened(&self, event: Event) {
        let Some(job) = Job::of(&event) else { return };
        for rule in self.rules_for(&job) {
            if rule.heeds(&event, &job) {
                rule.add(job.clone()).await;
            }
        }
    }
}
