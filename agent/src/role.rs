//! The agent as a value: bind, shut down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use prometheus::IntCounter;
use shoal_control::overlay::{Holder, Library, MAX_LENT, Member, Overlay, OverlayHandle};
use shoal_control::{
    Announcer, ControlError, Holding, OriginClient, Reporter, TrackerClient, Upkeep, Whereabouts,
};
use shoal_core::{Digest, PeerAddress, PeerId, RepositoryName, Role};
use shoal_driver::ReadOnlyDriver;
use shoal_http::{Running, Server, Workers};
use shoal_identity::Identity;
use shoal_registry::{PullMetrics, Registry};
use shoal_store::{Entry, Store};
use shoal_transfer::{Stats, Transfer};
use tokio_util::task::AbortOnDropHandle;

use crate::access::Access;
use crate::config::Config;
use crate::deadline::limit_manifests;
use crate::fetches::Fetches;
use crate::follow::Follower;
use crate::holdings::Holdings;
use crate::prefetch::Prefetcher;
use crate::search::{Fallback, Search};
use crate::tags::Tags;
use crate::transferer::SwarmTransferer;

/// An agent at work.
#[derive(Debug)]
pub struct Agent {
    registry: Registry,
    server: Running,
    /// Upstreams that have listeners of their own.
    mirrors: Vec<Running>,
    s3: Option<Running>,
    transfer: Transfer,
    fetches: Fetches,
    announcer: Announcer,
    prefetcher: Option<AbortOnDropHandle<()>>,
    tracker: TrackerClient,
    _upkeep: Upkeep,
    _reporter: Reporter,
    _whereabouts: Whereabouts,
    overlay: Option<Overlay>,
    store: Store,
    id: PeerId,
    drain: std::time::Duration,
    /// Last: what requests left behind runs there.
    _workers: Workers,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listener for an upstream that nobody can ask for.
    #[error(
        "mirror_listen names {0:?}, which registry.namespaces does not: add it there, with the prefix that it has at the origins"
    )]
    Mirror(String),
    /// The certificate is not an agent's.
    #[error(
        "the certificate of this node is for the role {0}, not agent: issue one with `shoal ca issue --role agent`"
    )]
    WrongRole(Role),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] shoal_store::OpenError),
    /// The peer port cannot be opened.
    #[error(transparent)]
    Transfer(#[from] shoal_transfer::BindError),
    /// A tracker or origin is not named as a URL that can be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A port cannot be opened.
    #[error("cannot listen on {address} for the {what}: free it, or set `{key}` to another")]
    Listen {
        /// Who would come.
        what: &'static str,
        /// Its key in the configuration.
        key: &'static str,
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the registry's threads: {0}; raise the limit of tasks of this service")]
    Threads(#[source] std::io::Error),
    /// The overlay cannot be joined.
    #[error(transparent)]
    Overlay(#[from] shoal_control::overlay::StartError),
    /// The S3 face is not configured as it must be.
    #[error(transparent)]
    S3(#[from] shoal_s3::ConfigError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Agent {
    /// Opens store and ports, and joins the cluster. Works from then on, also while trackers and origins are away.
    pub async fn bind(
        config: Config,
        identity: Identity,
        metrics: &prometheus::Registry,
    ) -> Result<Self, BindError> {
        if identity.role() != Role::Agent {
            return Err(BindError::WrongRole(identity.role()));
        }
        let directory = config.store.directory.clone();
        let (store, evictions) = Store::open_cache(config.store).await?;
        store.register_metrics(metrics)?;
        let transfer =
            Transfer::bind(config.transfer, identity.clone(), config.zone.clone(), store.clone(), metrics)
                .await?;
        let tracker = TrackerClient::new(&identity, config.tracker)?;
        let origins = OriginClient::new(&identity, config.origins)?;

        let who =
            PeerAddress { id: identity.id(), role: Role::Agent, addresses: Vec::new(), zone: config.zone };
        let whereabouts = Whereabouts::start(who, config.advertise, transfer.local_address()).await;
        let address = whereabouts.watch();
        let announcer = Announcer::start(tracker.clone(), address.clone(), None, held_by(store.clone()));
        let upkeep = Upkeep::of_node(&identity, &config.identity, &tracker, &announcer.handle());
        let reporter = Reporter::start(tracker.clone(), transfer.unreachable());
        let id = identity.id();
        let access = recall_access(directory.join("links"), store.clone()).await;
        let member = Member {
            identity: identity.clone(),
            address,
            library: library(store.clone(), access.clone()),
            trackers: Some(tracker.clone()),
            tracker_url: None,
        };
        let overlay = join_overlay(config.overlay.as_ref(), member, &store, metrics).await?;
        let holdings =
            Holdings::new(store.clone(), announcer.handle(), overlay.as_ref().map(Overlay::handle));
        let fallback = overlay.as_ref().zip(config.overlay.as_ref());
        let fallback = fallback
            .map(|(overlay, config)| Fallback { overlay: overlay.handle(), patience: config.patience });
        let refused = IntCounter::new(
            "shoal_metainfo_refused_total",
            "Metainfo that was refused: forged, altered, or signed by no origin; the log names its bearer.",
        )?;
        metrics.register(Box::new(refused.clone()))?;
        let stale_tags = IntCounter::new(
            "shoal_stale_tags_total",
            "Tags that were answered by what they named before, since no origin answered.",
        )?;
        metrics.register(Box::new(stale_tags.clone()))?;
        let search = Search { tracker: tracker.clone(), identity, refused, overlay: fallback };
        let idle_timeout = config.ranges.idle_timeout;
        let follower = Follower::new(origins.clone(), search.identity.clone());
        let fetches = Fetches::new(store.clone(), transfer.clone(), search, follower, holdings, idle_timeout);
        fetches.follow(evictions, access.clone());

        let transferer = SwarmTransferer {
            store: store.clone(),
            fetches: fetches.clone(),
            access,
            tags: Tags::new(config.tag_ttl, config.tag_stale_if_error),
            stale_tags,
            origins,
            resolve_timeout: config.resolve_timeout,
            prefetch: config.ranges.prefetch,
        };
        let transferer = Arc::new(transferer);
        let prefetcher = Prefetcher {
            trackers: tracker.clone(),
            transferer: transferer.clone(),
            fetches: fetches.clone(),
            blobs_at_once: config.preheat.blobs_at_once,
            blobs: Prefetcher::metrics(metrics)?,
        };
        let orders = announcer.handle().orders();
        let follow = || AbortOnDropHandle::new(tokio::spawn(prefetcher.run(orders)));
        let prefetcher = config.preheat.enabled.then(follow);
        let driver = Arc::new(ReadOnlyDriver::new(store.clone(), transferer));
        let rules = shoal_registry::Config { read_only: true, ..config.registry };
        let s3 = match config.s3_listen {
            Some(address) => {
                let router = shoal_s3::router(driver.clone(), &config.s3, config.s3.access(address)?)?;
                Some(listen(("stock registry", "s3_listen"), address, &config.http).await?.serve(router))
            }
            None => None,
        };
        if let Some(unnamed) = config.mirror_listen.keys().find(|name| !rules.namespaces.contains_key(*name))
        {
            return Err(BindError::Mirror(unnamed.clone()));
        }
        let registry = Registry::new(rules, driver, Arc::new(PullMetrics::register(metrics)?));
        let router = limit_manifests(registry.router(), config.manifest_timeout);
        let server = listen(("container runtime", "listen"), config.listen, &config.http).await?;
        let workers = Workers::start().map_err(BindError::Threads)?;
        let server = server.on(workers.clone()).serve(router);
        let mut mirrors = Vec::new();
        for (name, address) in config.mirror_listen {
            let router = limit_manifests(registry.router_of(name), config.manifest_timeout);
            let server = listen(("upstream", "mirror_listen"), address, &config.http).await?;
            mirrors.push(server.on(workers.clone()).serve(router));
        }
        tracing::info!(peer = %id, registry = %server.local_address(), peers = %transfer.local_address(), "agent is up");
        Ok(Self {
            registry,
            server,
            mirrors,
            s3,
            transfer,
            fetches,
            announcer,
            prefetcher,
            tracker,
            _upkeep: upkeep,
            _reporter: reporter,
            _whereabouts: whereabouts,
            overlay,
            store,
            id,
            drain: config.drain,
            _workers: workers,
        })
    }

    /// The agent's name.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where the container runtime finds the registry.
    #[must_use]
    pub fn registry_address(&self) -> SocketAddr {
        self.server.local_address()
    }

    /// Where a stock registry finds its store, if that is configured.
    #[must_use]
    pub fn s3_address(&self) -> Option<SocketAddr> {
        self.s3.as_ref().map(Running::local_address)
    }

    /// Where other nodes find the peer port (UDP and TCP).
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.transfer.local_address()
    }

    /// Where other nodes find the overlay's port, if that is configured.
    #[must_use]
    pub fn overlay_address(&self) -> Option<SocketAddr> {
        self.overlay.as_ref().map(Overlay::local_address)
    }

    /// What moved, by source.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.transfer.stats()
    }

    /// What is kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its data plane.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// What it asks trackers by.
    #[must_use]
    pub fn tracker(&self) -> &TrackerClient {
        &self.tracker
    }

    /// Its part in the overlay, if that is configured.
    #[must_use]
    pub fn overlay(&self) -> Option<OverlayHandle> {
        self.overlay.as_ref().map(Overlay::handle)
    }

    /// Says whether the cluster knows this agent; if not, why.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let (announcer, overlay) = (self.announcer.handle(), self.overlay.as_ref().map(Overlay::handle));
        move || match announcer.ready() {
            Err(_) if overlay.as_ref().is_some_and(OverlayHandle::has_met) => Ok(()),
            readiness => readiness,
        }
    }

    /// Lets requests in flight end, says goodbye to the cluster, closes everything.
    pub async fn shutdown(self) {
        drop(self.prefetcher);
        self.announcer.shutdown().await;
        self.server.shutdown(self.drain).await;
        for mirror in self.mirrors {
            mirror.shutdown(self.drain).await;
        }
        if let Some(s3) = self.s3 {
            s3.shutdown(self.drain).await;
        }
        self.registry.drain().await;
        self.fetches.shutdown().await;
        if let Some(overlay) = self.overlay {
            overlay.shutdown().await;
        }
        self.transfer.shutdown().await;
        self.store.close().await;
    }
}

/// Who may see which blob, as far as it is here.
async fn recall_access(directory: PathBuf, store: Store) -> Access {
    let access = Access::new(directory);
    let recalled = access.clone();
    let task = tokio::task::spawn_blocking(move || access.keep_only(|digest| store.entry(digest).is_some()));
    if let Err(error) = task.await {
        tracing::error!(%error, "records of who may see which blob were not tidied up");
    }
    recalled
}

async fn join_overlay(
    config: Option<&shoal_control::overlay::Config>,
    member: Member,
    store: &Store,
    metrics: &prometheus::Registry,
) -> Result<Option<Overlay>, BindError> {
    let Some(config) = config else { return Ok(None) };
    let overlay = Overlay::start(config, member, metrics).await?;
    overlay.handle().hold(store.digests().into_iter().map(|(digest, _)| digest));
    Ok(Some(overlay))
}

/// What the agent says to others by the overlay: of what it has, and to whom it would show it itself.
fn library(store: Store, access: Access) -> Library {
    Arc::new(move |repository, digest| {
        let (store, access) = (store.clone(), access.clone());
        Box::pin(async move { look_up(&store, &access, repository.as_ref(), &digest).await })
    })
}

async fn look_up(
    store: &Store,
    access: &Access,
    repository: Option<&RepositoryName>,
    digest: &Digest,
) -> Option<Holder> {
    let metainfo = match store.entry(digest)? {
        Entry::Whole(blob) => blob.signed(),
        Entry::Partial(partial) if partial.bitfield().count() > 0 => partial.signed()?,
        Entry::Partial(_) => return None,
    };
    let now = Instant::now();
    let lent = match repository {
        Some(repository) => access.grant_of(repository, digest, now).await?.left(now)?,
        None => MAX_LENT,
    };
    Some(Holder { metainfo, lent })
}

async fn listen(
    (what, key): (&'static str, &'static str),
    address: SocketAddr,
    limits: &shoal_http::Limits,
) -> Result<Server, BindError> {
    let bound = Server::bind(address, None, limits.clone()).await;
    bound.map_err(|source| BindError::Listen { what, key, address, source })
}

/// What the tracker is told when it knows nothing of this agent.
fn held_by(store: Store) -> impl Fn() -> Vec<Holding> + Send + Sync + 'static {
    move || store.digests().into_iter().map(|(digest, complete)| Holding { digest, complete }).collect()
}
