//! The tracker: introduces peers to each other.
//!
//! A find answers in one round trip with a blob's metainfo and whom to ask for its pieces. What the tracker knows is in
//! memory and on lease: a restarted one asks every node for everything at its next announce. Who a caller is comes from
//! its certificate, never from what it says. Deciding ([`state`], [`handout`]) is pure, with time and chance as arguments;
//! only the rest does I/O. It does not verify blobs or route pieces, and keeps nothing on disk.

mod admission;
mod api;
mod config;
mod flight;
pub mod handout;
mod metainfo;
mod metrics;
mod refusal;
pub mod state;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_control::overlay::{Library as Held, Member, Overlay, StartError};
use shoal_control::{ControlError, OriginClient, ServerUrl};
use shoal_core::{PeerAddress, Role, Zone};
use shoal_http::{Running, Server};
use shoal_identity::Identity;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
pub use crate::config::{Config, ConfigError};
use crate::metainfo::Library;
use crate::metrics::Metrics;
use crate::state::State;

/// A tracker at work.
#[derive(Debug)]
pub struct Tracker {
    running: Running,
    overlay: Option<Overlay>,
    sweeper: AbortOnDropHandle<()>,
    grace: Duration,
}

/// Why a tracker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate is not a tracker's: no node would talk to it.
    #[error(
        "the certificate of this node is for the role {0}, not tracker: issue one with `shoal ca issue --role tracker`"
    )]
    Role(Role),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for agents and origins: free it, or set `listen` to another")]
    Listen {
        /// What was configured.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The client that asks origins cannot be set up.
    #[error("cannot set up the client of the origins")]
    Client(#[from] ControlError),
    /// The overlay cannot be joined.
    #[error(transparent)]
    Overlay(#[from] StartError),
    /// No node could ask there.
    #[error("`advertise` is of no use")]
    Advertise(#[source] ControlError),
    /// The metrics are there already: one tracker a registry.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
}

impl Tracker {
    /// Listens, and answers from then on.
    pub async fn bind(
        config: Config,
        identity: Identity,
        registry: &prometheus::Registry,
    ) -> Result<Self, BindError> {
        config.check()?;
        if identity.role() != Role::Tracker {
            return Err(BindError::Role(identity.role()));
        }
        let metrics = Metrics::register(registry)?;
        let state = Arc::new(Mutex::new(State::new(config.lease, config.limits.clone())));
        let origins = OriginClient::new(&identity, Vec::new())?;
        let library = Library::new(&config, identity.clone(), origins, metrics.clone());
        let tls = identity.server_config(&[b"h2", b"http/1.1"]);
        let server = Server::bind(config.listen, Some(tls), config.http.clone())
            .await
            .map_err(|source| BindError::Listen { address: config.listen, source })?;
        let sweeper =
            tokio::spawn(sweep(Arc::clone(&state), metrics.clone(), config.lease / SWEEPS_PER_LEASE));
        let api = Api::new(&config, identity.clone(), Arc::clone(&state), library, metrics);
        let running = server.serve(api::router(api));
        let overlay = join_overlay(&config, identity, running.local_address(), registry).await?;
        Ok(Self { running, overlay, sweeper: AbortOnDropHandle::new(sweeper), grace: config.shutdown_grace })
    }

    /// Where it listens (the port that was free, for port 0).
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.running.local_address()
    }

    /// Where other nodes find the overlay's port, if that is configured.
    #[must_use]
    pub fn overlay_address(&self) -> Option<SocketAddr> {
        self.overlay.as_ref().map(Overlay::local_address)
    }

    /// Whether it can do its work. A tracker that just started can: it learns who is there from the answers it gives.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.sweeper.is_finished()
    }

    /// Takes no more requests, and lets those in flight end within the grace that is configured.
    pub async fn shutdown(self) {
        if let Some(overlay) = self.overlay {
            overlay.shutdown().await;
        }
        self.running.shutdown(self.grace).await;
    }
}

/// A node that is gone stays in memory for at most a quarter of a lease; it is not handed out in that time.
const SWEEPS_PER_LEASE: u32 = 4;

/// Takes part in the overlay as one who holds nothing, and says where it answers.
async fn join_overlay(
    config: &Config,
    identity: Identity,
    listens: SocketAddr,
    registry: &prometheus::Registry,
) -> Result<Option<Overlay>, BindError> {
    let Some(overlay) = &config.overlay else { return Ok(None) };
    let tracker_url = match &config.advertise {
        Some(url) => Some(ServerUrl::parse(url).map_err(BindError::Advertise)?.as_str().to_owned()),
        None => (!listens.ip().is_unspecified()).then(|| format!("https://{listens}")),
    };
    let address =
        PeerAddress { id: identity.id(), role: Role::Tracker, addresses: vec![], zone: Zone::default() };
    let nothing: Held = Arc::new(|_, _| Box::pin(std::future::ready(None)));
    let member = Member { identity, address, library: nothing, trackers: None, tracker_url };
    Ok(Some(Overlay::start(overlay, member, registry).await?))
}

async fn sweep(state: Arc<Mutex<State>>, metrics: Metrics, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let counts = {
            let mut state = api::lock(&state);
            state.sweep(Instant::now().into_std());
            state.counts()
        };
        metrics.observe(counts);
    }
}
