//! The task that owns the libp2p host: commands and events in, one call each.

mod asking;
mod meeting;
mod speaking;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use libp2p::kad::{self, QueryId};
use libp2p::swarm::SwarmEvent;
use libp2p::{identify, request_response};
use shoal_core::{Digest, PeerAddress, PeerId};
use shoal_identity::Identity;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::overlay::addresses::{Belief, multiaddr, socket_address};
use crate::overlay::answer::Library;
use crate::overlay::behaviour::{Behaviour, BehaviourEvent, IDLE_TIMEOUT};
use crate::overlay::book::{Book, Connected};
use crate::overlay::config::Config;
use crate::overlay::gate::{Gate, libp2p_id, shoal_id};
use crate::overlay::gossip::Gossip;
use crate::overlay::handle::{Command, Member};
use crate::overlay::holdings::Holdings;
use crate::overlay::join::{JoinError, Meeting};
use crate::overlay::key::{self, KeyError};
use crate::overlay::metrics::{Metrics, gauge};
use crate::overlay::queries::Queries;
use crate::overlay::question::Answer;
use crate::overlay::records::{Bounds, Records};
use crate::overlay::transport;
use crate::tracker::TrackerClient;

/// Everything that the task owns.
pub(crate) struct Host {
    swarm: libp2p::Swarm<Behaviour>,
    gate: Gate,
    belief: Belief,
    identity: Identity,
    /// Rings when whom to trust has changed.
    standing: watch::Receiver<()>,
    /// Where this node exchanges pieces.
    address: watch::Receiver<PeerAddress>,
    library: Library,
    trackers: Option<TrackerClient>,
    tracker_url: Option<String>,
    holdings: Arc<Mutex<Holdings>>,
    commands: mpsc::Receiver<Command>,
    queries: Queries,
    publishing: HashMap<QueryId, Digest>,
    answering: JoinSet<(request_response::ResponseChannel<Answer>, Answer)>,
    book: Book,
    gossip: Gossip,
    meetings: Arc<[Meeting]>,
    resolving: JoinSet<Vec<SocketAddr>>,
    meets_at: Instant,
    speaks_at: Instant,
    expires_at: Instant,
    metrics: Metrics,
}

