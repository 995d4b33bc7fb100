//! What was asked of us: a bounded queue a peer, served round robin, within the upload slots of the node.
//!
//! Invariant: a peer is in `turns` exactly once if something of it waits and it has a slot left, else not at all.
//! Which pieces exist and who may have them is not decided here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shoal_core::{Digest, PeerId, PieceIndex};

use crate::config::Config;

/// One piece for one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Upload {
    pub(crate) peer: PeerId,
    pub(crate) digest: Digest,
    pub(crate) piece: PieceIndex,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It waits, or waited already.
    Queued,
    /// The peer asks for more than fits in its queue.
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Uploads {
    waiting: BTreeMap<PeerId, VecDeque<(Digest, PieceIndex)>>,
    turns: VecDeque<PeerId>,
    /// Those that were started and not reported as ended; they outlive the connection.
    active: BTreeSet<Upload>,
    active_per_peer: BTreeMap<PeerId, usize>,
}

impl Uploads {
    pub(crate) fn request(&mut self, upload: Upload, config: &Config) -> Admission {
        if self.active.contains(&upload) {
            return Admission::Queued;
        }
        let queue = self.waiting.entry(upload.peer).or_default();
        if queue.contains(&(upload.digest, upload.piece)) {
            return Admission::Queued;
        }
        if queue.len() >= config.upload_queue_per_peer.max(1) {
            return Admission::Refused;
        }
        queue.push_back((upload.digest, upload.piece));
        if queue.len() == 1 {
            self.take_place(upload.peer, config);
        }
        Admission::Queued
    }

    /// The next upload to start, while there is a slot.
    pub(crate) fn start(&mut self, config: &Config) -> Option<Upload> {
        if self.active.len() >= config.max_uploads.max(1) {
            return None;
        }
        let peer = self.turns.pop_front()?;
        let (digest, piece) = self.waiting.get_mut(&peer)?.pop_front()?;
        let upload = Upload { peer, digest, piece };
        self.active.insert(upload);
        *self.active_per_peer.entry(peer).or_default() += 1;
        self.take_place(peer, config);
        Some(upload)
    }

    /// That upload has ended. Says whether it had been started.
    pub(crate) fn ended(&mut self, upload: &Upload, config: &Config) -> bool {
        if !self.active.remove(upload) {
            return false;
        }
        let before = self.active_per_peer.remove(&upload.peer).unwrap_or(1);
        if before > 1 {
            self.active_per_peer.insert(upload.peer, before - 1);
        }
        if before >= config.max_uploads_per_peer.max(1) {
            self.take_place(upload.peer, config);
        }
        true
    }

    pub(crate) fn cancel(&mut self, peer: &PeerId, suits: impl Fn(&Digest, PieceIndex) -> bool) {
        let Some(queue) = self.waiting.get_mut(peer) else { return };
        queue.retain(|(digest, piece)| !suits(digest, *piece));
        if queue.is_empty() {
            self.forget(peer);
        }
    }

    /// Drops what waits for that peer; what was started goes on until it is reported as ended.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.waiting.remove(peer);
        self.turns.retain(|other| other != peer);
    }

    pub(crate) fn forget_blob(&mut self, digest: &Digest) {
        let peers: Vec<_> = self.waiting.keys().copied().collect();
        for peer in peers {
            self.cancel(&peer, |other, _| other == digest);
        }
    }

    pub(crate) fn concerns(&self, peer: &PeerId) -> bool {
        self.waiting.contains_key(peer) || self.active_per_peer.contains_key(peer)
    }

    fn take_place(&mut self, peer: PeerId, config: &Config) {
        let active = self.active_per_peer.get(&peer).copied().unwrap_or(0);
        match self.waiting.get(&peer) {
            Some(queue) if queue.is_empty() => drop(self.waiting.remove(&peer)),
            Some(_) if active < config.max_uploads_per_peer.max(1) => self.turns.push_back(peer),
            _ => {}
        }
    }

    /// Panics unless every peer that can be served has its one place in the turns.
    #[cfg(test)]
    pub(crate) fn audit(&self, config: &Config) {
        assert!(self.active.len() <= config.max_uploads);
        for (peer, queue) in &self.waiting {
            assert!(!queue.is_empty() && queue.len() <= config.upload_queue_per_peer);
            let active = self.active.iter().filter(|upload| upload.peer == *peer).count();
            assert_eq!(active, self.active_per_peer.get(peer).copied().unwrap_or(0));
            assert!(active <= config.max_uploads_per_peer);
            let places = self.turns.iter().filter(|other| *other == peer).count();
            assert_eq!(places, usize::from(active < config.max_uploads_per_peer));
        }
        assert!(self.turns.iter().all(|peer| self.waiting.contains_key(peer)));
    }
}
