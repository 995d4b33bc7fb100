//! The tracker: introduces peers to each other.
//!
//! A find answers in one round trip with a blob's metainfo and whom to ask for its pieces. What the tracker knows is in
//! memory and on lease (shared with other trackers, if so configured): a restarted one asks every node for everything at its next announce. Who a caller is comes from
//! its certificate, never from what it says. Deciding ([`state`], [`handout`]) is pure, with time and chance as arguments;
//! only the rest does I/O. It does not verify blobs or route pieces, and keeps nothing of it on disk.

mod admission;
mod api;
mod config;
mod enrolment;
mod flight;
pub mod handout;
mod metainfo;
mod metrics;
mod prefetch;
mod refusal;
mod shared;
pub mod state;
mod view;
mod waits;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_control::overlay::{Library as Held, Member, Overlay, StartError};
use shoal_control::{ControlError, Issuer, OriginClient, ServerUrl, Upkeep};
use shoal_core::{PeerAddress, Role, Zone};
use shoal_http::{Doorkeeper, Running, Server};
use shoal_identity::{Identity, IdentityError, Refusals, Renewal};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
pub use crate::config::{Config, ConfigError};
use crate::enrolment::Registrar;
pub use crate::enrolment::{Enrolment, EnrolmentError};
use crate::metainfo::Library;
use crate::metrics::Metrics;
pub use crate::shared::Redis;
use crate::shared::Shared;
use crate::state::State;
pub use crate::view::View;
use crate::waits::Waits;

/// A tracker at work.
#[derive(Debug)]
pub struct Tracker {
    running: Running,
    enrolment: Option<Running>,
    _upkeep: Upkeep,
    overlay: Option<Overlay>,
    sweeper: AbortOnDropHandle<()>,
    _sharing: Option<shared::Running>,
    view: View,
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
    #[error("cannot listen on {address} for {what}: free it, or set `{key}` to another")]
    Listen {
        /// Who would come.
        what: &'static str,
        /// Its key in the configuration.
        key: &'static str,
        /// What was configured.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nodes cannot be enrolled.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// This tracker cannot be known by those who join.
    #[error("enrolment: the tracker's own certificate must be of the authority in enrolment.ca")]
    OtherAuthority(#[source] IdentityError),
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
        let state =
            Arc::new(Mutex::new(State::new(config.lease, config.limits.clone()).removing(config.removal)));
        let origins = OriginClient::new(&identity, Vec::new())?;
        let library = Library::new(&config, identity.clone(), origins, metrics.clone());
        let registrar = match config.enrolment.clone() {
            Some(enrolment) => Some(open_registrar(enrolment, &identity).await?),
            None => None,
        };
        let tls = identity.server_config(&[b"h2", b"http/1.1"]);
        let server = listen(("agents and origins", "listen"), config.listen, tls, config.http_limits())
            .await?
            .kept_by(doorkeeper(&identity));
        let enrolment = match (&config.enrolment, &registrar) {
            (Some(enrolment), Some(registrar)) => {
                Some(enrol_at(enrolment.listen, registrar, &identity, &config.http).await?)
            }
            _ => None,
        };
        let upkeep = upkeep(&identity, &config.identity, registrar.clone());
        let sweeper =
            tokio::spawn(sweep(Arc::clone(&state), metrics.clone(), config.lease / SWEEPS_PER_LEASE));
        let waits = Arc::<Waits>::default();
        let sharing = Shared::start(&config, &state, &waits, registry)?;
        let shared = sharing.as_ref().map(|running| Arc::clone(&running.shared));
        let view = View::new(Arc::clone(&state), Arc::clone(&waits));
        let api = Api::new(&config, identity.clone(), state, library, registrar, metrics);
        let api = api.ringing(waits).sharing(shared);
        let running = server.serve(api::router(Arc::new(api)));
        let overlay = join_overlay(&config, identity, running.local_address(), registry).await?;
        Ok(Self {
            running,
            enrolment,
            overlay,
            _upkeep: upkeep,
            sweeper: AbortOnDropHandle::new(sweeper),
            _sharing: sharing,
            view,
            grace: config.shutdown_grace,
        })
    }

    /// Where it listens (the port that was free, for port 0).
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.running.local_address()
    }

