//! Several origins that keep blobs together: any takes any request, and what was acknowledged is at several of them.
//!
//! A blob belongs to the first `replicas` origins that are well, by rendezvous hashing; links and tags are small, and are at
//! every origin. A write is acknowledged once `min_replicas` have it durably, a tag once a majority voted for it. An origin
//! that is asked for what it lacks asks the others. [`repair`] brings to each what it missed. What all of it promises stands in ARCHITECTURE.md.

mod api;
mod ballots;
mod behind;
mod collecting;
mod config;
mod copies;
mod forget;
mod health;
mod links;
mod members;
mod metrics;
mod plan;
mod remote;
mod repair;
mod rounds;
mod routed;
mod sessions;
mod tags;
mod transferer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use shoal_control::cluster::message::{CopyReason, CopyState};
use shoal_control::{ClusterClient, ControlError, ServerUrl};
use shoal_core::{Digest, PeerAddress, Places, Rendezvous, SignedMetainfo};
use shoal_driver::TransferError;
use shoal_identity::Identity;
use shoal_store::Store;
use shoal_transfer::Transfer;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::ClusterConfig;
use self::copies::Copies;
use self::health::Rules;
use self::members::Members;
use self::metrics::ClusterMetrics;
pub(crate) use self::routed::Routed;
pub(crate) use self::sessions::Sessions;
use self::tags::Ballots;
pub(crate) use self::transferer::ClusterTransferer;
use crate::records::Records;
use crate::refill::Refill;

/// Why an origin cannot be one of several.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// This origin is not in the list.
    #[error(
        "cluster.origins does not name this origin ({own}): add it, or set advertise_api to what is named there"
    )]
    NotAMember {
        /// Where this origin's internal API is.
        own: String,
    },
    /// Too many.
    #[error("cluster.origins names {count} origins: {max} at most", max = Places::MAX)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The numbers of copies do not fit each other.
    #[error(
        "cluster.replicas is {replicas} and min_replicas {min_replicas} with {count} origins: it must be 1 <= min_replicas <= replicas <= origins"
    )]
    Replicas {
        /// Copies of a blob.
        replicas: usize,
        /// Copies before an acknowledgement.
        min_replicas: usize,
        /// Origins.
        count: usize,
    },
    /// Garbage would be taken while a push that relies on it is under way.
    #[error("maintenance.garbage.min_age is {age:?} and must be {least:?} at least with [cluster]", least = Cluster::LEAST_MIN_AGE)]
    MinAge {
        /// What it is.
        age: Duration,
    },
    /// An origin is not named as a URL that can be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the parts of this module share.
pub(crate) struct Cluster {
    client: ClusterClient,
    members: Members,
    rendezvous: Rendezvous,
    own: usize,
    replicas: usize,
    min_replicas: usize,
    fingerprint: u64,
    stall_timeout: Duration,
    identity: Identity,
    store: Store,
    /// Where this origin's blobs can be fetched.
    source: watch::Receiver<PeerAddress>,
    records: Arc<Records>,
    ballots: Ballots,
    refill: Refill,
    kept_behind: OnceLock<KeptBehind>,
    copies: Copies,
    /// A link that a push relies on is put anew if its last put is so old.
    renew_after: Duration,
    surplus_age: Duration,
    /// Lists of all metadata that this origin reads.
    lists: Semaphore,
    metrics: ClusterMetrics,
    /// The registry for what other origins hand over, once it is there.
    registry: OnceLock<axum::Router>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a cluster is made from.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) transfer: Transfer,
    pub(crate) records: Arc<Records>,
    pub(crate) refill: Refill,
    /// Where this origin's blobs can be fetched.
    pub(crate) source: watch::Receiver<PeerAddress>,
    /// Where its internal API is.
    pub(crate) url: String,
    /// How old garbage must be to go.
    pub(crate) min_age: Duration,
}

