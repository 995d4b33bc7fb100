//! Which pieces one peer was asked for. Only these are taken from it; everything else that it sends is its fault.
//!
//! A cancelled piece may be on its way already, so it is tolerated once, unread.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shoal_core::{Digest, PieceIndex};
use shoal_store::Partial;
use shoal_swarm::Priority;
use tokio_util::sync::CancellationToken;

/// The requests of one connection, shared by the node (asks, cancels) and the connection (takes what arrives).
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<Table>);

/// A piece that was asked for and begins to arrive.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Where it goes.
    pub(crate) partial: Partial,
    /// How urgent it was.
    pub(crate) priority: Priority,
    /// Fires when nobody needs it any more.
    pub(crate) cancelled: CancellationToken,
}

/// What to do with a piece that begins to arrive.
#[derive(Debug)]
pub(crate) enum Arriving {
    /// Take it.
    Wanted(Wanted),
    /// It was cancelled while it was on its way: leave it.
    Cancelled,
    /// It was never asked for.
    Unsolicited,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<(Digest, PieceIndex), Request>,
    cancelled: VecDeque<(Digest, PieceIndex)>,
}

#[derive(Debug)]
enum Request {
    Asked(Priority, Partial),
    Arriving(CancellationToken),
}

impl Requests {
    /// The piece is asked for now, and goes into that partial.
    pub(crate) fn ask(&self, digest: Digest, piece: PieceIndex, priority: Priority, partial: Partial) {
        self.table().open.insert((digest, piece), Request::Asked(priority, partial));
    }

    /// Nobody needs the piece any more.
    pub(crate) fn cancel(&self, digest: Digest, piece: PieceIndex) {
        self.table().cancel((digest, piece));
    }

    /// The peer says that the piece will not come; if it does all the same, it was on its way already.
    pub(crate) fn rejected(&self, digest: Digest, piece: PieceIndex) {
        let mut table = self.table();
        if matches!(table.open.get(&(digest, piece)), Some(Request::Asked(..))) {
            table.cancel((digest, piece));
        }
    }

    /// Nobody needs any piece of that blob any more.
    pub(crate) fn cancel_blob(&self, digest: &Digest) {
        let mut table = self.table();
        let keys: Vec<_> = table.open.keys().filter(|(of, _)| of == digest).copied().collect();
        for key in keys {
            table.cancel(key);
        }
    }

    /// The piece begins to arrive.
    pub(crate) fn arriving(&self, digest: Digest, piece: PieceIndex) -> Arriving {
        self.table().arriving((digest, piece))
    }

    /// The piece is here, or will not come.
    pub(crate) fn end(&self, digest: Digest, piece: PieceIndex) {
        let mut table = self.table();
        if matches!(table.open.get(&(digest, piece)), Some(Request::Arriving(_))) {
            table.open.remove(&(digest, piece));
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn arriving(&mut self, key: (Digest, PieceIndex)) -> Arriving {
        if let Some(request @ Request::Asked(..)) = self.open.get_mut(&key) {
            let cancelled = CancellationToken::new();
            let asked = std::mem::replace(request, Request::Arriving(cancelled.clone()));
            if let Request::Asked(priority, partial) = asked {
                return Arriving::Wanted(Wanted { partial, priority, cancelled });
            }
        }
        match self.cancelled.iter().position(|cancelled| *cancelled == key) {
            Some(at) => {
                self.cancelled.remove(at);
                Arriving::Cancelled
            }
            None => Arriving::Unsolicited,
        }
    }

    fn cancel(&mut self, key: (Digest, PieceIndex)) {
        match self.open.remove(&key) {
            Some(Request::Arriving(cancelled)) => cancelled.cancel(),
            Some(Request::Asked(..)) => {
                if self.cancelled.len() == MAX_CANCELLED {
                    self.cancelled.pop_front();
                }
                self.cancelled.push_back(key);
            }
            None => {}
        }
    }
}

/// Cancelled requests of one connection that are remembered: far more than can be on their way at once.
const MAX_CANCELLED: usize = 1024;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_core::{Metainfo, Proof, SignedMetainfo};
    use shoal_store::{Config, Entry, Store};

    use super::*;

    const PIECE: PieceIndex = PieceIndex(0);

    /// The requests of a connection, and a partial of one byte.
    async fn requests() -> (Requests, Partial, Digest, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Config { directory: directory.path().to_owned() }).await.unwrap();
        let metainfo = Metainfo::of(b"1").unwrap();
        let digest = *metainfo.digest();
        let proof = Proof { certificate: Bytes::new(), signature: Bytes::new() };
        match store.create(&SignedMetainfo { metainfo, proof }).await.unwrap() {
            Entry::Partial(partial) => (Requests::default(), partial, digest, directory),
            Entry::Whole(_) => panic!("a new store is empty"),
        }
    }