/// Why a node cannot take part in the overlay.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pre-shared key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An entry of `overlay.join` is none.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The port cannot be opened.
    #[error(
        "cannot listen on {address} for the overlay: free it, or set `overlay.listen` to another ({reason})"
    )]
    Listen {
        /// What was configured.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The protocols cannot be set up.
    #[error("the overlay cannot be set up: {0}")]
    Protocols(String),
    /// Two metrics of one name.
    #[error("the overlay's metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// How often it is looked whether something is to be published, said or met.
const TICK: Duration = Duration::from_millis(250);
/// How often records that have run out are let go.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How long the system may take to open a port.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A node speaks of itself soon after its start: by then it has met its neighbours.
const FIRST_WORD: Duration = Duration::from_secs(5);

impl Host {
    pub(crate) async fn start(
        config: &Config,
        member: Member,
        belief: Belief,
        metrics: Metrics,
        holdings: Arc<Mutex<Holdings>>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<(Box<Self>, SocketAddr), StartError> {
        let identity = member.identity;
        let key = key::load(config.key.as_deref().map(Path::new), identity.cluster())?;
        let gate = Gate::new(identity.clone());
        let local = libp2p_id(&identity.id());
        let records = Records::new(local, belief.clone(), Bounds::default());
        let behaviour =
            Behaviour::new(&identity.id(), records, config.mdns).map_err(StartError::Protocols)?;
        let transport = transport::build(belief.clone(), metrics.meter.clone(), key, gate.clone());
        let limits = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
        let mut swarm = libp2p::Swarm::new(transport, behaviour, local, limits);
        let address = listen(&mut swarm, config).await?;
        let meetings: Result<Arc<[Meeting]>, _> =
            config.join.iter().map(|text| Meeting::parse(text)).collect();
        let now = Instant::now();
        let mut host = Box::new(Self {
            swarm,
            gate,
            belief,
            standing: identity.changes(),
            identity,
            address: member.address,
            library: member.library,
            trackers: member.trackers,
            tracker_url: member.tracker_url,
            holdings,
            commands,
            queries: Queries::default(),
            publishing: HashMap::new(),
            answering: JoinSet::new(),
            book: Book::default(),
            gossip: Gossip::default(),
            meetings: meetings?,
            resolving: JoinSet::new(),
            meets_at: now,
            speaks_at: now + FIRST_WORD,
            expires_at: now + EXPIRE_INTERVAL,
            metrics,
        });
        for own in config.advertise.into_iter().chain([address]) {
            host.is_reached_at(own);
        }
        Ok((host, address))
    }

    pub(crate) async fn run(mut self: Box<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(command) = self.commands.recv() => self.obey(command),
                event = self.swarm.select_next_some() => self.on_event(event),
                Ok(()) = self.standing.changed() => self.expel(),
                Some(answered) = self.answering.join_next() => self.send_answer(answered),
                Some(resolved) = self.resolving.join_next() => self.meet(resolved.unwrap_or_default()),
                _ = ticks.tick() => self.tick(Instant::now()),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Find { question, replies } => self.find(question, replies),
            Command::Ask { peer, question, reply } => self.ask(peer, question, reply),
            Command::Refuse { peer, what } => self.refuse(peer, what),
        }
    }

    /// Ends the connections of those who do not belong to the cluster any more.
    fn expel(&mut self) {
        for peer in self.gate.expelled() {
            if self.swarm.disconnect_peer_id(peer).is_ok() {
                tracing::warn!(%peer, "overlay: a connection ended, its certificate counts no more");
                self.metrics.refused.with_label_values(&["connection"]).inc();
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                self.joined(&peer_id, endpoint.get_remote_address());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => self.left(&peer_id),
            SwarmEvent::NewListenAddr { address, .. } => {
                if let Some(own) = socket_address(&address) {
                    self.is_reached_at(own);
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(own) = socket_address(&address) {
                    self.swarm.remove_external_address(&multiaddr(own));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                let cause = &error as &dyn std::error::Error;
                tracing::info!(from = %send_back_addr, error = cause, "overlay refused a connection");
                self.metrics.refused.with_label_values(&["connection"]).inc();
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                tracing::debug!(
                    ?peer_id,
                    error = &error as &dyn std::error::Error,
                    "overlay did not reach a node"
                );
            }
            SwarmEvent::Behaviour(event) => self.on_protocol(event),
            _ => {}
        }
    }

    fn on_protocol(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Questions(event) => self.on_question(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                let addresses = self.belief.plausible_of(&info.listen_addrs);
                self.learn(&peer_id, &addresses);
            }
            BehaviourEvent::Mdns(event) => self.on_local_search(event),
            _ => {}
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let is_published = !matches!(result, kad::QueryResult::StartProviding(Err(_)));
                self.on_search(id, result);
                if step.last {
                    self.published(id, is_published);
                    self.queries.search_ended(id);
                }
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => {
                let kept = libp2p::kad::store::RecordStore::add_provider(self.records(), record);
                if kept.is_err() {
                    self.metrics.refused.with_label_values(&["record"]).inc();
                }
            }
            _ => {}
        }
    }

    fn joined(&mut self, peer: &libp2p::PeerId, address: &libp2p::Multiaddr) {
        let Some(id) = shoal_id(peer) else { return };
        let (Some(role), Some(address)) = (self.gate.role(&id), socket_address(address)) else { return };
        if self.book.len() == 0 {
            self.holdings().publish_all();
        }
        self.book.joined(id, Connected { role, address });
        self.metrics.peers.set(gauge(self.book.len()));
    }

    fn left(&mut self, peer: &libp2p::PeerId) {
        if let Some(id) = shoal_id(peer) {
            self.book.left(&id);
        }
        self.metrics.peers.set(gauge(self.book.len()));
    }

    /// Where a node says that it is: those addresses, and no others that it may have named before.
    fn learn(&mut self, peer: &libp2p::PeerId, addresses: &[SocketAddr]) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.remove_peer(peer);
        for address in addresses {
            kad.add_address(peer, multiaddr(*address));
        }
    }

    fn is_reached_at(&mut self, own: SocketAddr) {
        let has_room = self.swarm.external_addresses().count() < crate::overlay::addresses::MAX_ADDRESSES;
        if has_room && self.belief.is_plausible(own) {
            self.swarm.add_external_address(multiaddr(own));
        }
    }

    /// Has nothing to do with a node any more that told what is not so.
    fn refuse(&mut self, peer: PeerId, what: &'static str) {
        tracing::warn!(%peer, what, "a node of the overlay told what is not so, and is kept out for a while");
        self.metrics.refused.with_label_values(&[what]).inc();
        self.gate.ban(peer, Instant::now());
        let peer = libp2p_id(&peer);
        self.records().forget_provider(&peer);
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        // It may be gone already.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn tick(&mut self, now: Instant) {
        self.publish(now);
        self.speak_if_due(now);
        self.meet_if_due(now);
        if self.expires_at <= now {
            self.expires_at = now + EXPIRE_INTERVAL;
            self.records().expire(now);
        }
        let (records, announced) = (self.records().len(), self.holdings().len());
        self.metrics.records.set(gauge(records));
        self.metrics.announced.set(gauge(announced));
    }

    fn records(&mut self) -> &mut Records {
        self.swarm.behaviour_mut().kad.store_mut()
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the port, and says where: for port 0 the system chooses.
async fn listen(swarm: &mut libp2p::Swarm<Behaviour>, config: &Config) -> Result<SocketAddr, StartError> {
    let failed = |reason: String| StartError::Listen { address: config.listen, reason };
    swarm.listen_on(multiaddr(config.listen)).map_err(|error| failed(error.to_string()))?;
    let opened = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    if let Some(address) = socket_address(&address) {
                        return Ok(address);
                    }
                }
                SwarmEvent::ListenerError { error, .. } => return Err(failed(error.to_string())),
                _ => {}
            }
        }
    };
    tokio::time::timeout(LISTEN_TIMEOUT, opened).await.map_err(|_| failed("no address in time".into()))?
}
