//! The node's task: it owns the engine and everything that the engine decides about.
//!
//! Commands, notes of connections, finished tasks, callers and the engine's clock come in at one `select!`; each becomes
//! events for the engine, whose actions are carried out at once (`actions`). Nothing here waits: what takes time is a
//! task of its own, owned by `tasks`.

mod actions;
mod connections;
mod fetches;
mod growth;
mod view;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use shoal_core::{Digest, PeerAddress, PeerId, Zone};
use shoal_identity::{Identity, Refusals};
use shoal_store::{Blob, CommitError, Partial, Store};
use shoal_swarm::{Event, Message, Moment};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::addresses::AddressBook;
use crate::config::Config;
use crate::connection::Note;
use crate::endpoint::{BindError, Endpoint};
use crate::fetch::{FetchError, FetchEvent, Want};
use crate::handshake::{Greeter, HandshakeError, Introduction};
use crate::limit::{Limiter, Limits};
use crate::metrics::{Direction, Metrics};
use crate::peers::Peers;
use crate::recorder::RecordedEngine;
use crate::swarms::Swarms;
use crate::upload::UploadKey;
use crate::view::{MemberView, View};
use crate::wire::CloseReason;

/// What the owner of the node wants.
#[derive(Debug)]
pub(crate) enum Command {
    /// Fetch what the partial lacks.
    Fetch {
        number: u64,
        partial: Partial,
        peers: Vec<PeerAddress>,
        want: Want,
        events: mpsc::Sender<FetchEvent>,
        reply: oneshot::Sender<Result<(), FetchError>>,
    },
    /// More of a blob is wanted.
    Raise { digest: Digest, fetch: u64, want: Want },
    /// More peers for a fetch.
    AddPeers { digest: Digest, fetch: u64, peers: Vec<PeerAddress> },
    /// Stop serving and fetching a blob.
    Close { digest: Digest, reply: oneshot::Sender<()> },
    /// Stop serving a blob if the store has it no more.
    Forget { digest: Digest },
    /// Say what there is to see.
    View { reply: oneshot::Sender<View> },
    /// Say who is in the swarm of a blob.
    Members { digest: Digest, reply: oneshot::Sender<Vec<MemberView>> },
}

/// How a task of the node came out.
#[derive(Debug)]
enum Outcome {
    /// The dial of that number.
    Dialled { peer: PeerId, number: u64, result: Result<Box<Introduction>, HandshakeError> },
    /// A caller.
    Heard(Result<Box<Introduction>, HandshakeError>),
    /// A connection ended; its last note said so.
    Disconnected,
    /// An upload ended, well or not.
    Uploaded { key: UploadKey, sent: bool },
    /// A complete partial was committed, or not.
    Committed { digest: Digest, fetch: u64, result: Result<Blob, CommitError> },
    /// There is nothing more to watch.
    Watched,
    /// The owner let go of a fetch.
    Abandoned { digest: Digest, fetch: u64 },
}

/// Who this node is, and where it stands.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) identity: Identity,
    pub(crate) zone: Zone,
}

/// The node's ends of what its handle holds.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) unreachable: broadcast::Sender<PeerId>,
    pub(crate) stop: CancellationToken,
}

/// One node; see the module's head.
#[derive(Debug)]
pub(crate) struct Node {
    config: Config,
    endpoint: Endpoint,
    greeter: Arc<Greeter>,
    identity: Identity,
    /// Rings when it may be that somebody is to go.
    standing: watch::Receiver<()>,
    refusals: Refusals,
    store: Store,
    metrics: Metrics,
    egress: Limiter,
    ingress: Limiter,
    zone: Zone,
    engine: RecordedEngine,
    epoch: Instant,
    /// What the engine is to hear next.
    events: VecDeque<Event>,
    addresses: AddressBook,
    peers: Peers,
    swarms: Swarms,
    uploads: HashMap<UploadKey, OpenUpload>,
    /// One for each caller that may be heard out at a time.
    handshakes: Arc<Semaphore>,
    tasks: JoinSet<Outcome>,
    commands: mpsc::Receiver<Command>,
    notes: mpsc::Receiver<Note>,
    note_sender: mpsc::Sender<Note>,
    /// Takes the names of peers that cannot be connected to.
    unreachable: broadcast::Sender<PeerId>,
    stop: CancellationToken,
    last_number: u64,
    last_moment: u64,
}

/// A piece on its way to a peer.
#[derive(Debug)]
struct OpenUpload {
    cancelled: CancellationToken,
    /// Whether the peer asked for it once more since it began.
    asked_again: bool,
}

