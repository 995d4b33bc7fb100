//! Fetches what origins order, before anybody pulls it: after all that is read.
//!
//! Trackers name the orders for this agent in their answers to its announces. One order after the other, a few blobs at a time, by
//! the way that a pull goes: what is not linked in the repository is not fetched, and what was fetched is there for it. What fails is
//! tried again for as long as the order holds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use serde::Deserialize;
use shoal_control::prefetch::{PrefetchBlob, PrefetchOrder};
use shoal_control::{Orders, TrackerClient};
use shoal_core::{Digest, RepositoryName, causes};
use shoal_driver::{TransferError, Transferer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fetches::Fetches;

/// What orders of origins cause.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preheat {
    /// Whether orders are followed.
    pub enabled: bool,
    /// How many blobs are fetched at a time: 2, since one may be large and many are small.
    pub blobs_at_once: usize,
}

/// Follows the orders for this agent.
pub(crate) struct Prefetcher {
    pub(crate) trackers: TrackerClient,
    pub(crate) transferer: Arc<dyn Transferer>,
    pub(crate) fetches: Fetches,
    pub(crate) blobs_at_once: usize,
    pub(crate) blobs: IntCounterVec,
}

impl Prefetcher {
    /// After what failed is tried again: a full disk or an origin that is away is so for longer than seconds.
    const RETRY: Duration = Duration::from_secs(30);

    pub(crate) fn metrics(registry: &Registry) -> prometheus::Result<IntCounterVec> {
        let help = "Blobs that an order of an origin had this agent fetch, by result: whole (also those that were here), failed";
        let blobs = IntCounterVec::new(Opts::new("shoal_prefetched_blobs_total", help), &["result"])?;
        registry.register(Box::new(blobs.clone()))?;
        Ok(blobs)
    }

    /// For as long as the agent lives.
    pub(crate) async fn run(self, mut orders: watch::Receiver<Orders>) {
        let mut done = HashSet::new();
        loop {
            let listed = orders.borrow_and_update().clone();
            // Ids that are named no more come no more.
            done.retain(|id| listed.values().any(|ids| ids.contains(id)));
            let mut is_all = true;
            for (&tracker, ids) in &listed {
                is_all &= self.follow(tracker, ids, &mut done).await;
            }
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(Self::RETRY), if !is_all => {}
            }
        }
    }

    /// Carries out the orders that a tracker named; says whether all are done.
    async fn follow(&self, tracker: usize, ids: &[u64], done: &mut HashSet<u64>) -> bool {
        let new: Vec<_> = ids.iter().copied().filter(|id| !done.contains(id)).collect();
        if new.is_empty() {
            return true;
        }
        let orders = match self.trackers.prefetch_orders_at(tracker).await {
            Ok(reply) => reply.orders,
            Err(error) => {
                tracing::warn!(
                    error = causes(&error),
                    "orders to fetch are not known: a tracker does not say them"
                );
                return false;
            }
        };
        let mut is_all = true;
        for id in new {
            let order = orders.iter().map(|state| &state.order).find(|order| order.id == id);
            // One that is not there any more is over.
            if match order {
                Some(order) => self.carry_out(order).await,
                None => true,
            } {
                done.insert(id);
            } else {
                is_all = false;
            }
        }
        is_all
    }

    /// Fetches all of an order; says whether all of it is here.
    async fn carry_out(&self, order: &PrefetchOrder) -> bool {
        let image = order.image.escape_default().to_string();
        tracing::info!(image, blobs = order.blobs.len(), "an origin has this agent fetch an image");
        let (mut fetching, mut failed) = (JoinSet::new(), 0usize);
        let mut blobs = order.blobs.iter();
        loop {
            while fetching.len() < self.blobs_at_once.max(1)
                && let Some(PrefetchBlob { digest, .. }) = blobs.next()
            {
                let (transferer, fetches) = (self.transferer.clone(), self.fetches.clone());
                fetching.spawn(fetch(transferer, fetches, order.repository.clone(), *digest));
            }
            let Some(fetched) = fetching.join_next().await else { break };
            let is_whole = matches!(fetched, Ok(Ok(())));
            if let Ok(Err(error)) = fetched {
                tracing::warn!(image, error = causes(&error), "a blob was not fetched");
            }
            self.blobs.with_label_values(&[if is_whole { "whole" } else { "failed" }]).inc();
            failed += usize::from(!is_whole);
        }
        failed == 0
    }
}

/// As a pull asks: whether it may be seen, and then all of it.
async fn fetch(
    transferer: Arc<dyn Transferer>,
    fetches: Fetches,
    repository: RepositoryName,
    digest: Digest,
) -> Result<(), TransferError> {
    transferer.stat(Some(&repository), &digest).await?;
    Ok(fetches.prefetch(&repository, &digest).await?)
}

impl Default for Preheat {
    fn default() -> Self {
        Self { enabled: true, blobs_at_once: 2 }
    }
}
