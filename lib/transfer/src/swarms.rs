//! The blobs that the engine has a swarm of: where their bytes are, and who waits for them.

use std::collections::HashMap;

use shoal_core::{Bitfield, Digest};
use shoal_store::{Entry, Partial};
use shoal_swarm::Event;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::early::Early;
use crate::fetch::FetchEvent;

/// Blobs by digest. The engine bounds their number: it says when an idle one may go.
pub(crate) type Swarms = HashMap<Digest, Swarm>;

/// One blob.
#[derive(Debug)]
pub(crate) struct Swarm {
    /// Its bytes; a partial is replaced by the whole blob when it is committed.
    pub(crate) entry: Entry,
    /// Who wants it here, if anybody does.
    pub(crate) fetch: Option<Underway>,
    /// Whoever looks how far it comes another way.
    pub(crate) growth: Option<Growth>,
}

/// A blob that is served while something else receives it. Looked at until this is dropped.
#[derive(Debug)]
pub(crate) struct Growth {
    /// What the engine knows of.
    pub(crate) told: Bitfield,
    pub(crate) watcher: AbortHandle,
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// A fetch, as the node holds it.
#[derive(Debug)]
pub(crate) struct Underway {
    pub(crate) number: u64,
    pub(crate) partial: Partial,
    events: mpsc::Sender<FetchEvent>,
    watcher: AbortHandle,
    /// Pieces that peers have and whose hashes are not known yet; `None` where all are.
    pub(crate) early: Option<Early>,
}

impl Swarm {
    /// Opens what the store has, to serve it.
    pub(crate) fn seed(entry: Entry) -> Self {
        Self { entry, fetch: None, growth: None }
    }

    /// The answer to the engine's `Load`.
    pub(crate) fn seed_event(&self, digest: Digest) -> Event {
        match &self.entry {
            Entry::Whole(blob) => {
                let geometry = *blob.metainfo().geometry();
                Event::Seed { digest, geometry, have: Bitfield::full(geometry.piece_count()) }
            }
            Entry::Partial(partial) => {
                Event::Seed { digest, geometry: *partial.metainfo().geometry(), have: partial.bitfield() }
            }
        }
    }

    /// Whether the swarm has pieces that the partial lacks: the blob was deleted since, and begun anew.
    pub(crate) fn is_ahead_of(&self, partial: &Partial) -> bool {
        match &self.entry {
            Entry::Whole(_) => true,
            Entry::Partial(earlier) => {
                earlier.metainfo() != partial.metainfo()
                    || earlier.bitfield().difference(&partial.bitfield()).next().is_some()
            }
        }
    }

    /// The fetch of that number, if it is the one under way.
    pub(crate) fn fetch(&self, number: u64) -> Option<&Underway> {
        self.fetch.as_ref().filter(|fetch| fetch.number == number)
    }
}

impl Underway {
    pub(crate) fn new(
        number: u64,
        partial: Partial,
        events: mpsc::Sender<FetchEvent>,
        watcher: AbortHandle,
    ) -> Self {
        let early = partial.signed().is_none().then(Early::default);
        Self { number, partial, events, watcher, early }
    }

    /// Asks the owner for peers; once is enough until it has heard.
    pub(crate) fn find_peers(&self) {
        if self.events.capacity() == self.events.max_capacity() {
            // An error means that the owner has gone; the watcher tells.
            let _ = self.events.try_send(FetchEvent::FindPeers);
        }
    }

    /// Whether the owner has let go of it.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells the owner how it came out.
    pub(crate) fn end(self, event: FetchEvent) {
        self.watcher.abort();
        if let FetchEvent::Failed(error) = &event {
            self.partial.fail(&error.to_string());
        }
        // The queue has a place for the last event. An error means that the owner has gone, and nobody wants to know.
        let _ = self.events.try_send(event);
    }
}