impl Node {
    pub(crate) fn new(
        config: Config,
        endpoint: Endpoint,
        Own { identity, zone }: Own,
        store: Store,
        metrics: Metrics,
        Ends { commands, unreachable, stop }: Ends,
    ) -> Result<Self, BindError> {
        let own = identity.id();
        let engine = RecordedEngine::open(&config, own, zone.clone())?;
        let (note_sender, notes) = mpsc::channel(config.note_queue.get());
        Ok(Self {
            greeter: Greeter::new(endpoint.clone(), identity.clone(), &config),
            standing: identity.changes(),
            refusals: Refusals::of("peer port"),
            identity,
            endpoint,
            store,
            egress: metrics.limiter(Direction::Egress, &Limits::from(config.egress)),
            ingress: metrics.limiter(Direction::Ingress, &Limits::from(config.ingress)),
            metrics,
            engine,
            zone,
            epoch: Instant::now(),
            events: VecDeque::new(),
            addresses: AddressBook::new(own, config.max_known_peers),
            peers: Peers::new(own),
            swarms: Swarms::new(),
            uploads: HashMap::new(),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes.get())),
            tasks: JoinSet::new(),
            commands,
            notes,
            note_sender,
            unreachable,
            stop,
            last_number: 0,
            last_moment: 0,
            config,
        })
    }

    /// Runs until it is stopped, or nobody is left to command it.
    pub(crate) async fn run(mut self) {
        loop {
            let timeout = self.engine.next_timeout().map(|moment| self.epoch + moment.0);
            tokio::select! {
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(note) = self.notes.recv() => self.note(note),
                Some(outcome) = self.tasks.join_next() => self.outcome(outcome),
                Some(caller) = self.endpoint.accept() => self.caller(caller),
                Ok(()) = self.standing.changed() => self.expel(),
                () = sleep_until(timeout.unwrap_or(self.epoch)), if timeout.is_some() => {
                    self.engine.handle_timeout(self.now());
                }
            }
            self.settle();
        }
        self.end().await;
    }

    fn now(&self) -> Moment {
        Moment(self.epoch.elapsed())
    }

    /// Tells the engine what happened and does what it says, until both have nothing more.
    fn settle(&mut self) {
        loop {
            while let Some(event) = self.events.pop_front() {
                let now = self.now();
                if let Err(error) = self.engine.handle(now, event) {
                    tracing::debug!(%error, "engine refused an event");
                }
            }
            match self.engine.poll() {
                Some(action) => self.act(action),
                None if self.events.is_empty() => break,
                None => {}
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Fetch { number, partial, peers, want, events, reply } => {
                // An error means that the caller has gone; then the watcher ends the fetch.
                let _ = reply.send(self.start_fetch(number, partial, peers, want, events));
            }
            Command::Raise { digest, fetch, want } => self.raise(digest, fetch, want),
            Command::AddPeers { digest, fetch, peers } => {
                if self.swarms.get(&digest).is_some_and(|swarm| swarm.fetch(fetch).is_some()) {
                    let candidates = self.addresses.learn(peers);
                    self.events.push_back(Event::Found { digest, candidates });
                }
            }
            Command::Close { digest, reply } => {
                self.close_swarm(&digest, FetchError::Closed { digest });
                // An error means that the caller did not wait.
                let _ = reply.send(());
            }
            // Errors mean that whoever asked has gone.
            Command::View { reply } => drop(reply.send(self.view())),
            Command::Members { digest, reply } => drop(reply.send(self.members(&digest))),
            Command::Forget { digest } => {
                let idle = self.swarms.get(&digest).is_some_and(|swarm| swarm.fetch.is_none());
                if idle && self.store.entry(&digest).is_none() {
                    self.leave_swarm(&digest);
                }
            }
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Message { connection, message } => self.message(connection, message),
            Note::Received { connection, digest, piece, outcome } => {
                // Also of a connection that has ended since: the piece is here.
                self.events.push_back(Event::Received { peer: connection.peer, digest, piece, outcome });
            }
            Note::Closed { connection, fault } => self.closed(connection, &fault),
            Note::Grew { digest, arrived } => self.grew(digest, arrived),
            Note::Learned { digest, fetch } => self.learned(digest, fetch),
            Note::Demand { digest, fetch } => {
                let swarm = self.swarms.get(&digest);
                if let Some(fetch) = swarm.and_then(|swarm| swarm.fetch(fetch)) {
                    self.events.push_back(Event::Demand { digest, pieces: fetch.partial.demand() });
                }
            }
        }
    }

    fn outcome(&mut self, outcome: Result<Outcome, JoinError>) {
        match outcome {
            Ok(Outcome::Dialled { peer, number, result }) => self.dialled(peer, number, result),
            Ok(Outcome::Heard(result)) => self.heard(result),
            Ok(Outcome::Disconnected | Outcome::Watched) => {}
            Ok(Outcome::Uploaded { key, sent }) => self.uploaded(key, sent),
            Ok(Outcome::Committed { digest, fetch, result }) => self.committed(digest, fetch, result),
            Ok(Outcome::Abandoned { digest, fetch }) => {
                if self.swarms.get(&digest).is_some_and(|swarm| swarm.fetch(fetch).is_some()) {
                    self.leave_swarm(&digest);
                }
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::error!(%error, "a task of the node failed"),
        }
    }

    fn uploaded(&mut self, key: UploadKey, sent: bool) {
        let asked_again = self.uploads.remove(&key).is_some_and(|upload| upload.asked_again);
        self.metrics.uploads.dec();
        let (peer, digest, piece) = key;
        if !sent || asked_again {
            // Whoever cancels and then asks again, or comes back over another connection, waits for an answer still: the engine
            // took the new request for the one that it was answering.
            self.send(peer, Message::Reject { digest, piece });
        }
        self.events.push_back(Event::Uploaded { peer, digest, piece });
    }

    /// A number that nothing else of this node has.
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Tells the peers, and ends all tasks.
    async fn hang_up(&mut self) {
        // Nobody takes notes any more.
        self.notes.close();
        let mut open = self.peers.close_all(CloseReason::Shutdown);
        let deadline = Instant::now() + self.config.shutdown_timeout;
        while open > 0
            && let Ok(Some(outcome)) = timeout_at(deadline, self.tasks.join_next()).await
        {
            open -= usize::from(matches!(outcome, Ok(Outcome::Disconnected)));
        }
        self.tasks.shutdown().await;
    }

    async fn end(mut self) {
        for (digest, swarm) in self.swarms.drain() {
            if let Some(fetch) = swarm.fetch {
                fetch.end(FetchEvent::Failed(FetchError::Stopped { digest }));
            }
        }
        self.hang_up().await;
        self.metrics.connections.set(0);
        self.metrics.uploads.set(0);
        self.endpoint.close(self.config.shutdown_timeout).await;
        self.engine.end().await;
    }
}
