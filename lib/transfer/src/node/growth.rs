//! Blobs that something else receives while they are served, and blobs that are fetched from where that happens.

use shoal_core::{Bitfield, Digest, PeerId, PieceIndex, Role};
use shoal_store::{Arrived, Entry, Partial};
use shoal_swarm::{Event, Message};
use tokio::sync::mpsc;

use super::{Node, Outcome};
use crate::connection::Note;
use crate::swarms::Growth;

impl Node {
    /// Looks after a partial that nobody signed yet: it is on its way here by another way.
    pub(super) fn watch_growth(&mut self, digest: Digest, entry: &Entry) -> Option<Growth> {
        let Entry::Partial(partial) = entry else { return None };
        if partial.signed().is_some() {
            return None;
        }
        let told = partial.bitfield();
        let watcher = watch(digest, partial.clone(), told.clone(), self.note_sender.clone());
        Some(Growth { told, watcher: self.tasks.spawn(watcher) })
    }

    /// The engine hears of what it does not know of yet.
    pub(super) fn grew(&mut self, digest: Digest, arrived: Arrived) {
        let Some(swarm) = self.swarms.get_mut(&digest) else { return };
        let Some(growth) = &mut swarm.growth else { return };
        let have = match arrived {
            Arrived::Pieces(have) => have,
            Arrived::Whole(blob) => {
                let count = blob.metainfo().geometry().piece_count();
                swarm.entry = Entry::Whole(blob);
                Bitfield::full(count)
            }
            Arrived::Gone => return self.leave_swarm(&digest),
        };
        let pieces: Vec<_> = have.difference(&growth.told).collect();
        growth.told = have;
        if matches!(swarm.entry, Entry::Whole(_)) {
            swarm.growth = None;
        }
        self.events.push_back(Event::Grew { digest, pieces });
    }

    /// What a peer says, as far as it counts yet.
    pub(super) fn hold_back(&mut self, peer: PeerId, message: Message) -> Message {
        let (Message::Join { digest, .. } | Message::Have { digest, .. } | Message::Absent { digest }) =
            &message
        else {
            return message;
        };
        let fetch = self.swarms.get_mut(digest).and_then(|swarm| swarm.fetch.as_mut());
        let Some(fetch) = fetch else { return message };
        let Some(early) = &mut fetch.early else { return message };
        let count = fetch.partial.metainfo().geometry().piece_count();
        early.hold_back(peer, message, fetch.partial.known(), count)
    }

    /// The engine hears of those pieces of peers that can be checked now.
    pub(super) fn learned(&mut self, digest: Digest, number: u64) {
        let fetch = self.swarms.get_mut(&digest).and_then(|swarm| swarm.fetch.as_mut());
        let Some(fetch) = fetch.filter(|fetch| fetch.number == number) else { return };
        let Some(early) = &mut fetch.early else { return };
        let mut released = early.release(fetch.partial.known());
        // Whoever is heard first is asked: the origin last, since it is where all have it from.
        released.sort_by_key(|(peer, _)| {
            self.peers.established(peer).is_none_or(|connection| connection.role == Role::Origin)
        });
        if fetch.partial.signed().is_some() {
            fetch.early = None;
        }
        for (peer, pieces) in released {
            // Whoever left meanwhile says it again when it is back.
            if self.peers.established(&peer).is_some() {
                for pieces in pieces.chunks(Message::MAX_NEWS).map(<[PieceIndex]>::to_vec) {
                    let message = Message::Have { digest, pieces };
                    self.events.push_back(Event::Message { peer, message });
                }
            }
        }
    }

    /// Nothing that a peer said before counts any more.
    pub(super) fn forget_early(&mut self, peer: &PeerId) {
        for early in self.swarms.values_mut().filter_map(|swarm| swarm.fetch.as_mut()?.early.as_mut()) {
            early.forget(peer);
        }
    }
}

async fn watch(digest: Digest, partial: Partial, told: Bitfield, notes: mpsc::Sender<Note>) -> Outcome {
    let mut arrivals = partial.arrivals(told);
    // Whoever holds the partial keeps it from ending.
    drop(partial);
    loop {
        let arrived = arrivals.next().await;
        let goes_on = matches!(arrived, Arrived::Pieces(_));
        // An error means that the node stops, which aborts this task.
        let _ = notes.send(Note::Grew { digest, arrived }).await;
        if !goes_on {
            return Outcome::Watched;
        }
    }
}
