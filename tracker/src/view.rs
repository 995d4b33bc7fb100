//! What a tracker knows, for whoever shows it: each look locks the state for a copy of at most one page.

use std::sync::{Arc, Mutex};

use shoal_core::Digest;
use tokio::time::Instant;

use crate::api::lock;
use crate::state::{Counts, HolderView, NodeView, State};
use crate::waits::Waits;

/// A look at a tracker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    state: Arc<Mutex<State>>,
    waits: Arc<Waits>,
}

impl View {
    pub(crate) fn new(state: Arc<Mutex<State>>, waits: Arc<Waits>) -> Self {
        Self { state, waits }
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts()
    }

    /// Finds that wait for somebody new.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.count()
    }

    /// [`State::nodes`] now.
    #[must_use]
    pub fn nodes(&self, after: u64, limit: usize) -> (Vec<NodeView>, Option<u64>) {
        lock(&self.state).nodes(Instant::now().into_std(), after, limit)
    }

    /// [`State::holders`] now.
    #[must_use]
    pub fn holders(&self, digest: &Digest, limit: usize) -> (Vec<HolderView>, usize) {
        lock(&self.state).holders(Instant::now().into_std(), digest, limit)
    }

    /// Nobody waits any more.
    pub(crate) fn close(&self) {
        self.waits.close();
    }
}
