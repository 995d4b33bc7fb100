//! What the engine decides, carried out. Nothing here waits.

use std::sync::Arc;

use shoal_core::{Digest, PeerId};
use shoal_swarm::{Action, DisconnectReason, Event, Message, Priority};
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::{Node, OpenUpload, Outcome};
use crate::fetch::{FetchError, FetchEvent};
use crate::path::{is_same_zone, transports};
use crate::peers::{Dial, State};
use crate::swarms::Swarm;
use crate::upload::{Upload, UploadKey};
use crate::wire::{CloseReason, Frame, Hello};

impl Node {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Connect { peer } => self.connect(peer),
            Action::Disconnect { peer, reason } => self.forget(&peer, reason.into()),
            Action::Send { peer, message } => self.send(peer, message),
            Action::Upload { peer, digest, piece, priority } => self.upload((peer, digest, piece), priority),
            Action::Load { digest } => self.load(digest),
            Action::FindPeers { digest } => {
                if let Some(fetch) = self.swarms.get(&digest).and_then(|swarm| swarm.fetch.as_ref()) {
                    fetch.find_peers();
                }
            }
            Action::Complete { digest } => self.complete(digest),
            Action::GiveUp { digest } => self.give_up(digest),
            Action::Banned { peer, digest, piece } => {
                self.metrics.bans.inc();
                tracing::warn!(%peer, %digest, %piece, "peer banned: it sent a corrupt piece");
            }
            Action::Closed { digest } => {
                // A blob that is still being committed has an owner to tell.
                if self.swarms.get(&digest).is_some_and(|swarm| swarm.fetch.is_none()) {
                    self.swarms.remove(&digest);
                }
            }
        }
    }

    fn connect(&mut self, peer: PeerId) {
        match self.peers.state(&peer) {
            Some(State::Dialling(_)) => return,
            Some(State::Established(connection)) => {
                let (role, zone) = (connection.role, connection.zone.clone());
                return self.events.push_back(Event::Connected { peer, role, zone });
            }
            None => {}
        }
        let Some(known) = self.addresses.find(&peer) else {
            return self.events.push_back(Event::ConnectFailed { peer });
        };
        let same_zone = is_same_zone(&self.zone, &known.address.zone);
        let transports = transports(self.config.transport, same_zone, known.path);
        let (number, hello) = (self.next_number(), Hello::new(self.next_moment(), &self.zone));
        let greeter = Arc::clone(&self.greeter);
        let task = self.tasks.spawn(async move {
            let result = greeter.dial(&known.address, transports, hello).await.map(Box::new);
            Outcome::Dialled { peer, number, result }
        });
        self.peers.dialling(peer, Dial { number, task, first: transports[0], held: None });
    }

    pub(super) fn send(&mut self, peer: PeerId, message: Message) {
        let Some(connection) = self.peers.established(&peer) else { return };
        match &message {
            Message::Request { digest, piece, priority } => {
                let fetch = self.swarms.get(digest).and_then(|swarm| swarm.fetch.as_ref());
                let Some(fetch) = fetch else {
                    return tracing::error!(%digest, %piece, "a piece is asked for that nobody fetches");
                };
                connection.requests.ask(*digest, *piece, *priority, fetch.partial.clone());
            }
            Message::Cancel { digest, piece } => connection.requests.cancel(*digest, *piece),
            _ => {}
        }
        match connection.messages.try_send(Frame::Message(message)) {
            // Its last note is on the way.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(%peer, "peer disconnected: it does not take its messages");
                self.forget(&peer, CloseReason::TooSlow);
                self.events.push_back(Event::Disconnected { peer });
            }
        }
    }

    fn upload(&mut self, key: UploadKey, priority: Priority) {
        let (peer, digest, piece) = key;
        let (Some(connection), Some(swarm)) = (self.peers.established(&peer), self.swarms.get(&digest))
        else {
            return self.events.push_back(Event::Uploaded { peer, digest, piece });
        };
        let cancelled = CancellationToken::new();
        let upload = Upload {
            key,
            priority,
            egress: self.egress.clone(),
            entry: swarm.entry.clone(),
            link: connection.link.clone(),
            cancelled: cancelled.clone(),
            timeout: self.config.upload_timeout,
            metrics: self.metrics.clone(),
            traffic: Arc::clone(&connection.traffic),
        };
        self.uploads.insert(key, OpenUpload { cancelled, asked_again: false });
        self.metrics.uploads.inc();
        self.tasks.spawn(async move {
            let (key, sent) = upload.run().await;
            Outcome::Uploaded { key, sent }
        });
    }

    fn load(&mut self, digest: Digest) {
        let event = match self.store.entry(&digest) {
            None => Event::NotHeld { digest },
            Some(entry) => {
                let mut swarm = Swarm::seed(entry);
                let event = swarm.seed_event(digest);
                swarm.growth = self.watch_growth(digest, &swarm.entry);
                self.swarms.insert(digest, swarm);
                event
            }
        };
        self.events.push_back(event);
    }

    fn complete(&mut self, digest: Digest) {
        let Some(fetch) = self.swarms.get(&digest).and_then(|swarm| swarm.fetch.as_ref()) else { return };
        let (number, partial) = (fetch.number, fetch.partial.clone());
        self.tasks.spawn(async move {
            Outcome::Committed { digest, fetch: number, result: partial.commit().await }
        });
    }

    fn give_up(&mut self, digest: Digest) {
        self.peers.cancel_blob(&digest);
        if let Some(fetch) = self.swarms.remove(&digest).and_then(|swarm| swarm.fetch) {
            fetch.end(FetchEvent::Failed(FetchError::NoProgress { digest }));
        }
    }
}

impl From<DisconnectReason> for CloseReason {
    fn from(reason: DisconnectReason) -> Self {
        match reason {
            DisconnectReason::Idle => Self::Idle,
            DisconnectReason::Protocol => Self::Protocol,
            DisconnectReason::Corrupt => Self::Corrupt,
            DisconnectReason::Replaced => Self::Replaced,
        }
    }
}
