//! Pull-through: repositories that are those of upstream registries, and come from there when somebody pulls.
//!
//! A decorator of the transferer. What is held is answered as ever; what is not is asked for upstream, by one origin for all: a
//! tag by the tag's owner, a manifest or a blob by the digest's. An upstream's word says what a tag names and whether a repository
//! has a blob; bytes are proved by digest, in the refill. Nobody else writes to these repositories.

mod api;
mod config;
mod expiry;
mod flights;
mod gate;
mod links;
mod memory;
mod metrics;
mod remote;
mod source;
mod tags;
mod transferer;
mod uses;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_control::cluster::message::{LinkName, TagName};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{TransferError, Transferer};
use shoal_store::Store;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::{UpstreamConfig, UpstreamConfigError};
use self::flights::Flights;
use self::links::Found;
use self::memory::{Memory, Word};
use self::metrics::UpstreamMetrics;
use self::remote::Upstream;
use self::source::UpstreamSource;
use self::tags::Told;
use self::uses::Uses;
pub(crate) use self::uses::WatchUses;
use crate::cluster::Cluster;
use crate::records::Records;
use crate::refill::{Named, Refill};
use crate::source::SourceError;

/// The upstreams of this origin.
#[derive(Clone)]
pub(crate) struct Upstreams(Arc<[Arc<Upstream>]>);

/// A repository that is an upstream's.
pub(crate) struct Place {
    upstream: Arc<Upstream>,
    /// What it is called there; `None`: it may not be pulled.
    remote: Option<RepositoryName>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PullThrough(Arc<Inner>);

struct Inner {
    upstreams: Upstreams,
    below: Arc<dyn Transferer>,
    cluster: Option<Arc<Cluster>>,
    records: Arc<Records>,
    store: Store,
    refill: Refill,
    uses: Arc<Uses>,
    memory: Mutex<Memory>,
    /// What all origins are asked for once, on its way to the one that asks upstream.
    tags: Flights<TagName, Told>,
    links: Flights<LinkName, Found>,
    /// What this origin asks upstream.
    tags_here: Flights<TagName, Word>,
    links_here: Flights<LinkName, Found>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What pull-through is made from.
struct Parts {
    below: Arc<dyn Transferer>,
    cluster: Option<Arc<Cluster>>,
    records: Arc<Records>,
    store: Store,
    refill: Refill,
    uses: Arc<Uses>,
}

impl Upstreams {
    pub(crate) fn new(
        configs: &[UpstreamConfig],
        registry: &prometheus::Registry,
    ) -> Result<Self, UpstreamConfigError> {
        config::check(configs)?;
        let metrics = UpstreamMetrics::register(registry)?;
        let made = configs.iter().map(|config| Upstream::new(config, metrics.clone()).map(Arc::new));
        Ok(Self(made.collect::<Result<_, _>>()?))
    }

    /// Where the refill gets their blobs.
    pub(crate) fn sources(&self, records: &Arc<Records>) -> Vec<Named> {
        let named = self.0.iter().map(|upstream| Named {
            name: upstream.name.to_string(),
            source: Arc::new(UpstreamSource { upstream: upstream.clone(), records: records.clone() }),
            pace: None,
        });
        named.collect()
    }

    /// Adds what clients call them to the registry's names, and has it refuse pushes there.
    pub(crate) fn add_names(&self, config: &mut shoal_registry::Config) -> Result<(), UpstreamConfigError> {
        for upstream in self.0.iter() {
            let (host, prefix) = (upstream.name.to_string(), upstream.prefix.to_string());
            if config.namespaces.insert(host, prefix.clone()).is_some_and(|other| other != prefix) {
                return Err(UpstreamConfigError::Namespace(upstream.name.clone()));
            }
            config.mirrors.insert(prefix, upstream.name.to_string());
        }
        Ok(())
    }

