//! The task that keeps a node's identity fresh: it takes up files that others replaced, renews the certificate in time, and
//! fetches the revocation list when a tracker says that there is a newer one.
//!
//! Nothing waits for it. While nobody renews, it tries again and says so; the node goes on until its certificate is over.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_identity::{Config, Identity, IdentityError, Refresh, Renewal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use crate::announcer::AnnouncerHandle;
use crate::tracker::TrackerClient;

/// Keeps an identity fresh for as long as it lives.
#[derive(Debug)]
pub struct Upkeep {
    _task: AbortOnDropHandle<()>,
}

/// Where a node's new certificate comes from.
pub enum Issuer {
    /// A tracker.
    Tracker(TrackerClient),
    /// This process: it holds the authority's key. Called on a blocking thread; gives the certificate (PEM).
    Here(Arc<dyn Fn() -> Result<String, IdentityError> + Send + Sync>),
    /// Somebody else, who replaces the files.
    Outside,
}

/// What the task owns.
struct Task {
    identity: Identity,
    issuer: Issuer,
    /// Where revocation lists come from, and the number of the latest.
    lists: Option<(TrackerClient, watch::Receiver<u64>)>,
    /// Takes what else there is to take, at each look at the files.
    also: Arc<dyn Fn() -> Result<(), IdentityError> + Send + Sync>,
    due: SystemTime,
}

impl Upkeep {
    /// For a node that announces itself to trackers.
    #[must_use]
    pub fn of_node(
        identity: &Identity,
        config: &Config,
        client: &TrackerClient,
        announcer: &AnnouncerHandle,
    ) -> Self {
        let issuer = match config.renewal {
            Renewal::Tracker => Issuer::Tracker(client.clone()),
            Renewal::Outside => Issuer::Outside,
        };
        Self::start(
            identity,
            config,
            issuer,
            Some((client.clone(), announcer.revocations())),
            Arc::new(|| Ok(())),
        )
    }

    /// For a node that announces itself to nobody; revocation lists come from its files. `also` is called on a blocking
    /// thread at each look at them.
    #[must_use]
    pub fn of_tracker(
        identity: &Identity,
        config: &Config,
        issuer: Issuer,
        also: impl Fn() -> Result<(), IdentityError> + Send + Sync + 'static,
    ) -> Self {
        Self::start(identity, config, issuer, None, Arc::new(also))
    }

    fn start(
        identity: &Identity,
        config: &Config,
        issuer: Issuer,
        lists: Option<(TrackerClient, watch::Receiver<u64>)>,
        also: Arc<dyn Fn() -> Result<(), IdentityError> + Send + Sync>,
    ) -> Self {
        let due = identity.renewal_due(rand::random());
        let task = Task { identity: identity.clone(), issuer, lists, also, due };
        let pause = config.reload_interval.max(MIN_INTERVAL);
        Self { _task: AbortOnDropHandle::new(tokio::spawn(task.run(pause))) }
    }
}

impl Task {
    async fn run(mut self, pause: Duration) {
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.refresh().await;
                    self.renew_in_time().await;
                    // Again, where the last try failed.
                    self.fetch_list().await;
                }
                () = news(&mut self.lists) => self.fetch_list().await,
            }
        }
    }

    async fn refresh(&mut self) {
        let (identity, also) = (self.identity.clone(), Arc::clone(&self.also));
        match spawn_blocking(move || also().and_then(|()| identity.refresh())).await {
            Ok(Ok(Refresh::Taken)) => {
                self.due = self.identity.renewal_due(rand::random());
                tracing::info!(
                    expires = expiry(&self.identity),
                    "identity read anew: its files were replaced"
                );
            }
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "replaced identity files not taken"
                );
            }
            Ok(Ok(Refresh::Unchanged)) | Err(_) => {}
        }
    }

    async fn renew_in_time(&mut self) {
        let now = SystemTime::now();
        if now < self.due || matches!(self.issuer, Issuer::Outside) {
            return;
        }
        match self.renew().await {
            Ok(()) => {
                self.due = self.identity.renewal_due(rand::random());
                tracing::info!(expires = expiry(&self.identity), "certificate renewed");
            }
            Err(error) => {
                let left = self.identity.expires().duration_since(now).unwrap_or_default();
                self.due = now + retry_after(left);
                tracing::warn!(error, ?left, "certificate not renewed");
            }
        }
    }

    async fn renew(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let certificate = match &self.issuer {
            Issuer::Tracker(client) => client.renew().await?,
            Issuer::Here(issue) => {
                let issue = Arc::clone(issue);
                spawn_blocking(move || issue()).await??
            }
            Issuer::Outside => return Ok(()),
        };
        let identity = self.identity.clone();
        Ok(spawn_blocking(move || identity.renewed(&certificate)).await??)
    }

    /// Fetches the list that trackers have, if that in use is older.
    async fn fetch_list(&self) {
        let Some((client, news)) = &self.lists else { return };
        let (latest, known) = (*news.borrow(), self.identity.revocations().map_or(0, |list| list.number()));
        if latest <= known {
            return;
        }
        let taken = async {
            let list = client.revocations().await?;
            let identity = self.identity.clone();
            spawn_blocking(move || identity.revoke(&list)).await??;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        match taken.await {
            Ok(()) => tracing::info!(number = latest, "revocation list taken"),
            Err(error) => tracing::warn!(error, "revocation list not taken"),
        }
    }
}

/// A tracker told of another revocation list; never, where none is asked.
async fn news(lists: &mut Option<(TrackerClient, watch::Receiver<u64>)>) {
    if let Some((_, news)) = lists
        && news.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn expiry(identity: &Identity) -> u64 {
    identity.expires().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A tenth of what is left, so that several tries fit in; not more often than a second, and once a day at least.
fn retry_after(left: Duration) -> Duration {
    (left / 10).clamp(Duration::from_secs(1), Duration::from_secs(86_400))
}

/// A look at the files more often than that would find nothing.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_closer_as_the_end_does() {
        let day = Duration::from_secs(86_400);
        assert_eq!(retry_after(100 * day), day);
        assert_eq!(retry_after(Duration::from_secs(600)), Duration::from_secs(60));
        assert_eq!(retry_after(Duration::ZERO), Duration::from_secs(1));
    }
}
