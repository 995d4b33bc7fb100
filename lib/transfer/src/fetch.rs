//! A fetch, as its owner holds it.

use std::sync::Arc;

use shoal_core::{Digest, PeerAddress};
use shoal_store::{Blob, CommitError, Partial};
use shoal_swarm::{Priority, Scope};
use tokio::sync::mpsc;

use crate::node::Command;

/// A fetch under way; dropping it gives the fetch up (pieces stay on disk).
#[derive(Debug)]
pub struct Fetch {
    number: u64,
    partial: Partial,
    events: mpsc::Receiver<FetchEvent>,
    commands: mpsc::Sender<Command>,
    ended: bool,
}

/// How much of a blob a fetch is to bring; the more, the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// What its readers come to next, `read_ahead` beyond each at most. It waits while there are none, without end.
    Read,
    /// All of it, for a copy that should be there: after all that anybody reads or prefetches.
    Repair,
    /// All of it; what nobody reads comes after what others read.
    Prefetch,
    /// All of it, and somebody waits for that.
    Whole,
}

/// What a fetch tells its owner.
#[derive(Debug)]
pub enum FetchEvent {
    /// Ask the tracker, then [`Fetch::add_peers`] (with an empty list if there are none).
    FindPeers,
    /// The blob is whole, proved, and committed.
    Complete(Blob),
    /// It was given up; the readers of the partial were told ([`Partial::fail`]).
    Failed(FetchError),
}

/// Why a fetch ended without its blob.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// No peer brings it any nearer. Later, or from elsewhere, it may work.
    #[error("no peer sends {digest}")]
    NoProgress {
        /// The blob.
        digest: Digest,
    },
    /// All pieces came, and the blob could not be committed.
    #[error("cannot commit {digest}")]
    Commit {
        /// The blob.
        digest: Digest,
        /// The store's reason.
        source: Arc<CommitError>,
    },
    /// The blob was closed by [`crate::Transfer::close`].
    #[error("{digest} was closed")]
    Closed {
        /// The blob.
        digest: Digest,
    },
    /// There is a fetch of that blob already; the caller is to see to that.
    #[error("{digest} is being fetched already")]
    UnderWay {
        /// The blob.
        digest: Digest,
    },
    /// The node has stopped.
    #[error("{digest} is not fetched: the node has stopped")]
    Stopped {
        /// The blob.
        digest: Digest,
    },
}

impl Fetch {
    /// A fetch that the node is about to hear of, and the end on which it speaks.
    pub(crate) fn new(
        number: u64,
        partial: Partial,
        commands: mpsc::Sender<Command>,
    ) -> (Self, mpsc::Sender<FetchEvent>) {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        (Self { number, partial, events, commands, ended: false }, sender)
    }

    /// More peers, after [`FetchEvent::FindPeers`].
    pub async fn add_peers(&self, peers: Vec<PeerAddress>) {
        let (digest, fetch) = (*self.partial.metainfo().digest(), self.number);
        // An error means that the node has stopped, which `next` tells.
        let _ = self.commands.send(Command::AddPeers { digest, fetch, peers }).await;
    }

    /// More is wanted from now on; less than before changes nothing.
    pub async fn raise(&self, want: Want) {
        let (digest, fetch) = (*self.partial.metainfo().digest(), self.number);
        // An error means that the node has stopped, which `next` tells.
        let _ = self.commands.send(Command::Raise { digest, fetch, want }).await;
    }

    /// The next event; after `Complete` or `Failed` there is none.
    pub async fn next(&mut self) -> Option<FetchEvent> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await;
        self.ended = matches!(event, Some(FetchEvent::Complete(_) | FetchEvent::Failed(_)));
        event
    }

    /// It never began, and its partial is another's: leave the readers alone.
    pub(crate) fn disown(mut self) {
        self.ended = true;
    }
}

impl Want {
    /// What the engine is told.
    pub(crate) fn in_engine(self) -> (Scope, Priority) {
        match self {
            Self::Read => (Scope::Demand, Priority::Reader),
            Self::Repair => (Scope::All, Priority::Repair),
            Self::Prefetch => (Scope::All, Priority::Prefetch),
            Self::Whole => (Scope::All, Priority::Reader),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        while !self.ended
            && let Ok(event) = self.events.try_recv()
        {
            self.ended = !matches!(event, FetchEvent::FindPeers);
        }
        if !self.ended {
            self.partial.fail("given up");
        }
    }
}

/// A `FindPeers` that was not taken, and the last event: there is never more.
const EVENT_QUEUE: usize = 2;
