//! Giving pieces to those who ask.

use shoal_core::{Digest, PeerId, PieceIndex};

use super::Engine;
use crate::event::{Action, EventError, Message, Priority};
use crate::timers::Timer;
use crate::uploads::{Admission, Upload};

impl Engine {
    /// A peer asks for a piece; it need not have joined. A piece that does not exist is a violation; one that is not
    /// here is rejected, as is the one that would be sent last when too many wait; a blob that is not open is loaded
    /// meanwhile.
    pub(super) fn requested(&mut self, id: PeerId, digest: Digest, piece: PieceIndex, priority: Priority) {
        if self.is_out_of_range(&digest, piece) {
            return self.violated(&id);
        }
        let Some(swarm) = self.swarms.get_mut(&digest) else {
            self.send(id, Message::Reject { digest, piece });
            return self.load(id, digest, None);
        };
        swarm.asked_at = self.now;
        let asked = swarm.waiting(self.now, digest, piece, priority);
        let admission = match asked {
            Some(asked) => self.uploads.request(self.now, id, asked, &self.config),
            None => Admission::Refused,
        };
        match admission {
            Admission::Queued => {}
            Admission::Displaced(Upload { peer, digest, piece }) => {
                self.send(peer, Message::Reject { digest, piece });
            }
            Admission::Refused => self.send(id, Message::Reject { digest, piece }),
        }
        self.start_uploads();
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
        if !self.uploads.ended(self.now, &Upload { peer, digest, piece }) {
            return Err(EventError("an upload ended that was not started"));
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.active_at = self.now;
        }
        if let Some(swarm) = self.swarms.get_mut(&digest) {
            swarm.asked_at = self.now;
            if let Some(sends) = swarm.sent_whole(self.now, piece, &self.config) {
                self.uploads.sent(&digest, piece, sends);
            }
        }
        self.start_uploads();
        Ok(())
    }

    pub(super) fn start_uploads(&mut self) {
        while let Some((upload, priority)) = self.uploads.start(self.now, &self.config) {
            let Upload { peer, digest, piece } = upload;
            if let Some(swarm) = self.swarms.get_mut(&digest) {
                let sends = swarm.sent(self.now, piece, self.uploads.usual(), &self.config);
                self.uploads.sent(&digest, piece, sends);
            }
            self.act(Action::Upload { peer, digest, piece, priority });
        }
        if let Some(at) = self.uploads.next_release(self.now, &self.config) {
            self.timers.ring_by(self.now, Timer::Uploads, at);
        }
    }
}