    fn is_wanted(arriving: &Arriving) -> bool {
        matches!(arriving, Arriving::Wanted(_))
    }

    #[tokio::test]
    async fn what_was_asked_for_is_wanted_once() {
        let (requests, partial, digest, _directory) = requests().await;
        requests.ask(digest, PIECE, Priority::Reader, partial);
        assert!(is_wanted(&requests.arriving(digest, PIECE)));
        assert!(matches!(requests.arriving(digest, PIECE), Arriving::Unsolicited));
        requests.end(digest, PIECE);
        assert!(matches!(requests.arriving(digest, PIECE), Arriving::Unsolicited));
    }

    #[tokio::test]
    async fn a_cancelled_piece_is_tolerated_once() {
        let (requests, partial, digest, _directory) = requests().await;
        for cancel in [Requests::cancel, Requests::rejected, |requests: &Requests, digest, _| {
            requests.cancel_blob(&digest);
        }] {
            requests.ask(digest, PIECE, Priority::Reader, partial.clone());
            cancel(&requests, digest, PIECE);
            assert!(matches!(requests.arriving(digest, PIECE), Arriving::Cancelled));
            assert!(matches!(requests.arriving(digest, PIECE), Arriving::Unsolicited));
        }
    }

    #[tokio::test]
    async fn a_cancel_reaches_the_piece_that_is_arriving_and_a_reject_does_not() {
        let (requests, partial, digest, _directory) = requests().await;
        requests.ask(digest, PIECE, Priority::Reader, partial);
        let Arriving::Wanted(wanted) = requests.arriving(digest, PIECE) else { panic!("it was asked for") };
        requests.rejected(digest, PIECE);
        assert!(!wanted.cancelled.is_cancelled());
        requests.cancel(digest, PIECE);
        assert!(wanted.cancelled.is_cancelled());
    }

    #[tokio::test]
    async fn a_piece_asked_for_again_is_wanted_and_the_first_answer_is_tolerated_too() {
        let (requests, partial, digest, _directory) = requests().await;
        requests.ask(digest, PIECE, Priority::Reader, partial.clone());
        requests.cancel(digest, PIECE);
        requests.ask(digest, PIECE, Priority::Reader, partial);
        assert!(is_wanted(&requests.arriving(digest, PIECE)));
        assert!(matches!(requests.arriving(digest, PIECE), Arriving::Cancelled));
    }

    #[tokio::test]
    async fn what_is_remembered_of_cancelled_pieces_is_bounded() {
        let (requests, partial, digest, _directory) = requests().await;
        for piece in 0..=MAX_CANCELLED as u32 {
            requests.ask(digest, PieceIndex(piece), Priority::Reader, partial.clone());
            requests.cancel(digest, PieceIndex(piece));
        }
        assert_eq!(requests.table().cancelled.len(), MAX_CANCELLED);
        assert!(matches!(requests.arriving(digest, PIECE), Arriving::Unsolicited));
    }
}
