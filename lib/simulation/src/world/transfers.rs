//! Pieces on their way: out of one host's pipe frame by frame, over the trunks, into another's, and to its disk.

use shoal_core::Role;
use shoal_swarm::{Event, PieceOutcome};

use super::{Tick, World, frontier};
use crate::agenda::Time;
use crate::node::{Item, NodeId, Tally, UploadId, name};
use crate::pipe::Passage;

impl World<'_> {
    pub(super) fn upload(&mut self, node: NodeId, to: NodeId, item: Item) {
        let blob = &self.blobs[usize::from(item.0)];
        let piece = blob.geometry.piece(item.1).expect("an engine sends pieces that it has");
        if !self.nodes[node as usize].links.contains_key(&to) {
            let event = Event::Uploaded { peer: name(to), digest: blob.digest, piece: item.1 };
            self.tell(node, event);
            return;
        }
        self.nodes[node as usize].uploads.add(to, item, u64::from(piece.length));
        self.send_frame(node);
    }

    /// Lets the next frame enter the pipe, unless one is entering it.
    pub(super) fn send_frame(&mut self, node: NodeId) {
        let now = self.agenda.now();
        let sender = &mut self.nodes[node as usize];
        if sender.uploads.is_busy || !sender.is_on {
            return;
        }
        let Some(frame) = sender.uploads.next_frame() else { return };
        sender.uploads.is_busy = true;
        sender.tally.sent += frame.bytes;
        let sent = sender.up.pass(Passage::at(now), frame.bytes);
        self.agenda.at(sent.last, Tick::Free { node });
        let there = self.cross(node, frame.to, sent, frame.bytes);
        if frame.is_last {
            self.agenda.at(there, Tick::Arrived { from: node, to: frame.to, upload: frame.upload });
        }
        let known = there + self.latency(node, frame.to);
        let (upload, bytes, is_last) = (frame.upload, frame.bytes, frame.is_last);
        self.agenda.at(known, Tick::Acknowledged { from: node, upload, bytes, is_last });
    }

    /// When the last byte of a frame is there.
    fn cross(&mut self, from: NodeId, to: NodeId, sent: Passage, bytes: u64) -> Time {
        let latency = self.latency(from, to);
        let (here, there) = (self.nodes[from as usize].zone, self.nodes[to as usize].zone);
        let mut passage = sent;
        if here != there {
            passage = self.trunks[here as usize].0.pass(passage, bytes);
            passage = self.trunks[there as usize].1.pass(passage, bytes);
            self.far[there as usize] += bytes;
        }
        let from_origin = self.nodes[from as usize].role == Role::Origin;
        let receiver = &mut self.nodes[to as usize];
        receiver.tally.received += bytes;
        if from_origin {
            receiver.tally.from_origins += bytes;
        }
        receiver.down.pass(passage.later(latency), bytes).last
    }

    pub(super) fn acknowledged(&mut self, from: NodeId, upload: UploadId, bytes: u64, is_last: bool) {
        let Some(known) = self.nodes[from as usize].uploads.arrived(upload, bytes) else { return };
        if is_last {
            let (to, (blob, piece)) = (known.to, known.item);
            self.nodes[from as usize].uploads.end(upload);
            let digest = self.blobs[usize::from(blob)].digest;
            self.tell(from, Event::Uploaded { peer: name(to), digest, piece });
        }
        self.send_frame(from);
    }

    /// Ends an upload before its time; what of it was sent is booked at its receiver.
    pub(super) fn end_upload(&mut self, node: NodeId, upload: UploadId, book: fn(&mut Tally, u64)) {
        let Some(ended) = self.nodes[node as usize].uploads.end(upload) else { return };
        book(&mut self.nodes[ended.to as usize].tally, ended.sent);
        let (blob, piece) = ended.item;
        let digest = self.blobs[usize::from(blob)].digest;
        self.tell(node, Event::Uploaded { peer: name(ended.to), digest, piece });
        self.send_frame(node);
    }

    /// All of a piece is at its receiver.
    pub(super) fn arrived(&mut self, from: NodeId, to: NodeId, upload: UploadId) {
        let Some(upload) = self.nodes[from as usize].uploads.get(upload) else { return };
        let (item, bytes) = (upload.item, upload.sent);
        let is_corrupt = self.nodes[from as usize].is_corrupt;
        let now = self.agenda.now();
        let receiver = &mut self.nodes[to as usize];
        if !receiver.is_on {
            return;
        }
        if !receiver.expected.remove(&(from, item)) {
            receiver.tally.duplicate += bytes;
            return;
        }
        let done = receiver.store.pass(Passage::at(now), bytes).last;
        let life = receiver.life;
        self.agenda.at(done, Tick::Stored { node: to, from, item, is_corrupt, life });
    }

    pub(super) fn stored(&mut self, node: NodeId, from: NodeId, item: Item, is_corrupt: bool, life: u32) {
        if !self.is_alive(node, life) {
            return;
        }
        let (blob, piece) = item;
        let digest = self.blobs[usize::from(blob)].digest;
        let bytes =
            self.blobs[usize::from(blob)].geometry.piece(piece).map_or(0, |piece| u64::from(piece.length));
        let outcome = if is_corrupt { PieceOutcome::Corrupt } else { PieceOutcome::Good };
        let news = !is_corrupt && self.nodes[node as usize].disk[usize::from(blob)].insert(piece);
        let tally = &mut self.nodes[node as usize].tally;
        match () {
            () if is_corrupt => tally.wasted += bytes,
            () if news => tally.useful += bytes,
            () => tally.duplicate += bytes,
        }
        if news {
            self.gained(node, item, bytes);
        }
        // Refused if it was asked for so long ago that it is forgotten.
        self.tell(node, Event::Received { peer: name(from), digest, piece, outcome });
        if news && self.scenario.readers {
            self.read_on(node, item);
        }
    }

    /// Books a piece that is new on a disk.
    fn gained(&mut self, node: NodeId, (blob, _): Item, bytes: u64) {
        let now = self.agenda.now();
        self.pieces += 1;
        let late = self.scenario.late_joiner.is_some() && node == self.scenario.hosts;
        let it = &mut self.nodes[node as usize];
        if late {
            let tenth = usize::try_from((now - it.tally.started.unwrap_or(now)) / 100_000_000).unwrap_or(0);
            it.tally.tenths.resize(it.tally.tenths.len().max(tenth + 1), 0);
            it.tally.tenths[tenth] += bytes;
        }
        if it.disk[usize::from(blob)].is_full() {
            it.tally.completed[usize::from(blob)] = Some(now);
            if it.tally.completed.iter().all(Option::is_some) {
                self.missing -= 1;
            }
        }
    }

    /// The reader takes what is here from where it stands.
    fn read_on(&mut self, node: NodeId, (blob, piece): Item) {
        let at = usize::from(blob);
        let it = &mut self.nodes[node as usize];
        if it.frontier[at] != piece.0 {
            return;
        }
        it.frontier[at] = frontier(&it.disk[at], piece.0);
        self.demand(node, blob);
    }

    pub(super) fn demand(&mut self, node: NodeId, blob: u8) {
        let at = usize::from(blob);
        let it = &self.nodes[node as usize];
        let pieces = it.frontier[at]..it.disk[at].len();
        let digest = self.blobs[at].digest;
        self.tell(node, Event::Demand { digest, pieces: vec![pieces] });
    }
}
