//! Who is connected or being dialled: at most one connection a peer.
//!
//! Two nodes may dial each other at once. The dial of the smaller peer id wins: the larger drops its own, the smaller
//! holds the larger's back until its own has come out. Nothing was sent on the loser, so nothing is lost.
//! A peer that dials although it has a connection restarted, and its new connection replaces the old; an older dial that
//! arrives late is told apart by its Hello's moment.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use shoal_core::{Digest, PeerId, Role, Zone};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::connection::ConnectionId;
use crate::handshake::Introduction;
use crate::link::{Link, Transport};
use crate::requests::Requests;
use crate::traffic::Traffic;
use crate::wire::{CloseReason, Frame};

/// All peers that are connected or being dialled.
#[derive(Debug)]
pub(crate) struct Peers {
    own: PeerId,
    states: HashMap<PeerId, State>,
}

/// An established connection, as the node holds it.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) id: ConnectionId,
    pub(crate) role: Role,
    pub(crate) zone: Zone,
    pub(crate) link: Link,
    pub(crate) messages: mpsc::Sender<Frame>,
    pub(crate) requests: Arc<Requests>,
    /// Of the peer's Hello.
    pub(crate) moment: u64,
    /// What it has moved.
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) since: Instant,
    /// What it was let in by.
    pub(crate) certificate: CertificateDer<'static>,
}

/// A dial under way.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) number: u64,
    pub(crate) task: AbortHandle,
    /// What is tried first.
    pub(crate) first: Transport,
    /// The peer dialled too; answered if this dial fails.
    pub(crate) held: Option<Box<Introduction>>,
}

/// How the node stands with a peer.
#[derive(Debug)]
pub(crate) enum State {
    /// Being dialled.
    Dialling(Dial),
    /// Connected.
    Established(Established),
}

/// What of a [`State`] decides about a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Dialling,
    Established { moment: u64 },
}

/// What to do with a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer it, in place of whatever there is.
    Accept,
    /// Let it wait for the outcome of the own dial.
    Hold,
    /// Turn it away.
    Refuse,
}

impl Peers {
    pub(crate) fn new(own: PeerId) -> Self {
        Self { own, states: HashMap::new() }
    }

    pub(crate) fn state(&self, peer: &PeerId) -> Option<&State> {
        self.states.get(peer)
    }

    /// The connection with that peer, if there is one.
    pub(crate) fn established(&self, peer: &PeerId) -> Option<&Established> {
        match self.states.get(peer)? {
            State::Established(connection) => Some(connection),
            State::Dialling(_) => None,
        }
    }

    /// The connection, if it is still the one with that peer.
    pub(crate) fn current(&self, id: ConnectionId) -> Option<&Established> {
        self.established(&id.peer).filter(|connection| connection.id == id)
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.connections().count()
    }

    /// Says what to do with a caller whose Hello has that moment.
    pub(crate) fn judge(&self, caller: PeerId, moment: u64) -> Verdict {
        let standing = match self.states.get(&caller) {
            None => Standing::Unknown,
            Some(State::Dialling(_)) => Standing::Dialling,
            Some(State::Established(connection)) => Standing::Established { moment: connection.moment },
        };
        standing.judge(self.own, caller, moment)
    }

    /// A dial has begun.
    pub(crate) fn dialling(&mut self, peer: PeerId, dial: Dial) {
        self.states.insert(peer, State::Dialling(dial));
    }

    /// Lets a caller wait; only the latest one of a peer does.
    pub(crate) fn hold(&mut self, caller: Box<Introduction>) {
        let Some(State::Dialling(dial)) = self.states.get_mut(&caller.peer) else { return };
        let is_latest = dial.held.as_ref().is_none_or(|held| held.hello.moment < caller.hello.moment);
        let turned_away = if is_latest { dial.held.replace(caller) } else { Some(caller) };
        if let Some(turned_away) = turned_away {
            turned_away.line.turn_away(CloseReason::Duplicate);
        }
    }

    /// Ends a dial that came out; `None` where it was given up before.
    pub(crate) fn dialled(&mut self, peer: &PeerId, number: u64) -> Option<Dial> {
        if !matches!(self.states.get(peer), Some(State::Dialling(dial)) if dial.number == number) {
            return None;
        }
        match self.states.remove(peer)? {
            State::Dialling(dial) => Some(dial),
            State::Established(_) => None,
        }
    }

    /// There is a connection. Gives back what was in its place.
    pub(crate) fn establish(&mut self, connection: Established) -> Option<State> {
        self.states.insert(connection.id.peer, State::Established(connection))
    }

    /// Ends all connections and dials; gives back how many connections there were.
    pub(crate) fn close_all(&mut self, reason: CloseReason) -> usize {
        let count = self.count();
        self.states.drain().for_each(|(_, state)| state.close(reason));
        count
    }

    /// Lets go of a peer, connected or being dialled.
    pub(crate) fn remove(&mut self, peer: &PeerId) -> Option<State> {
        self.states.remove(peer)
    }

    /// Nobody needs any piece of that blob any more.
    pub(crate) fn cancel_blob(&self, digest: &Digest) {
        for connection in self.connections() {
            connection.requests.cancel_blob(digest);
        }
    }

    /// Those who were let in by a certificate of which that is so.
    pub(crate) fn with(&self, holds: impl Fn(&CertificateDer<'static>) -> bool) -> Vec<PeerId> {
        self.connections().filter(|one| holds(&one.certificate)).map(|one| one.id.peer).collect()
    }

    /// All connections.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Established> {
        self.states.values().filter_map(|state| match state {
            State::Established(connection) => Some(connection),
            State::Dialling(_) => None,
        })
    }
}

impl Standing {
    fn judge(self, own: PeerId, caller: PeerId, moment: u64) -> Verdict {
        match self {
            _ if caller == own => Verdict::Refuse,
            Self::Unknown => Verdict::Accept,
            Self::Dialling if own < caller => Verdict::Hold,
            Self::Dialling => Verdict::Accept,
            Self::Established { moment: earlier } if moment > earlier => Verdict::Accept,
            Self::Established { .. } => Verdict::Refuse,
        }
    }
}

impl State {
    /// Ends whatever it is.
    pub(crate) fn close(self, reason: CloseReason) {
        match self {
            Self::Established(connection) => connection.link.close(reason),
            Self::Dialling(dial) => dial.close(reason),
        }
    }
}

impl Dial {
    /// Gives the dial up, and turns away who waits for it.
    pub(crate) fn close(self, reason: CloseReason) {
        self.task.abort();
        if let Some(held) = self.held {
            held.line.turn_away(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_public_key([number; 32])
    }

    #[test]
    fn of_two_dials_at_once_that_of_the_smaller_id_wins_on_both_sides() {
        assert_eq!(Standing::Dialling.judge(peer(1), peer(2), 7), Verdict::Hold);
        assert_eq!(Standing::Dialling.judge(peer(2), peer(1), 7), Verdict::Accept);
    }

    #[test]
    fn a_restarted_peer_replaces_its_connection_and_a_late_dial_does_not() {
        let standing = Standing::Established { moment: 7 };
        assert_eq!(standing.judge(peer(1), peer(2), 8), Verdict::Accept);
        assert_eq!(standing.judge(peer(1), peer(2), 6), Verdict::Refuse);
    }

    #[test]
    fn a_node_never_connects_to_itself() {
        assert_eq!(Standing::Unknown.judge(peer(1), peer(1), 7), Verdict::Refuse);
        assert_eq!(Standing::Unknown.judge(peer(1), peer(2), 7), Verdict::Accept);
    }
}
