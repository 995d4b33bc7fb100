//! Connections between nodes, and the messages on them, which keep their order.

use shoal_core::Digest;
use shoal_swarm::{Event, Message};

use super::{Kind, Letter, Said, Tick, World, nanos};
use crate::agenda::Time;
use crate::node::{BlobId, NodeId, name};
use crate::tracker::zone_name;

/// A connection takes one round trip, TLS another, and the Hello of both sides a third.
const ROUND_TRIPS: Time = 3;

/// Which ends of each connection still hold it, for every letter to see: so many bytes stay in a processor's cache, the
/// nodes' own lists do not.
#[derive(Debug, Default)]
pub(super) struct Ends(Vec<[bool; 2]>);

impl Ends {
    /// A new connection, which both ends hold.
    fn connect(&mut self) -> u32 {
        self.0.push([true; 2]);
        u32::try_from(self.0.len() - 1).expect("hosts connect some dozen times each")
    }

    /// Whether `node` holds its connection to `peer`.
    fn holds(&self, link: u32, node: NodeId, peer: NodeId) -> bool {
        self.0[link as usize][usize::from(node < peer)]
    }

    pub(super) fn release(&mut self, link: u32, node: NodeId, peer: NodeId) {
        self.0[link as usize][usize::from(node < peer)] = false;
    }
}

