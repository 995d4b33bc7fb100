//! The origins of the cluster as they are now: probed all the time by one task, and asked by everybody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use shoal_control::ClusterClient;
use shoal_core::Places;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::health::{Change, Health, Rules};

/// A handle to what is known of the origins; clones are one.
#[derive(Clone)]
pub(super) struct Members(Arc<Inner>);

struct Inner {
    client: ClusterClient,
    timeout: Duration,
    /// What all origins of the same configuration say.
    fingerprint: u64,
    health: Mutex<Health>,
    well: watch::Sender<Places>,
    count: IntGauge,
    wake: Notify,
    /// Whose configuration is another.
    disagreeing: Mutex<Places>,
}

impl Members {
    pub(super) fn new(
        client: ClusterClient,
        (own, fingerprint): (usize, u64),
        rules: Rules,
        timeout: Duration,
        count: IntGauge,
    ) -> Self {
        let health = Health::new(client.urls().len(), own, rules, Instant::now());
        let well = watch::Sender::new(health.well());
        count.set(1);
        let (health, wake) = (Mutex::new(health), Notify::new());
        Self(Arc::new(Inner {
            client,
            timeout,
            fingerprint,
            health,
            well,
            count,
            wake,
            disagreeing: Mutex::new(Places::NONE),
        }))
    }

    /// Who is well, this origin among them.
    pub(super) fn well(&self) -> Places {
        *self.0.well.borrow()
    }

    /// Tells of every change of that.
    pub(super) fn changes(&self) -> watch::Receiver<Places> {
        self.0.well.subscribe()
    }

    /// Waits until that origin counts as away.
    pub(super) async fn went_away(&self, place: usize) {
        // The sender is here as long as this is.
        let _ = self.changes().wait_for(|well| !well.contains(place)).await;
    }

    /// A question to that origin was not answered.
    pub(super) fn failed(&self, place: usize) {
        let change = self.health().failed(Instant::now(), place);
        self.note(place, change);
        self.0.wake.notify_one();
    }

    /// Probes until it is stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut probes = JoinSet::new();
        loop {
            let due = self.health().due(Instant::now());
            for place in due {
                let members = self.clone();
                probes.spawn(async move { members.probe(place).await });
            }
            let next = self.health().next_due();
            let next = next.unwrap_or_else(|| Instant::now() + FOREVER);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(_) = probes.join_next() => {}
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    async fn probe(&self, place: usize) {
        let change = match self.0.client.probe(place, self.0.timeout).await {
            Ok(probed) => {
                self.compare(place, probed.members);
                self.health().succeeded(place)
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "an origin does not answer");
                self.health().failed(Instant::now(), place)
            }
        };
        self.note(place, change);
    }

    /// Says so once where origins divide blobs differently. They go on: a list is changed on one after the other.
    fn compare(&self, place: usize, fingerprint: u64) {
        let disagrees = fingerprint != self.0.fingerprint;
        let mut known = self.0.disagreeing.lock().unwrap_or_else(PoisonError::into_inner);
        if disagrees && !known.contains(place) {
            let url = self.url(place);
            tracing::warn!(
                url,
                "that origin has other cluster.origins or replicas than this one: make them the same"
            );
        }
        *known = known.without(Places::NONE.with(place)).with_if(place, disagrees);
    }

    fn note(&self, place: usize, change: Option<Change>) {
        let Some(change) = change else { return };
        let url = self.url(place);
        match change {
            Change::CameUp => tracing::info!(url, "origin is well"),
            Change::WentDown => tracing::warn!(url, "origin is away"),
        }
        // Under one lock, or an older view could replace a newer one.
        let health = self.health();
        let well = health.well();
        self.0.count.set(i64::try_from(well.count()).unwrap_or(i64::MAX));
        self.0.well.send_replace(well);
    }

    fn url(&self, place: usize) -> String {
        self.0.client.urls().get(place).map_or_else(String::new, |url| url.as_str().to_owned())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long nobody waits for a probe where there is nobody to probe.
const FOREVER: Duration = Duration::from_secs(3600);
