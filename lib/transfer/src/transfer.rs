//! The handle to the node's task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_core::{Digest, PeerAddress, PeerId, Role, Zone};
use shoal_identity::Identity;
use shoal_store::{Partial, Store};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::endpoint::{BindError, Endpoint};
use crate::fetch::{Fetch, FetchError, Want};
use crate::metrics::Metrics;
use crate::node::{Command, Ends, Node, Own};
use crate::view::{MemberView, View};

/// A node's place in all swarms: one engine, one QUIC endpoint. Cheap to clone handle to the task that owns the engine.
#[derive(Clone, Debug)]
pub struct Transfer {
    commands: mpsc::Sender<Command>,
    local_address: SocketAddr,
    metrics: Metrics,
    last_fetch: Arc<AtomicU64>,
    unreachable: broadcast::Sender<PeerId>,
    stop: CancellationToken,
    task: TaskTracker,
}

/// Bytes by source since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Piece bytes from agents.
    pub bytes_from_peers: u64,
    /// Piece bytes from origins.
    pub bytes_from_origins: u64,
    /// Piece bytes sent.
    pub bytes_sent: u64,
    /// Connections now.
    pub connections: u64,
}

impl Transfer {
    /// Binds the peer port of a node of that zone and starts its task. Metrics go to `registry`.
    #[allow(clippy::unused_async, reason = "the sockets and the task need a runtime to be entered")]
    pub async fn bind(
        config: Config,
        identity: Identity,
        zone: Zone,
        store: Store,
        registry: &prometheus::Registry,
    ) -> Result<Self, BindError> {
        let endpoint = Endpoint::bind(&config, &identity)?;
        let metrics = Metrics::register(registry)?;
        let (commands, queue) = mpsc::channel(config.command_queue.get());
        let unreachable = broadcast::Sender::new(UNREACHABLE_QUEUE);
        let (local_address, stop, task) =
            (endpoint.local_address(), CancellationToken::new(), TaskTracker::new());
        let own = Own { identity, zone };
        let ends = Ends { commands: queue, unreachable: unreachable.clone(), stop: stop.clone() };
        let node = Node::new(config, endpoint, own, store, metrics.clone(), ends)?;
        task.spawn(Box::pin(node.run()));
        task.close();
        Ok(Self { commands, local_address, metrics, last_fetch: Arc::default(), unreachable, stop, task })
    }

    /// Where the peer port is.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Starts to fetch the missing pieces of a partial. The caller makes sure that there is one fetch a digest.
    pub async fn fetch(&self, partial: Partial, peers: Vec<PeerAddress>) -> Result<Fetch, FetchError> {
        self.fetch_some(partial, peers, Want::Whole).await
    }

    /// The same, of those that are wanted.
    pub async fn fetch_some(
        &self,
        partial: Partial,
        peers: Vec<PeerAddress>,
        want: Want,
    ) -> Result<Fetch, FetchError> {
        let digest = *partial.metainfo().digest();
        let number = self.last_fetch.fetch_add(1, Ordering::Relaxed);
        let (fetch, events) = Fetch::new(number, partial.clone(), self.commands.clone());
        let (reply, answer) = oneshot::channel();
        let command = Command::Fetch { number, partial, peers, want, events, reply };
        if self.commands.send(command).await.is_err() {
            return Err(FetchError::Stopped { digest });
        }
        match answer.await {
            Ok(Ok(())) => Ok(fetch),
            Ok(Err(error)) => {
                fetch.disown();
                Err(error)
            }
            Err(_) => Err(FetchError::Stopped { digest }),
        }
    }

    /// Stops serving a blob (before it is deleted), and ends its fetch.
    pub async fn close(&self, digest: &Digest) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Close { digest: *digest, reply }).await.is_ok() {
            // An error means that the node has stopped, and serves nothing.
            let _ = done.await;
        }
    }

    /// Stops serving a blob that the store has given up. If it has it again by now, or a fetch of it is under way,
    /// nothing happens.
    pub async fn forget(&self, digest: &Digest) {
        // An error means that the node has stopped, and serves nothing.
        let _ = self.commands.send(Command::Forget { digest: *digest }).await;
    }

    /// Tells of peers that could not be connected to: nothing answered where they should be, or somebody else did. Not of those
    /// that said no, or left. Who does not keep up misses the oldest.
    #[must_use]
    pub fn unreachable(&self) -> broadcast::Receiver<PeerId> {
        self.unreachable.subscribe()
    }

    /// Who is connected, and what is on its way. Nothing of both once the node has stopped.
    pub async fn view(&self) -> View {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::View { reply }, answer).await
    }

    /// Who of the peers is in the swarm of a blob.
    pub async fn members(&self, digest: &Digest) -> Vec<MemberView> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Members { digest: *digest, reply }, answer).await
    }

    async fn ask<T: Default>(&self, command: Command, answer: oneshot::Receiver<T>) -> T {
        // An error means that the node has stopped, here and below.
        let _ = self.commands.send(command).await;
        answer.await.unwrap_or_default()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            bytes_from_peers: self.metrics.source(Role::Agent).get(),
            bytes_from_origins: self.metrics.source(Role::Origin).get(),
            bytes_sent: self.metrics.bytes_sent.get(),
            connections: u64::try_from(self.metrics.connections.get()).unwrap_or(0),
        }
    }

    /// Ends all connections and the task; returns when both are gone. May be called again.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.task.wait().await;
    }
}

/// Names of unreachable peers that wait to be taken: a rack at once.
const UNREACHABLE_QUEUE: usize = 256;
