//! A host or an origin: its engine, its pipes, what is on its disk, and what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shoal_core::{Bitfield, PeerId, PieceIndex, Role};
use shoal_swarm::Engine;

use crate::agenda::Time;
use crate::pipe::Pipe;

/// The number of a node.
pub(crate) type NodeId = u32;
/// The number of a blob.
pub(crate) type BlobId = u8;
/// A piece of a blob.
pub(crate) type Item = (BlobId, PieceIndex);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) role: Role,
    pub(crate) zone: u32,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// Checks and writes pieces.
    pub(crate) store: Pipe,
    pub(crate) uploads: Uploads,
    /// Connections, each by its number, so that what belongs to an old one is not taken for the new one.
    pub(crate) links: BTreeMap<NodeId, u32>,
    /// What was asked for and not taken back: all else that arrives is thrown away.
    pub(crate) expected: BTreeSet<(NodeId, Item)>,
    pub(crate) disk: Vec<Bitfield>,
    /// Up to where each blob is here from its beginning on: where a reader stands.
    pub(crate) frontier: Vec<u32>,
    pub(crate) is_corrupt: bool,
    /// Chosen for a fault: its own times do not count.
    pub(crate) is_unsound: bool,
    pub(crate) is_on: bool,
    /// Grows with each restart.
    pub(crate) life: u32,
    /// When the engine is to be woken next.
    pub(crate) wake: Option<Time>,
    pub(crate) tally: Tally,
}

/// What a node did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) started: Option<Time>,
    pub(crate) completed: Vec<Option<Time>>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Bytes that were received and are on disk.
    pub(crate) useful: u64,
    pub(crate) duplicate: u64,
    /// Corrupt, or cut by the loss of a connection.
    pub(crate) wasted: u64,
    pub(crate) from_origins: u64,
    pub(crate) events: u64,
    pub(crate) refused: u64,
    pub(crate) gave_up: u32,
    pub(crate) banned: u32,
    /// Bytes that came in each tenth of a second since the start; kept for a late joiner only.
    pub(crate) tenths: Vec<u64>,
}

/// Pieces that a node sends, which share its pipe frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    slots: Vec<Option<Upload>>,
    free: Vec<u32>,
    /// Those that may send a frame, in the order of their turns.
    turns: VecDeque<u32>,
    /// Whether a frame is entering the pipe.
    pub(crate) is_busy: bool,
    last_serial: u32,
}

/// A piece on its way to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) to: NodeId,
    pub(crate) item: Item,
    /// Tells it from an earlier one in the same slot.
    pub(crate) serial: u32,
    /// Bytes that have not entered the pipe.
    pub(crate) left: u64,
    /// Bytes that have, and of which the sender does not know that they arrived.
    pub(crate) under_way: u64,
    /// Bytes that have entered the pipe.
    pub(crate) sent: u64,
    pub(crate) frame: u64,
    has_turn: bool,
}

/// Names an upload of a node; none does any more once it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UploadId {
    slot: u32,
    serial: u32,
}

/// A frame that enters the pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) upload: UploadId,
    pub(crate) to: NodeId,
    pub(crate) bytes: u64,
    pub(crate) is_last: bool,
}

impl Uploads {
    /// How many bytes of one upload may be under way: what a socket's buffers hold.
    const WINDOW: u64 = 1 << 20;
    /// Frames are at least that long; a piece has at most [`Self::FRAMES`] of them.
    const FRAME: u64 = 512 << 10;
    const FRAMES: u64 = 4;

