//! What the engine knows, for people: nothing here changes anything.

use shoal_core::{Digest, PeerId, Role};

use crate::engine::Engine;

/// A connected peer, as the engine sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStanding {
    /// Pieces that it is asked for now.
    pub requests: usize,
    /// Swarms that both are in.
    pub blobs: usize,
}

/// A peer in one swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Who it is.
    pub peer: PeerId,
    /// What it is.
    pub role: Role,
    /// How many pieces it has; `None` until it says so.
    pub have: Option<u32>,
}

impl Engine {
    /// How a peer stands; `None` where it is not connected.
    #[must_use]
    pub fn peer(&self, peer: &PeerId) -> Option<PeerStanding> {
        self.peer_of(peer).map(|peer| PeerStanding { requests: peer.asked.len(), blobs: peer.swarms.len() })
    }

    /// The peers in the swarm of a blob, by name; none where there is no swarm.
    pub fn members(&self, digest: &Digest) -> impl Iterator<Item = MemberView> {
        let members = self.swarm(digest).into_iter().flat_map(|swarm| &swarm.members);
        members.map(|(&peer, member)| MemberView {
            peer,
            role: member.role,
            have: member.have.as_ref().map(shoal_core::Bitfield::count),
        })
    }
}