impl World<'_> {
    pub(super) fn dial(&mut self, node: NodeId, to: NodeId) {
        let life = self.nodes[node as usize].life;
        let tick = if self.is_reachable(node, to) {
            let takes = 2 * ROUND_TRIPS * self.latency(node, to) + nanos(self.scenario.handshake);
            (takes, Tick::Dialled { node, to, life })
        } else {
            (nanos(self.scenario.silence), Tick::DialFailed { node, to, life })
        };
        self.agenda.after(tick.0, tick.1);
    }

    pub(super) fn dialled(&mut self, node: NodeId, to: NodeId, life: u32) {
        if !self.is_alive(node, life) {
            return;
        }
        if !self.is_reachable(node, to) {
            return self.dial_failed(node, to, life);
        }
        if self.nodes[node as usize].links.contains_key(&to) {
            return;
        }
        // The other side may still hold a connection to an earlier life of this one.
        if let Some(&link) = self.nodes[to as usize].links.get(&node) {
            self.lost(to, node, link);
        }
        let link = self.ends.connect();
        self.nodes[node as usize].links.insert(to, link);
        self.nodes[to as usize].links.insert(node, link);
        for (at, other) in [(node, to), (to, node)] {
            // The one may have closed the connection before the other knows of it.
            if self.nodes[at as usize].links.contains_key(&other) {
                let (role, zone) = (self.nodes[other as usize].role, self.nodes[other as usize].zone);
                self.tell(at, Event::Connected { peer: name(other), role, zone: zone_name(zone) });
            }
        }
    }

    pub(super) fn dial_failed(&mut self, node: NodeId, to: NodeId, life: u32) {
        if self.is_alive(node, life) {
            self.tell(node, Event::ConnectFailed { peer: name(to) });
        }
    }

    /// A node closes a connection.
    pub(super) fn disconnect(&mut self, node: NodeId, peer: NodeId) {
        let Some(&link) = self.nodes[node as usize].links.get(&peer) else { return };
        self.forget_link(node, peer);
        let letter = Letter { from: node, to: peer, link, what: Said::Closed };
        self.agenda.post(self.latency(node, peer), letter);
    }

    /// A node's connection is gone, if it is still that one.
    pub(super) fn lost(&mut self, node: NodeId, peer: NodeId, link: u32) {
        if self.nodes[node as usize].links.get(&peer) == Some(&link) {
            self.forget_link(node, peer);
            self.tell(node, Event::Disconnected { peer: name(peer) });
        }
    }

    pub(super) fn forget_link(&mut self, node: NodeId, peer: NodeId) {
        if let Some(link) = self.nodes[node as usize].links.remove(&peer) {
            self.ends.release(link, node, peer);
        }
        self.nodes[node as usize].expected.retain(|(from, _)| *from != peer);
        for upload in self.nodes[node as usize].uploads.find(|upload| upload.to == peer) {
            self.end_upload(node, upload, |tally, bytes| tally.wasted += bytes);
        }
    }

    pub(super) fn post(&mut self, from: NodeId, to: NodeId, message: Message) {
        let Some(&link) = self.nodes[from as usize].links.get(&to) else { return };
        let letter = Letter { from, to, link, what: self.pack(message) };
        self.agenda.post(self.latency(from, to), letter);
    }

    pub(super) fn letter(&mut self, letter: Letter) {
        let Letter { from, to, link, what } = letter;
        if !self.ends.holds(link, to, from) || !self.is_passable(from, to) {
            return;
        }
        if let Some(message) = self.unpack(what) {
            self.before_message(from, to, &message);
            self.tell(to, Event::Message { peer: name(from), message });
        } else {
            self.lost(to, from, link);
        }
    }

    fn pack(&self, message: Message) -> Said {
        let (kind, digest, piece) = match message {
            Message::Have { digest, pieces } => return Said::Have { blob: self.blob(&digest), pieces },
            Message::Request { digest, piece, priority } => (Kind::Request(priority), digest, piece),
            Message::Cancel { digest, piece } => (Kind::Cancel, digest, piece),
            Message::Reject { digest, piece } => (Kind::Reject, digest, piece),
            Message::Join { .. } | Message::Absent { .. } => return Said::Other(Box::new(message)),
        };
        Said::Piece { kind, blob: self.blob(&digest), piece }
    }

    /// `None` if nothing was said: the connection was closed.
    fn unpack(&self, said: Said) -> Option<Message> {
        let (kind, blob, piece) = match said {
            Said::Piece { kind, blob, piece } => (kind, blob, piece),
            Said::Have { blob, pieces } => {
                return Some(Message::Have { digest: self.blobs[usize::from(blob)].digest, pieces });
            }
            Said::Other(message) => return Some(*message),
            Said::Closed => return None,
        };
        let digest = self.blobs[usize::from(blob)].digest;
        Some(match kind {
            Kind::Request(priority) => Message::Request { digest, piece, priority },
            Kind::Cancel => Message::Cancel { digest, piece },
            Kind::Reject => Message::Reject { digest, piece },
        })
    }

    /// What the transport does with a message besides handing it on.
    fn before_message(&mut self, from: NodeId, to: NodeId, message: &Message) {
        match message {
            Message::Cancel { digest, piece } => {
                let item = (self.blob(digest), *piece);
                let uploads = self.nodes[to as usize].uploads.find(|it| it.to == from && it.item == item);
                for upload in uploads {
                    self.end_upload(to, upload, |tally, bytes| tally.duplicate += bytes);
                    self.post(to, from, Message::Reject { digest: *digest, piece: *piece });
                }
            }
            Message::Reject { digest, piece } => {
                let item = (self.blob(digest), *piece);
                let receiver = &mut self.nodes[to as usize];
                receiver.expected.remove(&(from, item));
                receiver.tally.refused += 1;
            }
            _ => {}
        }
    }

    /// The answer to an engine that asked whether a blob is here.
    pub(super) fn loaded(&mut self, node: NodeId, blob: BlobId, life: u32) {
        if !self.is_alive(node, life) {
            return;
        }
        let digest: Digest = self.blobs[usize::from(blob)].digest;
        let have = &self.nodes[node as usize].disk[usize::from(blob)];
        let event = if have.count() == 0 {
            Event::NotHeld { digest }
        } else {
            let geometry = self.blobs[usize::from(blob)].geometry;
            Event::Seed { digest, geometry, have: have.clone() }
        };
        // Refused if the blob began to be fetched meanwhile.
        self.tell(node, event);
    }
}
