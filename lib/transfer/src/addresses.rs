//! Where peers can be reached, as trackers and origins said, and what was learned of the way there. Bounded: the least
//! recently named are forgotten.

use std::num::NonZeroUsize;

use lru::LruCache;
use shoal_core::{PeerAddress, PeerId, Role};
use shoal_swarm::Candidate;

use crate::path::Path;

/// Addresses by peer.
#[derive(Debug)]
pub(crate) struct AddressBook {
    own: PeerId,
    known: LruCache<PeerId, Known>,
}

/// How to dial a peer.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) address: PeerAddress,
    pub(crate) path: Option<Path>,
}

impl AddressBook {
    /// An empty book of the node `own`, which never finds itself in it.
    pub(crate) fn new(own: PeerId, capacity: NonZeroUsize) -> Self {
        Self { own, known: LruCache::new(capacity) }
    }

    /// Remembers where these peers are, and names those that can exchange pieces to the engine.
    pub(crate) fn learn(&mut self, peers: Vec<PeerAddress>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for mut peer in peers.into_iter().take(MAX_PEERS_AT_ONCE) {
            if peer.id == self.own || peer.role == Role::Tracker {
                continue;
            }
            peer.addresses.truncate(MAX_ADDRESSES);
            candidates.push(Candidate { peer: peer.id, role: peer.role, zone: peer.zone.clone() });
            let path = self.known.peek(&peer.id).and_then(|known| known.path);
            self.known.put(peer.id, Known { address: peer, path });
        }
        candidates
    }

    /// How to dial that peer.
    pub(crate) fn find(&mut self, peer: &PeerId) -> Option<Known> {
        self.known.get(peer).cloned()
    }

    /// Remembers how that peer was reached.
    pub(crate) fn reached(&mut self, peer: &PeerId, path: Path) {
        if let Some(known) = self.known.peek_mut(peer) {
            known.path = Some(path);
        }
    }
}

/// Peers taken of one answer; far more than a fetch connects to.
const MAX_PEERS_AT_ONCE: usize = 512;

/// Addresses of one peer that are tried; a host with more has most of them for other purposes.
const MAX_ADDRESSES: usize = 4;

#[cfg(test)]
mod tests {
    use shoal_core::Zone;

    use super::*;
    use crate::link::Transport;

    fn peer(number: u8, role: Role, addresses: u16) -> PeerAddress {
        PeerAddress {
            id: PeerId::from_public_key([number; 32]),
            role,
            addresses: (0..addresses).map(|port| ([127, 0, 0, 1], port).into()).collect(),
            zone: Zone::default(),
        }
    }

    fn book(capacity: usize) -> AddressBook {
        AddressBook::new(PeerId::from_public_key([0; 32]), NonZeroUsize::new(capacity).unwrap())
    }

    #[test]
    fn itself_and_trackers_are_no_candidates() {
        let candidates =
            book(9).learn(vec![peer(0, Role::Agent, 1), peer(1, Role::Tracker, 1), peer(2, Role::Origin, 1)]);
        let peers: Vec<PeerId> = candidates.into_iter().map(|candidate| candidate.peer).collect();
        assert_eq!(peers, [PeerId::from_public_key([2; 32])]);
    }

    #[test]
    fn the_book_forgets_the_oldest_and_bounds_addresses() {
        let mut book = book(2);
        book.learn((1..=3).map(|number| peer(number, Role::Agent, 40)).collect());
        assert!(book.find(&PeerId::from_public_key([1; 32])).is_none());
        let last = book.find(&PeerId::from_public_key([3; 32])).unwrap();
        assert_eq!(last.address.addresses.len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_peer_that_is_named_again_keeps_what_was_learned_of_the_way_to_it() {
        let mut book = book(2);
        let path = Path { transport: Transport::Quic, is_fallback: true, round_trip: None };
        let named = peer(1, Role::Agent, 1);
        book.reached(&named.id, path);
        book.learn(vec![named.clone()]);
        assert_eq!(book.find(&named.id).unwrap().path, None);
        book.reached(&named.id, path);
        book.learn(vec![named.clone()]);
        assert_eq!(book.find(&named.id).unwrap().path, Some(path));
    }
}
