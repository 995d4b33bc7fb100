//! Fetches of the node, from the owner's wish to the committed blob.

use std::sync::Arc;

use shoal_core::{Digest, PeerAddress, PieceIndex};
use shoal_store::{Blob, CommitError, Entry, Partial};
use shoal_swarm::{Event, Scope};
use tokio::sync::mpsc;

use super::{Node, Outcome};
use crate::connection::Note;
use crate::fetch::{FetchError, FetchEvent, Want};
use crate::swarms::{Swarm, Underway};

impl Node {
    pub(super) fn start_fetch(
        &mut self,
        number: u64,
        partial: Partial,
        peers: Vec<PeerAddress>,
        want: Want,
        events: mpsc::Sender<FetchEvent>,
    ) -> Result<(), FetchError> {
        let (digest, geometry) = (*partial.metainfo().digest(), *partial.metainfo().geometry());
        if let Some(swarm) = self.swarms.get(&digest) {
            if swarm.fetch.as_ref().is_some_and(|fetch| !fetch.is_abandoned()) {
                return Err(FetchError::UnderWay { digest });
            }
            if swarm.fetch.is_some() || swarm.is_ahead_of(&partial) {
                self.leave_swarm(&digest);
            }
        }
        let watcher = watch(digest, number, partial.clone(), events.clone(), self.note_sender.clone());
        let watcher = self.tasks.spawn(watcher);
        let fetch = Underway::new(number, partial.clone(), events, watcher);
        let candidates = self.addresses.learn(peers);
        let have = partial.bitfield();
        let pieces = partial.demand();
        let swarm = Swarm { entry: Entry::Partial(partial), fetch: Some(fetch), growth: None };
        self.swarms.insert(digest, swarm);
        let (scope, priority) = want.in_engine();
        self.events.push_back(Event::Fetch { digest, geometry, have, candidates, priority, scope });
        self.events.push_back(Event::Demand { digest, pieces });
        Ok(())
    }

    pub(super) fn raise(&mut self, digest: Digest, number: u64, want: Want) {
        let is_open = self.swarms.get(&digest).is_some_and(|swarm| swarm.fetch(number).is_some());
        if is_open && let (Scope::All, priority) = want.in_engine() {
            self.events.push_back(Event::Raise { digest, priority });
        }
    }

    pub(super) fn committed(&mut self, digest: Digest, number: u64, result: Result<Blob, CommitError>) {
        let Some(swarm) = self.swarms.get_mut(&digest) else { return };
        if swarm.fetch(number).is_none() {
            return;
        }
        match result {
            Ok(blob) => {
                swarm.entry = Entry::Whole(blob.clone());
                if let Some(fetch) = swarm.fetch.take() {
                    fetch.end(FetchEvent::Complete(blob));
                }
            }
            Err(source) => {
                tracing::error!(%digest, error = &source as &dyn std::error::Error, "blob not committed");
                self.close_swarm(&digest, FetchError::Commit { digest, source: Arc::new(source) });
            }
        }
    }

    /// Leaves the swarm of a blob and tells the owner of its fetch why.
    pub(super) fn close_swarm(&mut self, digest: &Digest, error: FetchError) {
        if let Some(fetch) = self.swarms.get_mut(digest).and_then(|swarm| swarm.fetch.take()) {
            fetch.end(FetchEvent::Failed(error));
        }
        self.leave_swarm(digest);
    }

    /// Leaves the swarm of a blob.
    pub(super) fn leave_swarm(&mut self, digest: &Digest) {
        self.swarms.remove(digest);
        self.peers.cancel_blob(digest);
        self.events.push_back(Event::Close { digest: *digest });
    }
}

/// Passes on that readers moved, until the owner of the fetch lets go of it.
///
/// Where an origin still receives the blob, also that more hashes are known.
async fn watch(
    digest: Digest,
    fetch: u64,
    partial: Partial,
    events: mpsc::Sender<FetchEvent>,
    notes: mpsc::Sender<Note>,
) -> Outcome {
    let mut known = partial.known();
    loop {
        let more = partial.hash_known(PieceIndex(known));
        tokio::select! {
            () = more, if known < partial.metainfo().geometry().piece_count() => {
                known = partial.known();
                // As below.
                let _ = notes.send(Note::Learned { digest, fetch }).await;
            }
            () = events.closed() => return Outcome::Abandoned { digest, fetch },
            () = partial.demand_changed() => {
                // An error means that the node stops, which aborts this task.
                let _ = notes.send(Note::Demand { digest, fetch }).await;
            }
        }
    }
}
