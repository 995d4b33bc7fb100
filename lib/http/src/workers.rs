//! Threads that each answer their share of the connections, on a runtime of their own.
//!
//! On the runtime of the node, whichever thread waits for the sockets finds the requests and wakes another one for half of
//! them; a small request costs less than such a wake-up. Here a request is read, answered and written by one thread.
//! The price: a connection stays where it began, so one that is all work delays its neighbours; nothing that takes long
//! runs on these threads (files, hashes and passwords have others).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The threads. Cheap to clone; they end when the last clone is gone, and with them what still runs there.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtimes: Vec<Handle>,
    /// Connections that were handed out so far.
    turn: AtomicUsize,
    _end: DropGuard,
}

impl Workers {
    /// Starts a thread for each processor, at most eight.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        let end = CancellationToken::new();
        // From here on: those that were started end too if one cannot be.
        let guard = end.clone().drop_guard();
        let runtimes = (0..count).map(|_| start_one(end.clone())).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Inner { runtimes, turn: AtomicUsize::new(0), _end: guard })))
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.runtimes.len()
    }

    /// Whose turn it is.
    pub(crate) fn next(&self) -> &Handle {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        &self.0.runtimes[turn % self.0.runtimes.len()]
    }
}

fn start_one(end: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        runtime.block_on(end.cancelled());
        // A file that is being read must not hold up the end of the node.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

/// More threads would serve more than any network card takes.
const MAX_WORKERS: usize = 8;
