//! Who is connected, and whom to turn to when nobody is. Pure and bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use lru::LruCache;
use shoal_core::{PeerId, Role};

/// The nodes that are known.
#[derive(Debug)]
pub(crate) struct Book {
    connected: HashMap<PeerId, Connected>,
    /// Where nodes said that they are: those who said so last are remembered.
    reserve: LruCache<PeerId, Vec<SocketAddr>>,
}

/// One that is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) role: Role,
    /// Where its connection goes to.
    pub(crate) address: SocketAddr,
}

/// How many nodes are remembered beyond those that are connected: if all of those go at once, some of these are still there.
const MAX_RESERVE: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

impl Default for Book {
    fn default() -> Self {
        Self { connected: HashMap::new(), reserve: LruCache::new(MAX_RESERVE) }
    }
}

impl Book {
    /// The transport's limits bound how many there are.
    pub(crate) fn joined(&mut self, peer: PeerId, connected: Connected) {
        self.connected.insert(peer, connected);
    }

    /// Its last connection is gone.
    pub(crate) fn left(&mut self, peer: &PeerId) {
        self.connected.remove(peer);
    }

    pub(crate) fn connected(&self, peer: &PeerId) -> Option<Connected> {
        self.connected.get(peer).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.connected.len()
    }

    /// Whether somebody is connected at that address.
    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        self.connected.values().any(|connected| connected.address == address)
    }

    /// Some of the origins that are connected.
    pub(crate) fn origins(&self, limit: usize) -> Vec<PeerId> {
        let origins = self.connected.iter().filter(|(_, connected)| connected.role == Role::Origin);
        origins.map(|(peer, _)| *peer).take(limit).collect()
    }

    /// A node said where it is.
    pub(crate) fn remember(&mut self, peer: PeerId, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() {
            self.reserve.put(peer, addresses);
        }
    }

    /// Addresses of nodes that said so, the latest first.
    pub(crate) fn reserve(&self, limit: usize) -> Vec<SocketAddr> {
        self.reserve.iter().filter_map(|(_, addresses)| addresses.first().copied()).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        PeerId::from_public_key(key)
    }

    #[test]
    fn nodes_without_end_that_say_where_they_are_are_not_all_remembered() {
        let mut book = Book::default();
        for number in 0..10_000u32 {
            book.remember(peer(number), vec![([10, 0, 0, 1], 1).into()]);
        }
        assert_eq!(book.reserve(usize::MAX).len(), MAX_RESERVE.get());
        assert_eq!(book.reserve(3).len(), 3);
    }

    #[test]
    fn origins_that_are_connected_are_known_as_such() {
        let mut book = Book::default();
        for (number, role) in [(1, Role::Agent), (2, Role::Origin), (3, Role::Origin)] {
            book.joined(peer(number), Connected { role, address: ([10, 0, 0, 1], number as u16).into() });
        }
        assert_eq!(book.origins(9).len(), 2);
        assert_eq!(book.origins(1).len(), 1);
        assert!(book.is_at(([10, 0, 0, 1], 2).into()));
        book.left(&peer(2));
        assert!(!book.is_at(([10, 0, 0, 1], 2).into()));
        assert_eq!(book.origins(9), [peer(3)]);
    }
}
