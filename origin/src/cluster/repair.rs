//! Brings back what is missing: takes over the links and tags that this origin missed, and gives others the blobs that they
//! should have, and drops what it has beyond that. Once when origins come or go, and every interval. Copies go below everything else, a few at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
                let well = cluster.members.well();
                let is_all = well.without(cluster.learn_metadata().await).is_empty();
                learned = is_all.then(Instant::now);
                if learned.is_some() {
                    cluster.forget_deleted_tags().await;
                    cluster.forget_deleted_links().await;
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
    /// Takes over what others have of links and tags; says whose list was read to its end. Where that is not everybody's, the next
    /// round goes on.
    pub(super) async fn learn_metadata(&self) -> Places {
        let Ok(_list) = self.lists.acquire().await else { return Places::NONE };
        let mut read = Places::NONE.with(self.own);
        for place in self.others().iter() {
            let learned = self.learn_from(place).await;
            match self.noted(place, learned) {
                Ok(end) => read = read.with_if(place, end),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot read the links of an origin");
                }
            }
        }
        read
    }

    /// Says whether everything came and was kept.
    async fn learn_from(&self, place: usize) -> Result<bool, ControlError> {
        let mut records = std::pin::pin!(self.client.metadata(place).await?);
        let mut kept = true;
        while let Some(record) = records.try_next().await? {
            if record == MetadataRecord::End {
                return Ok(kept);
            }
            let learned = match &record {
                MetadataRecord::Unlinked(deletion) => self.delete_own_link(deletion).await.map(|_| false),
                record => self.records.learn(record).await,
            };
            match learned {
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
        let (mut left, mut linked) = (MAX_DROPS, None);
        for batch in digests.chunks(MAX_LACKING) {
            let (mut gifts, surplus) = self.compare(batch).await;
            if !gifts.is_empty() {
                let Some(linked) = self.linked(&mut linked).await else { return };
                gifts.retain(|(digest, _)| linked.contains(digest));
            }
            left = self.drop_surplus(&surplus, left).await;
            self.metrics.under_replicated.add(gauge(gifts.len()));
            let given = stream::iter(gifts).map(|(digest, to)| self.give(digest, to));
            given.buffer_unordered(at_once.max(1)).for_each(async |()| {}).await;
            self.metrics.to_check.sub(gauge(batch.len()));
        }
    }

    /// What is linked, read once a round if somebody lacks anything: garbage that one origin has removed is not given to it again,
    /// or it would go back and forth for ever.
    async fn linked<'a>(&self, known: &'a mut Option<HashSet<Digest>>) -> Option<&'a HashSet<Digest>> {
        if known.is_none() {
            match self.records.linked().await {
                Ok(linked) => *known = Some(linked),
                Err(error) => {
                    tracing::error!(%error, "cannot read what is linked: no copy is given in this round");
                }
            }
        }
        known.as_ref()
    }

    /// What of a batch this origin is to give to whom, and what it has beyond what belongs to it.
    async fn compare(&self, batch: &[Digest]) -> (Vec<(Digest, Places)>, Vec<Digest>) {
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
        let is_surplus = |digest: &&Digest| {
            let lacks = holders.get(digest).copied().unwrap_or(Places::NONE);
            view.is_surplus(digest, well.without(lacks), self.own)
        };
        let surplus = batch.iter().filter(is_surplus).copied().collect();
        (self.without_kept(batch.iter().filter_map(gift).collect()).await, surplus)
    }

    /// Removes copies that are beyond what belongs to this origin, and that nobody touched for a while. Gives how many more may go
    /// in this round.
    async fn drop_surplus(&self, surplus: &[Digest], mut left: usize) -> usize {
        let Some(since) = SystemTime::now().checked_sub(self.surplus_age) else { return left };
        for digest in surplus {
            if left == 0 {
                break;
            }
            match self.store.delete_unchanged(digest, since).await {
                Ok(true) => {
                    left -= 1;
                    self.metrics.surplus_dropped.inc();
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%digest, %error, "cannot remove a copy that is not needed"),
            }
        }
        left
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

/// How many copies go in one round. 1000: deletes are syncs, and pushes need the disk too.
const MAX_DROPS: usize = 1000;
/// Questions to a backend at a time.
const LOOKS_AT_ONCE: usize = 8;

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
