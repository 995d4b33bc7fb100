//! The tasks of one server, and the two ways to end them: ask, then insist.

use std::time::Duration;

use hyper::rt::Executor;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All tasks of a server: its accept loop, its connections, the requests of HTTP/2. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    aborting: CancellationToken,
}

impl Tasks {
    /// Runs `task` to its end, or until [`Tasks::abort`].
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.tracker.spawn(self.aborting.clone().run_until_cancelled_owned(task));
    }

    /// The same, on another runtime than that of the caller.
    pub(crate) fn spawn_on<F>(&self, runtime: &Handle, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.tracker.spawn_on(self.aborting.clone().run_until_cancelled_owned(task), runtime);
    }

    /// Runs `work` to its end; `None` if the server stops before.
    pub(crate) async fn until_stopped<F: Future>(&self, work: F) -> Option<F::Output> {
        self.stopping.run_until_cancelled(work).await
    }

    /// Resolves when the server stops.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Asks all tasks to end: no new work, what is under way goes on.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
        self.tracker.close();
    }

    /// Drops all tasks wherever they are.
    pub(crate) fn abort(&self) {
        self.stop();
        self.aborting.cancel();
    }

    /// After [`Tasks::stop`]: waits for the tasks, and aborts those that are left after `grace`.
    pub(crate) async fn join(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::info!(left = self.tracker.len(), "aborting what did not end in time");
            self.abort();
            self.tracker.wait().await;
        }
    }
}

/// HTTP/2 runs each request as a task of its own.
impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
