//! The instant at which the registry dies, counted in what its clients do and not in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

/// Burns one step for every request and every part of a body. Clones are one fuse.
#[derive(Clone)]
pub(crate) struct Fuse {
    left: Arc<AtomicI64>,
    burnt: Arc<Notify>,
}

impl Fuse {
    pub(crate) fn new(steps: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(steps)), burnt: Arc::default() }
    }

    pub(crate) fn step(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.burnt.notify_one();
        }
    }

    pub(crate) async fn burnt(&self) {
        self.burnt.notified().await;
    }
}
