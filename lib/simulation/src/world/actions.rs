//! What engines say is to be done.

use shoal_swarm::{Action, Message};

use super::{Tick, World};
use crate::node::{NodeId, number};

/// How long a look-up on disk takes, in nanoseconds.
const LOAD: u64 = 200_000;
/// How long a node waits for more changes before it announces, in nanoseconds: as the announcer does.
const ANNOUNCE: u64 = 200_000_000;
/// How long a container runtime waits before it asks again for what was given up, in nanoseconds.
const PULL_AGAIN: u64 = 1_000_000_000;

impl World<'_> {
    pub(super) fn act(&mut self, node: NodeId, action: Action) {
        match action {
            Action::Connect { peer } => self.dial(node, number(&peer)),
            Action::Disconnect { peer, .. } => self.disconnect(node, number(&peer)),
            Action::Send { peer, message } => self.send(node, number(&peer), message),
            Action::Upload { peer, digest, piece, .. } => {
                let blob = self.blob(&digest);
                self.upload(node, number(&peer), (blob, piece));
            }
            Action::Load { digest } => {
                let tick =
                    Tick::Loaded { node, blob: self.blob(&digest), life: self.nodes[node as usize].life };
                self.agenda.after(LOAD, tick);
            }
            Action::FindPeers { digest } => {
                let blob = self.blob(&digest);
                self.ask_tracker(node, blob, false);
            }
            Action::Complete { digest } => {
                let tick = Tick::Announced { node, blob: self.blob(&digest) };
                self.agenda.after(ANNOUNCE, tick);
            }
            Action::GiveUp { digest } => {
                let it = &mut self.nodes[node as usize];
                it.tally.gave_up += 1;
                let life = it.life;
                let tick = Tick::Asked { node, blob: self.blob(&digest), is_first: true, life };
                self.agenda.after(PULL_AGAIN, tick);
            }
            Action::Banned { .. } => self.nodes[node as usize].tally.banned += 1,
            Action::Closed { .. } => {}
        }
    }

    fn send(&mut self, node: NodeId, to: NodeId, message: Message) {
        match &message {
            Message::Request { digest, piece, .. } => {
                let item = (self.blob(digest), *piece);
                self.nodes[node as usize].expected.insert((to, item));
            }
            Message::Cancel { digest, piece } => {
                let item = (self.blob(digest), *piece);
                self.nodes[node as usize].expected.remove(&(to, item));
            }
            _ => {}
        }
        self.post(node, to, message);
    }
}
