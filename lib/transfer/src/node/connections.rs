//! Connections of the node: who calls, who answers, what they say, how they end.

use std::sync::Arc;

use shoal_core::PeerId;
use shoal_swarm::{Event, Message};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Node, Outcome};
use crate::arrival::Arrivals;
use crate::connection::{Connection, ConnectionId, Fault};
use crate::endpoint::Caller;
use crate::handshake::{HandshakeError, Introduction};
use crate::path::Path;
use crate::peers::{Established, State, Verdict};
use crate::requests::Requests;
use crate::traffic::Traffic;
use crate::wire::{CloseReason, Frame, Hello};

impl Node {
    pub(super) fn caller(&mut self, caller: Caller) {
        let crowded = self.handshakes.available_permits() <= self.config.max_handshakes.get() / 2;
        let caller = match caller {
            Caller::Quic(caller) if crowded && caller.may_retry() => {
                // An error means that it may not be asked to retry, which was checked.
                let _ = caller.retry();
                return;
            }
            caller => caller,
        };
        let Ok(place) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            return caller.refuse();
        };
        let greeter = Arc::clone(&self.greeter);
        self.tasks.spawn(async move {
            let heard = greeter.hear(caller).await.map(Box::new);
            drop(place);
            Outcome::Heard(heard)
        });
    }

    pub(super) fn heard(&mut self, result: Result<Box<Introduction>, HandshakeError>) {
        match result {
            Ok(caller) => self.introduced(caller),
            Err(error) => {
                self.note_refusal(&error);
                tracing::debug!(error = &error as &dyn std::error::Error, "caller not admitted");
            }
        }
    }

    fn note_refusal(&self, error: &HandshakeError) {
        if let Some(address) = error.address().filter(|_| error.is_refusal()) {
            self.refusals.note(address, error);
        }
    }

    /// Lets go of peers whose certificate counts no more: the authority revoked it since.
    pub(super) fn expel(&mut self) {
        for peer in self.peers.with(|certificate| self.identity.peer(certificate).is_err()) {
            tracing::warn!(%peer, "peer expelled: its certificate counts no more");
            self.forget(&peer, CloseReason::Refused);
            self.events.push_back(Event::Disconnected { peer });
        }
    }

    fn introduced(&mut self, caller: Box<Introduction>) {
        match self.peers.judge(caller.peer, caller.hello.moment) {
            Verdict::Hold => self.peers.hold(caller),
            Verdict::Refuse => caller.line.turn_away(CloseReason::Duplicate),
            Verdict::Accept if self.is_full_for(&caller.peer) => caller.line.turn_away(CloseReason::Busy),
            Verdict::Accept => self.answer(*caller),
        }
    }

    /// Whether there is no place for another connection, and the peer has none that it could take over.
    fn is_full_for(&self, peer: &PeerId) -> bool {
        self.peers.state(peer).is_none() && self.peers.count() >= self.config.max_connections.get()
    }

    /// Answers a caller's Hello with the own: from then on there is a connection.
    fn answer(&mut self, caller: Introduction) {
        let hello = Frame::Hello(Hello::new(self.next_moment(), &self.zone));
        self.establish(caller, Some(hello));
    }

    pub(super) fn dialled(
        &mut self,
        peer: PeerId,
        number: u64,
        result: Result<Box<Introduction>, HandshakeError>,
    ) {
        let Some(dial) = self.peers.dialled(&peer, number) else {
            if let Ok(late) = result {
                late.line.turn_away(CloseReason::Duplicate);
            }
            return;
        };
        match (result, dial.held) {
            (Ok(introduction), held) => {
                let link = introduction.line.link();
                let (transport, round_trip) = (link.transport(), link.round_trip());
                let path = Path { transport, is_fallback: transport != dial.first, round_trip };
                self.addresses.reached(&peer, path);
                if let Some(held) = held {
                    held.line.turn_away(CloseReason::Duplicate);
                }
                self.establish(*introduction, None);
            }
            (Err(_), Some(held)) => self.answer(*held),
            (Err(error), None) => {
                self.note_refusal(&error);
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "dial failed");
                self.metrics.dials_failed.inc();
                if error.is_absence() {
                    // An error means that nobody wants to know.
                    let _ = self.unreachable.send(peer);
                }
                self.events.push_back(Event::ConnectFailed { peer });
            }
        }
    }

    /// Takes a connection into use, in place of whatever there was with that peer.
    fn establish(&mut self, introduction: Introduction, answer: Option<Frame>) {
        let Introduction { peer, role, certificate, hello, line } = introduction;
        let link = line.link();
        let id = ConnectionId { peer, number: self.next_number() };
        let (messages, queue) = mpsc::channel(self.config.message_queue.get());
        if let Some(answer) = answer {
            // The queue is new and has a place at least.
            let _ = messages.try_send(answer);
        }
        let requests = Arc::new(Requests::default());
        let traffic = Arc::<Traffic>::default();
        let arrivals = Arc::new(Arrivals {
            connection: id,
            role,
            requests: Arc::clone(&requests),
            notes: self.note_sender.clone(),
            ingress: self.ingress.clone(),
            metrics: self.metrics.clone(),
            traffic: Arc::clone(&traffic),
        });
        let connection = Connection { line, messages: queue, arrivals, patience: self.config.idle_timeout };
        self.tasks.spawn(async move {
            connection.run().await;
            Outcome::Disconnected
        });
        let (address, transport) = (link.remote_address(), link.transport());
        tracing::debug!(%peer, %role, %address, ?transport, software = hello.software(), "connected");
        let (moment, zone) = (hello.moment, hello.zone);
        let zone_here = zone.clone();
        let established = Established {
            id,
            role,
            zone: zone_here,
            link,
            messages,
            requests,
            moment,
            traffic,
            since: Instant::now(),
            certificate,
        };
        let earlier = self.peers.establish(established);
        self.metrics.connections.set(i64::try_from(self.peers.count()).unwrap_or(i64::MAX));
        if let Some(earlier) = earlier {
            if matches!(earlier, State::Established(_)) {
                self.events.push_back(Event::Disconnected { peer });
            }
            earlier.close(CloseReason::Duplicate);
        }
        self.events.push_back(Event::Connected { peer, role, zone });
    }

    pub(super) fn message(&mut self, id: ConnectionId, message: Message) {
        let Some(connection) = self.peers.current(id) else { return };
        match &message {
            Message::Cancel { digest, piece } => {
                if let Some(upload) = self.uploads.get(&(id.peer, *digest, *piece)) {
                    upload.cancelled.cancel();
                }
            }
            Message::Request { digest, piece, .. } => {
                if let Some(upload) = self.uploads.get_mut(&(id.peer, *digest, *piece)) {
                    upload.asked_again = true;
                }
            }
            Message::Reject { digest, piece } => connection.requests.rejected(*digest, *piece),
            _ => {}
        }
        let message = self.hold_back(id.peer, message);
        self.events.push_back(Event::Message { peer: id.peer, message });
    }

    pub(super) fn closed(&mut self, id: ConnectionId, fault: &Fault) {
        let (peer, error) = (id.peer, fault as &dyn std::error::Error);
        if fault.is_violation() {
            tracing::warn!(%peer, error, "peer broke the protocol");
        } else {
            tracing::debug!(%peer, error, "connection ended");
        }
        if self.peers.current(id).is_some() {
            self.forget(&peer, CloseReason::Idle);
            self.events.push_back(Event::Disconnected { peer });
        }
    }

    /// Lets go of a peer. The engine is not told.
    pub(super) fn forget(&mut self, peer: &PeerId, reason: CloseReason) {
        if let Some(state) = self.peers.remove(peer) {
            state.close(reason);
        }
        self.forget_early(peer);
        self.metrics.connections.set(i64::try_from(self.peers.count()).unwrap_or(i64::MAX));
    }

    /// Later than that of any Hello before, also of this node's life before a restart.
    pub(super) fn next_moment(&mut self) -> u64 {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_micros());
        self.last_moment = u64::try_from(now).unwrap_or(0).max(self.last_moment + 1);
        self.last_moment
    }
}