    /// Whose a repository is.
    pub(crate) fn place(&self, repository: &RepositoryName) -> Option<Place> {
        let is_below = |upstream: &&Arc<Upstream>| {
            let rest = repository.as_str().strip_prefix(upstream.prefix.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let upstream = self.0.iter().find(is_below)?;
        Some(Place { upstream: upstream.clone(), remote: upstream.remote(repository) })
    }

    /// Listeners of their own, by the upstream that each is for.
    pub(crate) fn listeners(configs: &[UpstreamConfig]) -> BTreeMap<SocketAddr, String> {
        configs.iter().filter_map(|config| Some((config.listen?, config.name.to_string()))).collect()
    }
}

/// What it stands over.
type Below<'a> = (&'a Arc<dyn Transferer>, &'a Option<Arc<Cluster>>, &'a Arc<Records>, &'a Store, &'a Refill);

impl PullThrough {
    /// Pull-through of these, if there are any. `uses` is the file that says when what they have was pulled.
    pub(crate) fn over(
        upstreams: Upstreams,
        uses: &Path,
        (below, cluster, records, store, refill): Below<'_>,
    ) -> Result<Option<Self>, UpstreamConfigError> {
        if upstreams.0.is_empty() {
            return Ok(None);
        }
        let parts = Parts {
            below: below.clone(),
            cluster: cluster.clone(),
            records: records.clone(),
            store: store.clone(),
            refill: refill.clone(),
            uses: Arc::new(Uses::open(uses)?),
        };
        Ok(Some(Self::start(upstreams, parts)))
    }

    fn start(upstreams: Upstreams, parts: Parts) -> Self {
        let Parts { below, cluster, records, store, refill, uses } = parts;
        let (runtime, tasks) = (Handle::current(), TaskTracker::new());
        let through = Self(Arc::new(Inner {
            below,
            cluster,
            records,
            store,
            refill,
            uses,
            memory: Mutex::new(Memory::new()),
            tags: Flights::new(runtime.clone(), tasks.clone()),
            links: Flights::new(runtime.clone(), tasks.clone()),
            tags_here: Flights::new(runtime.clone(), tasks.clone()),
            links_here: Flights::new(runtime, tasks.clone()),
            stop: CancellationToken::new(),
            upstreams,
            tasks,
        }));
        through.tell_of_pauses();
        through.0.tasks.spawn(expiry::run(through.clone()));
        through
    }

    /// Ends what is under way.
    pub(crate) async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// The upstream of a repository and what it is called there; an error where it may not be pulled.
    fn remote(&self, repository: &RepositoryName) -> Result<(Arc<Upstream>, RepositoryName), TransferError> {
        let Place { upstream, remote } = self.0.upstreams.place(repository).ok_or(TransferError::NotFound)?;
        match remote {
            Some(remote) => Ok((upstream, remote)),
            None => {
                tracing::debug!(%repository, upstream = %upstream.name, "not among the repositories that may be pulled through");
                Err(TransferError::NotFound)
            }
        }
    }

    /// One budget for all: whoever hears that it is too much tells the others.
    fn tell_of_pauses(&self) {
        let Some(cluster) = &self.0.cluster else { return };
        for upstream in self.0.upstreams.0.iter() {
            let (cluster, tasks, name) = (cluster.clone(), self.0.tasks.clone(), upstream.name.to_string());
            upstream.on_closed(Box::new(move |asked| {
                let (cluster, name) = (cluster.clone(), name.clone());
                tasks.spawn(async move { cluster.tell_of_pause(&name, asked).await });
            }));
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PullThrough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.upstreams.0.iter().map(|upstream| &upstream.name)).finish()
    }
}

impl From<SourceError> for TransferError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotFound => Self::NotFound,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The place of a tag among origins: what has this digest is nothing.
fn key_of(name: &TagName) -> Digest {
    Digest::sha256(format!("{}:{}", name.repository, name.tag).as_bytes())
}

/// What is told where work ended without an answer.
fn busy() -> TransferError {
    TransferError::Unavailable("too many questions to upstreams are under way: try again".to_owned())
}
