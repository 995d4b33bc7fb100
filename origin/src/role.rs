//! The origin as a value: bind, shut down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_control::{Announcer, ControlError, TrackerClient};
use shoal_core::{PeerAddress, PeerId, Role};
use shoal_driver::{FilesystemDriver, ReadWriteDriver, Signer};
use shoal_http::{Running, Server};
use shoal_identity::Identity;
use shoal_registry::{PullMetrics, Registry};
use shoal_store::Store;
use shoal_transfer::{Stats, Transfer};

use crate::api::Api;
use crate::config::Config;
use crate::transferer::LocalTransferer;

/// An origin at work.
#[derive(Debug)]
pub struct Origin {
    registry: Registry,
    server: Running,
    api: Running,
    transfer: Transfer,
    announcer: Announcer,
    store: Store,
    id: PeerId,
    drain: Duration,
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
    /// A port cannot be opened.
    #[error("cannot listen on {address} for the {what}: {source}")]
    Listen {
        /// Which of the two ports.
        what: &'static str,
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
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
        let metadata = FilesystemDriver::new(config.store.directory.join("metadata"));
        let store = Store::open(config.store).await?;
        store.register_metrics(metrics)?;
        let transfer = Transfer::bind(config.transfer, identity.clone(), store.clone(), metrics).await?;
        let tracker = TrackerClient::new(&identity, config.tracker)?;

        let tags = || LocalTransferer { store: store.clone(), metadata: metadata.clone() };
        let api = Api {
            identity: identity.clone(),
            store: store.clone(),
            metadata: metadata.clone(),
            tags: tags(),
        };
        let tls = identity.server_config(&[b"h2", b"http/1.1"]);
        let api =
            listen("internal API", config.api_listen, Some(tls), &config.http).await?.serve(api.router());

        let signer = identity.clone();
        let sign: Signer = Arc::new(move |metainfo| signer.sign(metainfo));
        let driver = ReadWriteDriver::new(store.clone(), metadata.clone(), Arc::new(tags()), sign);
        let registry =
            Registry::new(config.registry, Arc::new(driver), Arc::new(PullMetrics::register(metrics)?));
        let server = listen("registry", config.listen, None, &config.http).await?.serve(registry.router());

        let peer_port = config.advertise.unwrap_or(transfer.local_address());
        let id = identity.id();
        let address = PeerAddress { id, role: Role::Origin, addresses: vec![peer_port], zone: config.zone };
        let url = config.advertise_api.unwrap_or_else(|| format!("https://{}", api.local_address()));
        // Trackers ask an origin what it has; it need not tell them a million blobs.
        let announcer = Announcer::start(tracker, address, Some(url), Vec::new);
        tracing::info!(peer = %id, registry = %server.local_address(), api = %api.local_address(), peers = %peer_port, "origin is up");
        Ok(Self { registry, server, api, transfer, announcer, store, id, drain: config.drain })
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

    /// Where the cluster asks.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api.local_address()
    }

    /// Where other nodes find the peer port (UDP).
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.transfer.local_address()
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

    /// Says whether the cluster knows this origin; if not, why.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let announcer = self.announcer.handle();
        move || announcer.ready()
    }

    /// Lets requests in flight end, says goodbye to the cluster, closes everything.
    pub async fn shutdown(self) {
        self.announcer.shutdown().await;
        self.server.shutdown(self.drain).await;
        self.registry.drain().await;
        self.api.shutdown(self.drain).await;
        self.transfer.shutdown().await;
        self.store.close().await;
    }
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: &shoal_http::Limits,
) -> Result<Server, BindError> {
    Server::bind(address, tls, limits.clone()).await.map_err(|source| BindError::Listen {
        what,
        address,
        source,
    })
}
