//! When the origin dies: after so many steps of its clients, of any kind or of one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Sends bytes, asks, mounts.
    Sending,
    /// Ends an upload, which makes it a blob.
    Ending,
    /// Puts a manifest, perhaps under a tag.
    Tagging,
    /// Deletes a tag, a manifest or a blob.
    Deleting,
}

/// How long steps take of late, by kind, on this machine as it is now.
#[derive(Clone, Default)]
pub(crate) struct Durations(Arc<Mutex<HashMap<Step, Duration>>>);

impl Durations {
    fn note(&self, step: Step, took: Duration) {
        let mut durations = self.0.lock().unwrap();
        let known = durations.entry(step).or_insert(took);
        *known = (*known * 3 + took) / 4;
    }

    /// How long such a step takes; the longest of all, where none is chosen.
    pub(crate) fn typical(&self, step: Option<Step>) -> Duration {
        let durations = self.0.lock().unwrap();
        let typical = match step {
            Some(step) => durations.get(&step).copied(),
            None => durations.values().max().copied(),
        };
        typical.unwrap_or(Duration::from_millis(10))
    }
}

/// Burns down with every step that counts.
#[derive(Clone)]
pub(crate) struct Fuse(Arc<State>);

struct State {
    /// The steps that count; `None`: all of them.
    counted: Option<Step>,
    left: AtomicI64,
    burnt: Notify,
    durations: Durations,
}

impl Fuse {
    pub(crate) fn new(counted: Option<Step>, steps: i64, durations: Durations) -> Self {
        Self(Arc::new(State { counted, left: AtomicI64::new(steps), burnt: Notify::new(), durations }))
    }

    /// A step was made, and took so long.
    pub(crate) fn took(&self, step: Step, took: Duration) {
        self.0.durations.note(step, took);
    }

    /// What the origin is to die in, if that is chosen.
    pub(crate) fn counted(&self) -> Option<Step> {
        self.0.counted
    }

    /// A client makes a step.
    pub(crate) fn step(&self, step: Step) {
        let counts = self.0.counted.is_none_or(|counted| counted == step);
        if counts && self.0.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.burnt.notify_one();
        }
    }

    /// Resolves when the last step was made.
    pub(crate) async fn burnt(&self) {
        self.0.burnt.notified().await;
    }
}