/// Whether a blob of that length needs no copies, as it can be had again from behind the origins, which give it up.
pub(crate) type KeptBehind = Box<dyn Fn(Digest, u64) -> BoxFuture<'static, bool> + Send + Sync>;

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("well", &self.members.well()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Half of it is for a push to come from its look at what it relies on to its links: some seconds, however busy a disk is.
    pub(crate) const LEAST_MIN_AGE: Duration = Duration::from_secs(10);

    /// Reads the configuration, and begins to look for the others.
    pub(crate) fn start(
        config: &ClusterConfig,
        parts: Parts,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>, ClusterError> {
        let Parts { identity, store, transfer, records, refill, source, url, min_age } = parts;
        if min_age < Self::LEAST_MIN_AGE {
            return Err(ClusterError::MinAge { age: min_age });
        }
        let client = ClusterClient::new(&identity, config.origins.clone(), config.request_timeout)?;
        let urls = client.urls();
        let (own, replicas, min_replicas) = check(config, &urls, &url)?;
        let rendezvous = Rendezvous::new(urls.iter().map(ServerUrl::as_str));
        let fingerprint = fingerprint(&urls, replicas);
        let rules = Rules {
            interval: config.probe_interval,
            failures_until_down: config.failures_until_down.max(1),
            successes_until_up: config.successes_until_up.max(1),
        };
        let metrics = ClusterMetrics::register(metrics)?;
        let own_and_all = (own, fingerprint);
        let members =
            Members::new(client.clone(), own_and_all, rules, config.probe_timeout, metrics.well.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let copies = Copies::new(identity.clone(), store.clone(), transfer, stop.clone(), tasks.clone());
        tasks.spawn(members.clone().run(stop.clone()));
        let stall_timeout = config.stall_timeout;
        let cluster = Arc::new(Self {
            client,
            members,
            rendezvous,
            own,
            replicas,
            min_replicas,
            fingerprint,
            stall_timeout,
            identity,
            store,
            source,
            records,
            ballots: Ballots::new(),
            refill,
            kept_behind: OnceLock::new(),
            copies,
            renew_after: min_age / 2,
            surplus_age: config.surplus_age,
            lists: Semaphore::new(1),
            metrics,
            registry: OnceLock::new(),
            stop,
            tasks,
        });
        cluster.tasks.spawn(repair::run(cluster.clone(), config.clone()));
        cluster.give_what_lands();
        Ok(cluster)
    }

    /// From now on others may hand requests over to it.
    pub(crate) fn serves(&self, registry: axum::Router) {
        // There is one registry a process.
        let _ = self.registry.set(registry);
    }

    /// Ends the tasks. What was being copied stays as far as it came.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Who else is well, those first to which the blob belongs.
    fn others_for(&self, digest: &Digest) -> Vec<usize> {
        let others = self.others();
        self.rendezvous.order(digest).into_iter().filter(|&place| others.contains(place)).collect()
    }

    /// Has no copies given that are given up again. To be said once.
    pub(crate) fn skip_what_is_kept_behind(&self, kept: KeptBehind) {
        // The first to say it counts.
        let _ = self.kept_behind.set(kept);
    }

    /// How many origins that are well come before this one in the blob's order.
    pub(crate) fn rank(&self, digest: &Digest) -> usize {
        let well = self.members.well();
        let before = self.rendezvous.order(digest).into_iter().take_while(|&place| place != self.own);
        before.filter(|&place| well.contains(place)).count()
    }

    /// Who else is well.
    fn others(&self) -> Places {
        self.members.well().without(Places::NONE.with(self.own))
    }

    /// Whether what nobody of `asked` has is nowhere: those that were not asked are too few to have an acknowledged write
    /// among themselves alone.
    fn is_everybody_asked(&self, asked: usize) -> bool {
        self.rendezvous.len() - asked < self.min_replicas
    }

    /// Refuses a write that could not be acknowledged, or whose tag could not be put.
    fn require_writable(&self) -> Result<(), TransferError> {
        let majority = ballots::majority(self.rendezvous.len());
        let (well, least) = (self.members.well().count(), self.min_replicas.max(majority));
        if well >= least {
            return Ok(());
        }
        Err(TransferError::Unavailable(format!(
            "{well} of {} origins are well, and a push is kept by {least} at least",
            self.rendezvous.len()
        )))
    }

    /// Puts a question to everybody else who is well, at once. Who does not answer is noted.
    async fn ask_others<T, F>(&self, ask: impl Fn(ClusterClient, usize) -> F) -> Vec<Result<T, ControlError>>
    where
        F: Future<Output = Result<T, ControlError>> + Send,
    {
        let places: Vec<_> = self.others().iter().collect();
        let answers = join_all(places.iter().map(|&place| ask(self.client.clone(), place))).await;
        places.into_iter().zip(answers).map(|(place, answer)| self.noted(place, answer)).collect()
    }

    /// An answer, and what it says of the origin's health.
    fn noted<T>(&self, place: usize, answer: Result<T, ControlError>) -> Result<T, ControlError> {
        if let Err(error @ ControlError::Unavailable { .. }) = &answer {
            tracing::debug!(error = error as &dyn std::error::Error, "an origin does not answer");
            self.members.failed(place);
        }
        answer
    }

    /// Sees to it that those to whom a blob of this store belongs have it durably.
    ///
    /// Who fails is left out, and then the blob belongs to the next in order; until too few are left.
    async fn replicate(&self, digest: &Digest) -> Result<(), TransferError> {
        let metainfo = self.signed(digest).ok_or(TransferError::NotFound)?;
        let mut failed = Places::NONE;
        loop {
            self.require_writable()?;
            let left = self.members.well().without(failed);
            if left.count() < self.min_replicas {
                return Err(TransferError::Unavailable(format!(
                    "too few origins took a copy of {digest}: {} did not",
                    failed.count()
                )));
            }
            let owners = self.rendezvous.owners(digest, left, self.replicas);
            let others = owners.without(Places::NONE.with(self.own));
            let places: Vec<_> = others.iter().collect();
            let copies = places.iter().map(|&place| self.copy_to(place, &metainfo, CopyReason::Push));
            let copied = join_all(copies).await;
            let copied = places.into_iter().zip(copied);
            let refused = copied.filter(|(_, copied)| copied.is_err()).map(|(place, _)| place);
            let refused: Places = refused.collect();
            if refused.is_empty() {
                return Ok(());
            }
            failed = failed.union(refused);
        }
    }

    /// Has another origin fetch a blob from this one, and waits until it has it durably.
    async fn copy_to(
        &self,
        place: usize,
        metainfo: &SignedMetainfo,
        reason: CopyReason,
    ) -> Result<(), CopyFailed> {
        let (mut pieces, mut progressed) = (0, Instant::now());
        loop {
            let source = self.source.borrow().clone();
            let state = tokio::select! {
                state = self.client.copy(place, metainfo, &source, reason) => state,
                // No use in waiting for the end of its time.
                () = self.members.went_away(place) => return Err(CopyFailed),
            };
            match self.noted(place, state) {
                Ok(CopyState::Whole) => return Ok(()),
                Ok(CopyState::Arriving { pieces: now }) if now > pieces => {
                    (pieces, progressed) = (now, Instant::now());
                }
                Ok(CopyState::Arriving { .. }) if progressed.elapsed() < self.stall_timeout => {}
                Ok(CopyState::Arriving { .. }) => {
                    tracing::warn!(digest = %metainfo.metainfo.digest(), place, "a copy makes no progress");
                    return Err(CopyFailed);
                }
                Err(error) => {
                    let (digest, error) = (metainfo.metainfo.digest(), &error as &dyn std::error::Error);
                    tracing::warn!(%digest, error, "an origin takes no copy");
                    return Err(CopyFailed);
                }
            }
        }
    }

    /// Signed afresh: the proof carries the certificate of today.
    fn signed(&self, digest: &Digest) -> Option<SignedMetainfo> {
        crate::api::signed(&self.identity, &self.store, digest)
    }
}

/// A copy was not made; why is in the log.
#[derive(Debug)]
struct CopyFailed;

/// This origin's place in the list, and the numbers of copies.
fn check(
    config: &ClusterConfig,
    urls: &[ServerUrl],
    own: &str,
) -> Result<(usize, usize, usize), ClusterError> {
    let count = urls.len();
    if count > Places::MAX {
        return Err(ClusterError::TooMany { count });
    }
    let parsed = ServerUrl::parse(own)?;
    let place = urls.iter().position(|url| *url == parsed);
    let place = place.ok_or_else(|| ClusterError::NotAMember { own: own.to_owned() })?;
    let replicas = config.replicas;
    let min_replicas = config.min_replicas.unwrap_or(replicas);
    if !(1..=replicas).contains(&min_replicas) || replicas > count {
        return Err(ClusterError::Replicas { replicas, min_replicas, count });
    }
    Ok((place, replicas, min_replicas))
}

/// The same at all origins that divide blobs alike.
fn fingerprint(urls: &[ServerUrl], replicas: usize) -> u64 {
    let mut names: Vec<_> = urls.iter().map(ServerUrl::as_str).collect();
    names.sort_unstable();
    let digest = Digest::sha256(format!("{replicas} {}", names.join(" ")).as_bytes());
    let head = digest.as_bytes().first_chunk().expect("a digest is longer than eight bytes");
    u64::from_be_bytes(*head)
}