    pub(crate) fn add(&mut self, to: NodeId, item: Item, bytes: u64) {
        self.last_serial += 1;
        let upload = Upload {
            to,
            item,
            serial: self.last_serial,
            left: bytes,
            under_way: 0,
            sent: 0,
            frame: bytes.div_ceil(Self::FRAMES).max(Self::FRAME),
            has_turn: true,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("an engine starts some dozen uploads")
        });
        self.slots[slot as usize] = Some(upload);
        self.turns.push_back(slot);
    }

    /// The next frame to enter the pipe, if any may.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let slot = self.turns.pop_front()?;
        let upload = self.slots[slot as usize].as_mut()?;
        let bytes = upload.frame.min(upload.left);
        upload.left -= bytes;
        upload.sent += bytes;
        upload.under_way += bytes;
        let frame = Frame {
            upload: UploadId { slot, serial: upload.serial },
            to: upload.to,
            bytes,
            is_last: upload.left == 0,
        };
        upload.has_turn = upload.may_send();
        if upload.has_turn {
            self.turns.push_back(slot);
        }
        Some(frame)
    }

    /// Bytes of an upload have arrived, and the sender knows. `None` if that upload has ended.
    pub(crate) fn arrived(&mut self, id: UploadId, bytes: u64) -> Option<&Upload> {
        let upload =
            self.slots.get_mut(id.slot as usize)?.as_mut().filter(|upload| upload.serial == id.serial)?;
        upload.under_way -= bytes;
        if !upload.has_turn && upload.may_send() {
            upload.has_turn = true;
            self.turns.push_back(id.slot);
        }
        Some(upload)
    }

    pub(crate) fn get(&self, id: UploadId) -> Option<&Upload> {
        self.slots.get(id.slot as usize)?.as_ref().filter(|upload| upload.serial == id.serial)
    }

    /// Ends an upload, whatever of it has been sent.
    pub(crate) fn end(&mut self, id: UploadId) -> Option<Upload> {
        self.get(id)?;
        let upload = self.slots[id.slot as usize].take()?;
        if upload.has_turn {
            self.turns.retain(|&slot| slot != id.slot);
        }
        self.free.push(id.slot);
        Some(upload)
    }

    /// The uploads that suit.
    pub(crate) fn find(&self, suits: impl Fn(&Upload) -> bool) -> Vec<UploadId> {
        let all = self.slots.iter().enumerate();
        all.filter_map(|(slot, upload)| {
            let upload = upload.as_ref().filter(|upload| suits(upload))?;
            Some(UploadId { slot: u32::try_from(slot).ok()?, serial: upload.serial })
        })
        .collect()
    }
}

impl Upload {
    fn may_send(&self) -> bool {
        self.left > 0 && self.under_way < Uploads::WINDOW.max(self.frame)
    }
}

/// The name of a node. Names are spread over their order, so that age and rank are independent.
pub(crate) fn name(node: NodeId) -> PeerId {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(u64::from(node) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..12].copy_from_slice(&node.to_be_bytes());
    PeerId::from_public_key(key)
}

/// The node of a name.
pub(crate) fn number(name: &PeerId) -> NodeId {
    let key = name.public_key();
    u32::from_be_bytes([key[8], key[9], key[10], key[11]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_take_turns_within_their_windows() {
        let mut uploads = Uploads::default();
        uploads.add(1, (0, PieceIndex(0)), 8 << 20);
        uploads.add(2, (0, PieceIndex(0)), 1 << 20);
        let mut frames = Vec::new();
        while let Some(frame) = uploads.next_frame() {
            frames.push(frame);
        }
        let order: Vec<_> = frames.iter().map(|frame| (frame.to, frame.bytes >> 10, frame.is_last)).collect();
        assert_eq!(order, [(1, 2048, false), (2, 512, false), (2, 512, true)]);
        assert!(uploads.arrived(frames[0].upload, frames[0].bytes).is_some());
        assert_eq!(uploads.next_frame().map(|frame| frame.to), Some(1), "its window has room again");
        assert_eq!(uploads.end(frames[0].upload).map(|upload| upload.sent), Some(4 << 20));
        assert!(uploads.get(frames[0].upload).is_none() && uploads.next_frame().is_none());
    }

    #[test]
    fn a_name_leads_back_to_its_node() {
        assert!((0..1000).all(|node| number(&name(node)) == node));
    }
}
