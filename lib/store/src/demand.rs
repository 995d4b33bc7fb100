//! Where the open readers of a partial stand: what the exchange engine should fetch first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::directory::locked;

/// The positions of all open readers of one partial. As many as there are readers, whose number the servers limit.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    state: Mutex<State>,
    /// Keeps one permit while nobody waits, so a change between two calls is not lost.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next_reader: u64,
    positions: BTreeMap<u64, Range<u32>>,
}

/// One reader's place in the demand; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Position {
    demand: Arc<Demand>,
    reader: u64,
    pieces: Range<u32>,
}

impl Demand {
    pub(crate) fn pieces(&self) -> Vec<Range<u32>> {
        locked(&self.state).positions.values().filter(|pieces| !pieces.is_empty()).cloned().collect()
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn enter(self: &Arc<Self>, pieces: Range<u32>) -> Position {
        let mut state = locked(&self.state);
        let reader = state.next_reader;
        state.next_reader += 1;
        state.positions.insert(reader, pieces.clone());
        drop(state);
        self.changed.notify_one();
        Position { demand: self.clone(), reader, pieces }
    }
}

impl Position {
    pub(crate) fn move_to(&mut self, pieces: Range<u32>) {
        if pieces != self.pieces {
            self.pieces = pieces.clone();
            locked(&self.demand.state).positions.insert(self.reader, pieces);
            self.demand.changed.notify_one();
        }
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        locked(&self.demand.state).positions.remove(&self.reader);
        self.demand.changed.notify_one();
    }
}
