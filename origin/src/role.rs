//! The origin as a value: bind, shut down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::map_request;
use shoal_control::overlay::{Member, Overlay, OverlayHandle};
use shoal_control::{Announcer, ControlError, Reporter, TrackerClient, Upkeep, Whereabouts};
use shoal_core::{PeerAddress, PeerId, Role};
use shoal_driver::{FilesystemDriver, ReadWriteDriver, Signer, Transferer};
use shoal_http::{Doorkeeper, Running, Server, Workers};
use shoal_identity::{Identity, Refusals};
use shoal_registry::auth::{ClientCertificate, Guard, GuardError};
use shoal_registry::event::{ClientAddress, Watcher};
use shoal_registry::maintenance::{MaintenanceMetrics, Schedule};
use shoal_registry::{PullMetrics, Registry};
use shoal_store::Store;
use shoal_transfer::{Stats, Transfer};

use crate::api::{Api, library};
use crate::behind::{Behind, BehindError};
use crate::cluster::{Cluster, ClusterError, ClusterTransferer, Parts, Sessions};
use crate::config::Config;
use crate::images::Images;
use crate::mode::ReadOnlySwitch;
use crate::preheat::{self, Preheat};
use crate::queue::{Journal, JournalError, QueueMetrics, Queues};
use crate::records::Records;
use crate::refill::Refill;
use crate::replication::{Replication, ReplicationError};
use crate::source::{SourceConfig, SourceConfigError};
use crate::tls::{ClientCertificates, TlsError};
use crate::transferer::LocalTransferer;
use crate::upstream::{PullThrough, UpstreamConfigError, Upstreams, WatchUses};
use crate::watchers::Watchers;
use crate::webhooks::{WebhookError, Webhooks};

/// An origin at work.
#[derive(Debug)]
pub struct Origin {
    registry: Registry,
    maintenance: Schedule,
    server: Running,
    s3: Option<Running>,
    /// Upstreams that have listeners of their own.
    mirrors: Vec<Running>,
    through: Option<PullThrough>,
    api: Running,
    transfer: Transfer,
    announcer: Announcer,
    tracker: TrackerClient,
    _upkeep: Upkeep,
    _reporter: Reporter,
    _whereabouts: Whereabouts,
    overlay: Option<Overlay>,
    cluster: Option<Arc<Cluster>>,
    webhooks: Arc<Webhooks>,
    behind: Behind,
    refill: Refill,
    replication: Arc<Replication>,
    preheat: Preheat,
    notifications: Option<Running>,
    store: Store,
    id: PeerId,
    drain: Duration,
    /// Last: what requests left behind runs there.
    _workers: Workers,
}