    /// Where nodes join, if they do here.
    #[must_use]
    pub fn enrolment_address(&self) -> Option<SocketAddr> {
        self.enrolment.as_ref().map(Running::local_address)
    }

    /// Where other nodes find the overlay's port, if that is configured.
    #[must_use]
    pub fn overlay_address(&self) -> Option<SocketAddr> {
        self.overlay.as_ref().map(Overlay::local_address)
    }

    /// What it knows, to look at.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Whether it can do its work. A tracker that just started can: it learns who is there from the answers it gives.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.sweeper.is_finished()
    }

    /// Takes no more requests, and lets those in flight end within the grace that is configured.
    pub async fn shutdown(self) {
        self.view.close();
        if let Some(enrolment) = self.enrolment {
            enrolment.shutdown(self.grace).await;
        }
        if let Some(overlay) = self.overlay {
            overlay.shutdown().await;
        }
        self.running.shutdown(self.grace).await;
    }
}

async fn open_registrar(enrolment: Enrolment, identity: &Identity) -> Result<Arc<Registrar>, BindError> {
    enrolment.check()?;
    let opened = tokio::task::spawn_blocking(move || Registrar::open(&enrolment)).await;
    let registrar = Arc::new(opened.expect("opening does not panic, and nothing stops it")?);
    take_list(&registrar, identity).map_err(EnrolmentError::Authority)?;
    Ok(registrar)
}

/// The port for strangers: fewer at once than the cluster may, and nothing but enrolment.
async fn enrol_at(
    address: SocketAddr,
    registrar: &Arc<Registrar>,
    identity: &Identity,
    http: &shoal_http::Limits,
) -> Result<Running, BindError> {
    let tls = identity
        .enrolment_config(registrar.authority().certificate(), &[b"h2", b"http/1.1"])
        .map_err(BindError::OtherAuthority)?;
    let limits = shoal_http::Limits { max_connections: MAX_STRANGERS, ..http.clone() };
    let server = listen(("nodes that join", "enrolment.listen"), address, tls, limits).await?;
    tracing::info!(address = %server.local_address(), "nodes can join");
    Ok(server.serve(enrolment::router(Arc::clone(registrar))))
}

fn upkeep(identity: &Identity, config: &shoal_identity::Config, registrar: Option<Arc<Registrar>>) -> Upkeep {
    let Some(registrar) = registrar else {
        return Upkeep::of_tracker(identity, config, Issuer::Outside, || Ok(()));
    };
    let (own, issuing, watched) = (identity.own(), Arc::clone(&registrar), identity.clone());
    let issuer = match config.renewal {
        Renewal::Tracker => Issuer::Here(Arc::new(move || issuing.renew(&own))),
        Renewal::Outside => Issuer::Outside,
    };
    Upkeep::of_tracker(identity, config, issuer, move || take_list(&registrar, &watched))
}

/// The list that `shoal ca revoke` wrote beside the authority's key, if it is newer than that in use.
fn take_list(registrar: &Registrar, identity: &Identity) -> Result<(), IdentityError> {
    let known = identity.revocations().map_or(0, |list| list.number());
    match registrar.revocations()? {
        Some(list) if list.number() > known => identity.revoke(list.text()),
        _ => Ok(()),
    }
}

fn doorkeeper(identity: &Identity) -> Doorkeeper {
    let (refusals, identity) = (Refusals::of("tracker"), identity.clone());
    Doorkeeper::new(
        move |remote, error| refusals.note(remote, error),
        move |certificate| identity.expelled(certificate),
    )
}

async fn listen(
    (what, key): (&'static str, &'static str),
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    limits: shoal_http::Limits,
) -> Result<Server, BindError> {
    let bound = Server::bind(address, Some(tls), limits).await;
    bound.map_err(|source| BindError::Listen { what, key, address, source })
}

/// Nodes that join at the same time: each takes some milliseconds.
const MAX_STRANGERS: usize = 256;

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
    // It exchanges no pieces, wherever it is.
    let address = tokio::sync::watch::channel(address).1;
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
