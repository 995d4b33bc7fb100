//! Giving pieces to those who ask.

use shoal_core::{Digest, PeerId, PieceIndex};

use super::Engine;
use crate::event::{Action, EventError, Message};
use crate::uploads::{Admission, Upload};

impl Engine {
    /// A peer asks for a piece; it need not have joined. A piece that does not exist is a violation; one that is not
    /// here, or that does not fit in the peer's queue, is rejected; a blob that is not open is loaded meanwhile.
    pub(super) fn requested(&mut self, id: PeerId, digest: Digest, piece: PieceIndex) {
        if self.is_out_of_range(&digest, piece) {
            return self.violated(&id);
        }
        let Some(swarm) = self.swarms.get_mut(&digest) else {
            self.send(id, Message::Reject { digest, piece });
            return self.load(id, digest, None);
        };
        swarm.asked_at = self.now;
        let held = swarm.have.contains(piece);
        let upload = Upload { peer: id, digest, piece };
        if held && self.uploads.request(upload, &self.config) == Admission::Queued {
            self.start_uploads();
        } else {
            self.send(id, Message::Reject { digest, piece });
        }
    }

    /// A peer needs a piece no more; one that is being sent goes on. A piece that does not exist is a violation.
    pub(super) fn cancelled(&mut self, id: &PeerId, digest: &Digest, piece: PieceIndex) {
        if self.is_out_of_range(digest, piece) {
            return self.violated(id);
        }
        self.uploads.cancel(id, |other, queued| other == digest && queued == piece);
    }

    /// An error if that upload was not started. The peer may be gone by now.
    pub(super) fn uploaded(
        &mut self,
        peer: PeerId,
        digest: Digest,
        piece: PieceIndex,
    ) -> Result<(), EventError> {
        if !self.uploads.ended(&Upload { peer, digest, piece }, &self.config) {
            return Err(EventError("an upload ended that was not started"));
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.active_at = self.now;
        }
        if let Some(swarm) = self.swarms.get_mut(&digest) {
            swarm.asked_at = self.now;
        }
        self.start_uploads();
        Ok(())
    }

    fn start_uploads(&mut self) {
        while let Some(Upload { peer, digest, piece }) = self.uploads.start(&self.config) {
            self.act(Action::Upload { peer, digest, piece });
        }
    }
}