/// Why an origin cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The certificate is not an origin's.
    #[error(
        "the certificate of this node is for the role {0}, not origin: issue one with `shoal ca issue --role origin`"
    )]
    WrongRole(Role),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] shoal_store::OpenError),
    /// The peer port cannot be opened.
    #[error(transparent)]
    Transfer(#[from] shoal_transfer::BindError),
    /// A tracker is not named as a URL that can be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The overlay cannot be joined.
    #[error(transparent)]
    Overlay(#[from] shoal_control::overlay::StartError),
    /// A port cannot be opened.
    #[error("cannot listen on {address} for the {what}: free it, or set `{key}` to another")]
    Listen {
        /// Which of the ports.
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
    /// The registry's certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration of who may do what cannot be used.
    #[error(transparent)]
    Access(#[from] GuardError),
    /// It cannot be one of several origins.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A webhook is not configured as it must be.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A rule of replication is not configured as it must be.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// Preheat cannot be started.
    #[error(transparent)]
    Preheat(#[from] preheat::StartError),
    /// What is to be done later cannot be kept.
    #[error(transparent)]
    Queues(#[from] JournalError),
    /// What stands behind it is not configured as it must be.
    #[error(transparent)]
    Source(#[from] SourceConfigError),
    /// A registry that is to be pulled through is not configured as it must be.
    #[error(transparent)]
    Upstream(#[from] UpstreamConfigError),
    /// The backends are not configured as they must be.
    #[error(transparent)]
    Behind(#[from] BehindError),
    /// The S3 face is not configured as it must be.
    #[error(transparent)]
    S3(#[from] shoal_s3::ConfigError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Origin {
    /// Opens store and ports, and joins the cluster.
    pub async fn bind(
        config: Config,
        identity: Identity,
        metrics: &prometheus::Registry,
    ) -> Result<Self, BindError> {
        if identity.role() != Role::Origin {
            return Err(BindError::WrongRole(identity.role()));
        }
        let (tls_of_registry, guard) = access(&config).await?;
        let metadata = config.store.directory.join("metadata");
        let queues = config.store.directory.join("queues.redb");
        let sessions = config.store.directory.join("replication");
        let uses = config.store.directory.join("upstream-uses.redb");
        let metadata = FilesystemDriver::with_reserve(metadata, config.min_free.as_u64());
        let store = Store::open(config.store).await?;
        store.register_metrics(metrics)?;
        // The store has made the folder.
        let (journal, queue_metrics) = (Journal::open(&queues)?, QueueMetrics::register(metrics)?);
        let queues = (&journal, &queue_metrics);
        let webhooks = Webhooks::start(&config.webhooks, queues, identity.id(), metrics)?;
        let webhooks = Arc::new(webhooks);
        let transfer =
            Transfer::bind(config.transfer, identity.clone(), config.zone.clone(), store.clone(), metrics)
                .await?;
        let tracker = TrackerClient::new(&identity, config.tracker)?;

        let tls = identity.server_config(&[b"h2", b"http/1.1"]);
        let api = listen(("internal API", "api_listen"), config.api_listen, Some(tls), &config.http)
            .await?
            .kept_by(doorkeeper(&identity));
        let url = config.advertise_api.unwrap_or_else(|| format!("https://{}", api.local_address()));
        let id = identity.id();
        let who = PeerAddress { id, role: Role::Origin, addresses: Vec::new(), zone: config.zone };
        let whereabouts = Whereabouts::start(who, config.advertise, transfer.local_address()).await;
        let address = whereabouts.watch();

        let signer = identity.clone();
        let sign: Signer = Arc::new(move |metainfo| signer.sign(metainfo));
        // One for both: what the registry writes, the API sees at once.
        let records = Arc::new(Records::new(metadata.clone()));
        let behind = Behind::open(
            (&config.backends, config.write_back, config.eviction),
            (records.clone(), store.clone()),
            queues,
            metrics,
        )?;
        let mut sources: Vec<_> = behind.sources().chain(SourceConfig::sources(&config.source)?).collect();
        let upstreams = Upstreams::new(&config.upstream, metrics)?;
        sources.extend(upstreams.sources(&records));
        let refill = Refill::new(config.refill, sources, store.clone(), sign.clone(), metrics)?;
        let cluster = match &config.cluster {
            Some(cluster) => {
                let parts = Parts {
                    identity: identity.clone(),
                    store: store.clone(),
                    transfer: transfer.clone(),
                    records: records.clone(),
                    refill: refill.clone(),
                    source: address.clone(),
                    url: url.clone(),
                    min_age: config.maintenance.garbage.min_age,
                };
                Some(Cluster::start(cluster, parts, metrics)?)
            }
            None => None,
        };
        let transferer: Arc<dyn Transferer> = match &cluster {
            Some(cluster) => Arc::new(ClusterTransferer(cluster.clone())),
            None => Arc::new(LocalTransferer::new(store.clone(), records.clone(), refill.clone())),
        };
        let transferer = behind.start(transferer, cluster.as_ref());
        let mut registry_config = config.registry;
        upstreams.add_names(&mut registry_config)?;
        let parts = (&transferer, &cluster, &records, &store, &refill);
        let through = PullThrough::over(upstreams, &uses, parts)?;
        let transferer: Arc<dyn Transferer> = match &through {
            Some(through) => Arc::new(through.clone()),
            None => transferer,
        };
        let answers = Api {
            identity: identity.clone(),
            store: store.clone(),
            records: records.clone(),
            transferer: transferer.clone(),
            cluster: cluster.clone(),
            refill: refill.clone(),
            through: through.clone(),
        };
        let api = api.serve(answers.router());

        let driver = Arc::new(ReadWriteDriver::new(store.clone(), metadata, transferer.clone(), sign));
        let images =
            Images { driver: driver.clone(), records: records.clone(), transferer: transferer.clone() };
        let replication = Replication::start(&config.replication, &images, queues, &sessions, metrics)?;
        let replication = Arc::new(replication);
        let preheat = Preheat::start(config.preheat, images, tracker.clone(), queues, metrics)?;
        let notifications = match config.notifications {
            Some(notifications) => {
                let (what, address) = (("notifications", "notifications.listen"), notifications.listen);
                let router = preheat::router(notifications, preheat.clone());
                Some(listen(what, address, None, &config.http).await?.serve(router))
            }
            None => None,
        };
        let watchers = Watchers(vec![webhooks.clone(), replication.clone(), Arc::new(preheat.clone())]);
        let s3 = match config.s3_listen {
            Some(address) => {
                let router = shoal_s3::router(driver.clone(), &config.s3, config.s3.access(address)?)?;
                Some(listen(("S3 face", "s3_listen"), address, None, &config.http).await?.serve(router))
            }
            None => None,
        };
        let watcher: Arc<dyn Watcher> = match &through {
            Some(through) => Arc::new(WatchUses { through: through.clone(), next: Arc::new(watchers) }),
            None => Arc::new(watchers),
        };
        let registry = Registry::new(registry_config, driver, Arc::new(PullMetrics::register(metrics)?))
            .guarded(guard)
            .watched(watcher);
        let registry = match &cluster {
            Some(cluster) => registry.among(Arc::new(Sessions::of(cluster))),
            None => registry,
        };
        if let Some(cluster) = &cluster {
            cluster.serves(registry.router_of_nodes());
        }
        let router = registry.router().layer(map_request(hand_client_over));
        let workers = Workers::start().map_err(BindError::Threads)?;
        let mut mirrors = Vec::new();
        for (address, upstream) in Upstreams::listeners(&config.upstream) {
            let router = registry.router_of(upstream).layer(map_request(hand_client_over));
            let server =
                listen(("upstream", "upstream.listen"), address, tls_of_registry.clone(), &config.http)
                    .await?;
            mirrors.push(server.on(workers.clone()).serve(router));
        }
        let server = listen(("registry", "listen"), config.listen, tls_of_registry, &config.http).await?;
        let server = server.on(workers.clone()).serve(router);
        let counters = MaintenanceMetrics::register(metrics)?;

        let mut maintenance = registry.maintenance();
        if let Some(cluster) = &cluster {
            maintenance = maintenance.beside(cluster.clone());
        }
        let maintenance = Schedule::start(maintenance, config.maintenance, counters);

        // Trackers ask an origin what it has; it need not tell them a million blobs.
        let announcer = Announcer::start(tracker.clone(), address.clone(), Some(url), Vec::new);
        let upkeep = Upkeep::of_node(&identity, &config.identity, &tracker, &announcer.handle());
        let reporter = Reporter::start(tracker.clone(), transfer.unreachable());
        // Nor anybody else: whoever looks for a blob in the overlay asks origins first.
        let library = library(identity.clone(), store.clone(), records, transferer);
        let member =
            Member { identity, address, library, trackers: Some(tracker.clone()), tracker_url: None };
        let overlay = match &config.overlay {
            Some(overlay) => Some(Overlay::start(overlay, member, metrics).await?),
            None => None,
        };
        tracing::info!(peer = %id, registry = %server.local_address(), api = %api.local_address(), peers = %transfer.local_address(), "origin is up");
        Ok(Self {
            registry,
            maintenance,
            server,
            s3,
            mirrors,
            through,
            api,
            transfer,
            announcer,
            tracker,
            _upkeep: upkeep,
            _reporter: reporter,
            _whereabouts: whereabouts,
            overlay,
            cluster,
            webhooks,
            behind,
            refill,
            replication,
            preheat,
            notifications,
            store,
            id,
            drain: config.drain,
            _workers: workers,
        })
    }

    /// The origin's name.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where clients push to.
    #[must_use]
    pub fn registry_address(&self) -> SocketAddr {
        self.server.local_address()
    }

    /// Where a stock registry finds its store, if that is configured.
    #[must_use]
    pub fn s3_address(&self) -> Option<SocketAddr> {
        self.s3.as_ref().map(Running::local_address)
    }

    /// Where the cluster asks.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api.local_address()
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

    /// What is to be done later.
    #[must_use]
    pub fn queues(&self) -> Queues {
        let own = std::iter::once(self.preheat.shown());
        Queues(
            self.webhooks
                .queues()
                .chain(self.replication.queues())
                .chain(own)
                .chain(self.behind.queue())
                .collect(),
        )
    }

    /// What has agents fetch images before anybody pulls them.
    #[must_use]
    pub fn preheat(&self) -> Preheat {
        self.preheat.clone()
    }

    /// Where other registries say what was pushed to them, if that is configured.
    #[must_use]
    pub fn notifications_address(&self) -> Option<SocketAddr> {
        self.notifications.as_ref().map(Running::local_address)
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn read_only(&self) -> ReadOnlySwitch {
        ReadOnlySwitch(self.registry.clone())
    }

    /// What moved.
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

    /// Says whether the cluster knows this origin; if not, why.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let announcer = self.announcer.handle();
        move || announcer.ready()
    }

    /// Lets requests in flight end, says goodbye to the cluster, closes everything.
    pub async fn shutdown(self) {
        self.announcer.shutdown().await;
        self.maintenance.shutdown().await;
        self.server.shutdown(self.drain).await;
        if let Some(s3) = self.s3 {
            s3.shutdown(self.drain).await;
        }
        if let Some(notifications) = self.notifications {
            notifications.shutdown(self.drain).await;
        }
        for mirror in self.mirrors {
            mirror.shutdown(self.drain).await;
        }
        self.registry.drain().await;
        if let Some(through) = self.through {
            through.shutdown().await;
        }
        self.webhooks.shutdown().await;
        self.behind.shutdown().await;
        self.refill.shutdown().await;
        self.replication.shutdown().await;
        self.preheat.shutdown().await;
        if let Some(cluster) = self.cluster {
            cluster.shutdown().await;
        }
        self.api.shutdown(self.drain).await;
        if let Some(overlay) = self.overlay {
            overlay.shutdown().await;
        }
        self.transfer.shutdown().await;
        self.store.close().await;
    }
}

fn doorkeeper(identity: &Identity) -> Doorkeeper {
    let (refusals, identity) = (Refusals::of("origin API"), identity.clone());
    Doorkeeper::new(
        move |remote, error| refusals.note(remote, error),
        move |certificate| identity.expelled(certificate),
    )
}

/// What the registry's listener shows, and whom the registry lets in.
async fn access(config: &Config) -> Result<(Option<Arc<rustls::ServerConfig>>, Guard), BindError> {
    let by_certificate = config.auth.certificate.is_some();
    if by_certificate && config.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
        return Err(TlsError::NoClientCa.into());
    }
    let clients = if by_certificate { ClientCertificates::Optional } else { ClientCertificates::Required };
    let tls = config.tls.as_ref().map(|tls| tls.load(clients)).transpose()?;
    let secrets = config.auth.htpasswd.is_some() || config.auth.token.is_some();
    if secrets && tls.is_none() && !config.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.listen, "credentials of clients come in clear text: set tls, or put TLS in front");
    }
    let guard = Guard::new(&config.auth).await?;
    Ok(if tls.is_some() { (tls, guard.over_tls()) } else { (tls, guard) })
}

/// The registry knows nothing of the server that it is behind: gives it the certificate that the server has checked, and
/// from where the client comes.
async fn hand_client_over(mut request: Request) -> Request {
    if let Some(shoal_http::RemoteAddress(address)) = request.extensions().get().copied() {
        request.extensions_mut().insert(ClientAddress(address));
    }
    if let Some(shoal_http::ClientCertificate(certificate)) = request.extensions_mut().remove() {
        request.extensions_mut().insert(ClientCertificate(certificate.to_vec()));
    }
    request
}

async fn listen(
    (what, key): (&'static str, &'static str),
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: &shoal_http::Limits,
) -> Result<Server, BindError> {
    Server::bind(address, tls, limits.clone()).await.map_err(|source| BindError::Listen {
        what,
        key,
        address,
        source,
    })
}
