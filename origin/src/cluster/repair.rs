//! Brings back what is missing: takes over the links and tags that this origin missed, and gives others the blobs that they
//! should have. Once when origins come or go, and every interval. Copies go below everything else, a few at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_control::ControlError;
use shoal_control::cluster::message::{CopyReason, MAX_LACKING, MetadataRecord};
use shoal_core::{Digest, Places};
use tokio::time::{Instant, sleep, timeout};

use super::Cluster;
use super::config::ClusterConfig;
use super::plan::View;

/// How long nothing may change before a round begins: origins that start together come one after the other.
const SETTLE: Duration = Duration::from_secs(1);

/// Repairs until the cluster is stopped.
pub(super) async fn run(cluster: Arc<Cluster>, config: ClusterConfig) {
    let mut changes = cluster.members.changes();
    let rounds = async {
        let mut learned = None;
        loop {
            while timeout(SETTLE, changes.changed()).await.is_ok_and(|change| change.is_ok()) {
                learned = None;
            }
            if learned.is_none_or(|at: Instant| at.elapsed() >= config.metadata_interval) {
                learned = cluster.learn_metadata().await.then(Instant::now);
                if learned.is_some() {
                    cluster.forget_deleted_tags().await;
                }
            }
            cluster.give_copies(config.repairs_at_once).await;
            tokio::select! {
                _ = changes.changed() => learned = None,
                () = sleep(config.repair_interval) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = cluster.stop.cancelled() => {}
        () = rounds => {}
    }
}

impl Cluster {
    /// Takes over what others have of links and tags; says whether that is all they have. If not, the next round goes on.
    async fn learn_metadata(&self) -> bool {
        let mut all = true;
        for place in self.others().iter() {
            let learned = self.learn_from(place).await;
            match self.noted(place, learned) {
                Ok(end) => all &= end,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot read the links of an origin");
                    all = false;
                }
            }
        }
        all
    }

    /// Says whether everything came and was kept.
    async fn learn_from(&self, place: usize) -> Result<bool, ControlError> {
        let mut records = std::pin::pin!(self.client.metadata(place).await?);
        let mut kept = true;
        while let Some(record) = records.try_next().await? {
            if record == MetadataRecord::End {
                return Ok(kept);
            }
            match self.records.learn(&record).await {
                Ok(learned) => self.metrics.records_learned.inc_by(u64::from(learned)),
                Err(error) => {
                    tracing::error!(%error, "cannot take over a link or a tag");
                    kept = false;
                }
            }
        }
        Ok(false)
    }

    /// Compares every blob of this store with the others, and gives the copies that are this origin's to give.
    async fn give_copies(&self, at_once: usize) {
        let whole = self.store.digests().into_iter().filter(|(_, whole)| *whole);
        let digests: Vec<_> = whole.map(|(digest, _)| digest).collect();
        self.metrics.to_check.set(gauge(digests.len()));
        self.metrics.under_replicated.set(0);
        for batch in digests.chunks(MAX_LACKING) {
            let gifts = self.gifts(batch).await;
            self.metrics.under_replicated.add(gauge(gifts.len()));
            let given = stream::iter(gifts).map(|(digest, to)| self.give(digest, to));
            given.buffer_unordered(at_once.max(1)).for_each(async |()| {}).await;
            self.metrics.to_check.sub(gauge(batch.len()));
        }
    }

    /// What of a batch this origin is to give to whom.
    async fn gifts(&self, batch: &[Digest]) -> Vec<(Digest, Places)> {
        // Who cannot be asked is left out of this round.
        let (mut well, mut holders) = (Places::NONE.with(self.own), HashMap::new());
        for place in self.others().iter() {
            if let Ok(lacking) = self.noted(place, self.client.lacking(place, batch).await) {
                well = well.with(place);
                for digest in lacking {
                    let lacks: &mut Places = holders.entry(digest).or_insert(Places::NONE);
                    *lacks = lacks.with(place);
                }
            }
        }
        let view = View { rendezvous: &self.rendezvous, replicas: self.replicas, well };
        let gift = |digest: &Digest| {
            let lacks = holders.get(digest).copied().unwrap_or(Places::NONE);
            let to = view.gifts(digest, well.without(lacks), self.own);
            (!to.is_empty()).then_some((*digest, to))
        };
        self.without_kept(batch.iter().filter_map(gift).collect()).await
    }

    /// What an origin gave up, because it is behind them all, is not given back to it.
    async fn without_kept(&self, gifts: Vec<(Digest, Places)>) -> Vec<(Digest, Places)> {
        let Some(kept) = self.kept_behind.get() else { return gifts };
        let needed = stream::iter(gifts).map(async |gift| {
            let length = self.store.blob(&gift.0)?.metainfo().length();
            (!kept(gift.0, length).await).then_some(gift)
        });
        needed.buffered(LOOKS_AT_ONCE).filter_map(async |gift| gift).collect().await
    }

    async fn give(&self, digest: Digest, to: Places) {
        // Deleted since.
        let Some(metainfo) = self.signed(&digest) else { return };
        let mut missing = false;
        for place in to.iter() {
            if self.copy_to(place, &metainfo, CopyReason::Repair).await.is_ok() {
                self.metrics.repaired.inc();
                self.metrics.repaired_bytes.inc_by(metainfo.metainfo.length());
            } else {
                self.metrics.repairs_failed.inc();
                missing = true;
            }
        }
        if !missing {
            self.metrics.under_replicated.dec();
        }
    }
}

/// Questions to a backend at a time.
const LOOKS_AT_ONCE: usize = 8;

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
