//! When the manifests of upstreams were pulled last, by this origin's clock; kept over a restart.
//!
//! What was noted is written every few seconds: a crash forgets that much, which is nothing beside a lifetime of days. The disk is
//! read and written on blocking threads.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase as _, TableDefinition, TableError};
use shoal_control::cluster::message::Use;
use shoal_core::{Digest, RepositoryName};
use shoal_registry::event::{Action, Event, Watcher};
use tokio_util::sync::CancellationToken;

use super::PullThrough;

/// See the module.
pub(crate) struct Uses {
    database: Arc<Database>,
    noted: Mutex<HashMap<String, u64>>,
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep on disk when what upstreams have was pulled: {0}")]
pub struct UsesError(String);

/// Notes what clients of the registry pull, and passes on what somebody else watches.
pub(crate) struct WatchUses {
    pub(crate) through: PullThrough,
    pub(crate) next: Arc<dyn Watcher>,
}

impl Uses {
    pub(crate) fn open(path: &Path) -> Result<Self, UsesError> {
        let database = Database::builder().set_cache_size(CACHE).create(path);
        let database = database.map_err(|error| UsesError(format!("{}: {error}", path.display())))?;
        Ok(Self { database: Arc::new(database), noted: Mutex::default() })
    }

    /// It was pulled now.
    pub(super) fn note(&self, repository: &RepositoryName, digest: &Digest) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(repository, digest);
        if noted.len() < MAX_NOTED || noted.contains_key(&key) {
            noted.insert(key, seconds());
        }
    }

    /// When the manifests of a repository were pulled.
    pub(super) async fn of(&self, repository: &RepositoryName) -> Result<Vec<Use>, UsesError> {
        self.write().await?;
        let (database, prefix) = (self.database.clone(), format!("{repository}{SEPARATOR}"));
        blocking(move || read(&database, &prefix)).await
    }

    /// Forgets what was pulled before that moment for the last time.
    pub(super) async fn forget_before(&self, moment: u64) -> Result<(), UsesError> {
        let database = self.database.clone();
        blocking(move || forget(&database, moment)).await
    }

    /// Writes what was noted, again and again and once more at the end.
    pub(super) async fn keep(&self, stop: CancellationToken) {
        loop {
            let ended = stop.run_until_cancelled(tokio::time::sleep(WRITE_INTERVAL)).await.is_none();
            if let Err(error) = self.write().await {
                tracing::error!(%error, "what is pulled may expire too early");
            }
            if ended {
                return;
            }
        }
    }

    async fn write(&self) -> Result<(), UsesError> {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        if noted.is_empty() {
            return Ok(());
        }
        let database = self.database.clone();
        blocking(move || write(&database, &noted)).await
    }
}

#[async_trait]
impl Watcher for WatchUses {
    fn watches(&self, action: &Action) -> bool {
        *action == Action::Pull || self.next.watches(action)
    }

    async fn happened(&self, event: Event) {
        if event.action == Action::Pull
            && let Some(target) = event.target.as_ref().filter(|target| target.is_manifest)
        {
            self.through.note_use(&event.repository, &target.digest);
        }
        if self.next.watches(&event.action) {
            self.next.happened(event).await;
        }
    }
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, UsesError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| UsesError("the origin stops".to_owned()))?;
    done.map_err(|error| UsesError(error.to_string()))
}

fn write(database: &Database, noted: &HashMap<String, u64>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (key, at) in noted {
            table.insert(key.as_str(), at)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, prefix: &str) -> Result<Vec<Use>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(TABLE) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut uses = Vec::new();
    for entry in table.range(prefix..)? {
        let (key, at) = entry?;
        let Some(digest) = key.value().strip_prefix(prefix) else { break };
        if let Ok(digest) = Digest::parse(digest) {
            uses.push(Use { digest, at: at.value() });
        }
    }
    Ok(uses)
}

fn forget(database: &Database, moment: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        table.retain(|_, at| at >= moment)?;
    }
    transaction.commit()?;
    Ok(())
}

fn key(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{repository}{SEPARATOR}{digest}")
}

/// Stands in no name.
const SEPARATOR: char = ' ';
const TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("uses");
/// What is looked at is little, and rarely.
const CACHE: usize = 4 << 20;
/// A sync of the disk every ten seconds is not felt.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two writes; some 10 MiB. What does not fit is noted the next time that it is pulled.
const MAX_NOTED: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uses_outlive_the_process_and_belong_to_their_repository() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses.redb");
        let name = |text| RepositoryName::parse(text).unwrap();
        let (one, other) = (Digest::sha256(b"one"), Digest::sha256(b"other"));
        {
            let uses = Uses::open(&path).unwrap();
            uses.note(&name("docker.io/a"), &one);
            uses.note(&name("docker.io/a/b"), &other);
            let stop = CancellationToken::new();
            stop.cancel();
            uses.keep(stop).await;
        }
        let uses = Uses::open(&path).unwrap();
        let found = uses.of(&name("docker.io/a")).await.unwrap();
        assert_eq!(found.iter().map(|used| used.digest).collect::<Vec<_>>(), [one]);
        assert!(seconds() - found[0].at < 60);
        uses.forget_before(seconds() + 1).await.unwrap();
        assert!(uses.of(&name("docker.io/a/b")).await.unwrap().is_empty());
    }
}
