//! The overlay as a value, and what others tell it and ask it by.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::{Digest, PeerAddress};
use shoal_identity::Identity;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::overlay::Config;
use crate::overlay::addresses::Belief;
use crate::overlay::answer::Library;
use crate::overlay::holdings::Holdings;
use crate::overlay::host::{Host, StartError};
use crate::overlay::metrics::Metrics;
use crate::overlay::question::{Answer, Question};
use crate::tracker::TrackerClient;

/// A node's part in the overlay. Dropped, it ends at once.
#[derive(Debug)]
pub struct Overlay {
    handle: OverlayHandle,
    address: SocketAddr,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Tells the overlay what the node holds, and asks it. Cheap to clone.
#[derive(Clone)]
pub struct OverlayHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) identity: Identity,
    pub(crate) belief: Belief,
    pub(crate) metrics: Metrics,
    holdings: Arc<Mutex<Holdings>>,
}

/// Who takes part.
pub struct Member {
    /// Its key is the node's name in the overlay, its certificate lets it in.
    pub identity: Identity,
    /// Where it exchanges pieces: what it answers to who asks for a blob that it holds.
    pub address: watch::Receiver<PeerAddress>,
    /// What it holds.
    pub library: Library,
    /// Learns of trackers by gossip.
    pub trackers: Option<TrackerClient>,
    /// Where others reach it, if it is a tracker: `https://host:port`.
    pub tracker_url: Option<String>,
}

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Find holders, and ask each.
    Find { question: Question, replies: mpsc::Sender<Answer> },
    /// Ask one node.
    Ask { peer: shoal_core::PeerId, question: Question, reply: oneshot::Sender<Answer> },
    /// That node told what is not so.
    Refuse { peer: shoal_core::PeerId, what: &'static str },
}

/// Commands that may wait for the task. One more waits outside.
pub(crate) const MAX_COMMANDS: usize = 256;

impl Overlay {
    /// Listens, and takes part from then on. Reads the key's file, so it blocks for a moment.
    pub async fn start(
        config: &Config,
        member: Member,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry)?;
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let holdings = Arc::<Mutex<Holdings>>::default();
        let belief = Belief::new(config.listen.ip(), config.networks.clone());
        let handle = OverlayHandle {
            commands,
            identity: member.identity.clone(),
            belief: belief.clone(),
            metrics: metrics.clone(),
            holdings: holdings.clone(),
        };
        // On the heap, or every future that starts a role carries it.
        let starting = Box::pin(Host::start(config, member, belief, metrics, holdings, inbox));
        let (host, address) = starting.await?;
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(host.run(stop.clone())));
        tracing::info!(%address, "overlay is up");
        Ok(Self { handle, address, stop, task })
    }

    /// What others ask it by.
    #[must_use]
    pub fn handle(&self) -> OverlayHandle {
        self.handle.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// How many nodes are connected.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.handle.peers()
    }

    /// Closes all connections.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn std::error::Error, "overlay ended badly");
        }
    }
}

impl OverlayHandle {
    /// The node has this blob, whole or in part, and it was used just now.
    pub fn used(&self, digest: Digest) {
        self.holdings().used(digest);
    }

    /// The node has this blob no more.
    pub fn removed(&self, digest: &Digest) {
        self.holdings().removed(digest);
    }

    /// The node has all these, of which the last few count.
    pub fn hold(&self, digests: impl IntoIterator<Item = Digest>) {
        digests.into_iter().for_each(|digest| self.used(digest));
    }

    /// How many nodes of the overlay are connected.
    #[must_use]
    pub fn peers(&self) -> usize {
        usize::try_from(self.metrics.peers.get()).unwrap_or(0)
    }

    /// Whether a node of the overlay is connected.
    #[must_use]
    pub fn has_met(&self) -> bool {
        self.metrics.peers.get() > 0
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        // Each change is one call: there is no half-done state that a panic could leave.
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for OverlayHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayHandle").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("address", &self.address).finish_non_exhaustive()
    }
}
