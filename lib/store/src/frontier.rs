//! The blob's own digest, computed once and in order while the pieces come in any order.
//!
//! The frontier is the first piece that was not hashed yet. Whoever wrote a piece pushes it as far as the pieces reach;
//! one thread at a time. A push that is missed costs only time: `finish` hashes whatever is left. After a restart it
//! starts from the first piece again.

use std::fs::File;
use std::io;
use std::sync::{Mutex, TryLockError};

use shoal_core::{Algorithm, Digest, Digester, Geometry, PieceIndex};

use crate::directory::locked;
use crate::disk;

/// See the module.
#[derive(Debug)]
pub(crate) struct Frontier {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    digester: Digester,
    next: PieceIndex,
}

impl Frontier {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self { state: Mutex::new(State { digester: Digester::new(algorithm), next: PieceIndex(0) }) }
    }

    /// Hashes on as long as `is_in` has the next piece. Returns at once if another thread is at it already.
    pub(crate) fn advance(
        &self,
        file: &File,
        geometry: &Geometry,
        is_in: impl Fn(PieceIndex) -> bool,
    ) -> io::Result<()> {
        loop {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Ok(()),
            };
            while is_in(state.next) {
                state.hash_next(file, geometry)?;
            }
            let next = state.next;
            drop(state);
            // Whoever marked this piece while the lock was held here left it to us.
            if !is_in(next) {
                return Ok(());
            }
        }
    }

    /// The digest of the whole blob; every piece must be in.
    pub(crate) fn finish(&self, file: &File, geometry: &Geometry) -> io::Result<Digest> {
        let mut state = locked(&self.state);
        while state.next.0 < geometry.piece_count() {
            state.hash_next(file, geometry)?;
        }
        Ok(state.digester.clone().finish())
    }
}

impl State {
    fn hash_next(&mut self, file: &File, geometry: &Geometry) -> io::Result<()> {
        let Some(piece) = geometry.piece(self.next) else { return Ok(()) };
        // All or nothing: an error half way must not leave half a piece in the digester.
        let mut digester = self.digester.clone();
        let mut range = piece.range();
        while !range.is_empty() {
            let length = (range.end - range.start).min(CHUNK);
            digester.update(&disk::read_at(
                file,
                range.start,
                usize::try_from(length).unwrap_or(usize::MAX),
            )?);
            range.start += length;
        }
        self.digester = digester;
        self.next.0 += 1;
        Ok(())
    }
}

/// The piece was written a moment ago, so this is a copy from the page cache: as much as stays in a CPU's cache.
const CHUNK: u64 = 256 << 10;
