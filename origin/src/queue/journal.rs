//! What queues keep on disk: one file, one thread that writes it. Those who wait at the same time share a sync of the disk.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use tokio::sync::{mpsc, oneshot};

/// The file of all queues. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    changes: mpsc::Sender<Command>,
    database: Arc<Database>,
}

/// The disk does not keep it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot keep the queue on disk: {0}")]
pub struct JournalError(String);

/// What becomes of the record of a key.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) table: Arc<str>,
    pub(super) key: String,
    /// Nothing: it is deleted.
    pub(super) record: Option<Vec<u8>>,
}

type Command = (Change, oneshot::Sender<Result<(), JournalError>>);

impl Journal {
    /// Opens the file, or makes it. Its thread ends when the last clone is dropped.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let database = Database::builder().set_cache_size(CACHE).create(path);
        let database = database.map_err(|error| JournalError(format!("{}: {error}", path.display())))?;
        let database = Arc::new(database);
        let (changes, commands) = mpsc::channel(WAITING);
        let writes = database.clone();
        let thread = thread::Builder::new().name("queues".to_owned());
        thread
            .spawn(move || run(&writes, commands))
            .map_err(|error| JournalError(format!("no thread to write it: {error}")))?;
        Ok(Self { changes, database })
    }

    /// All records of a table.
    pub(super) fn load(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        self.load_records(table).map_err(|error| JournalError(error.to_string()))
    }

    fn load_records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(definition(table)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let mut records = Vec::new();
        for record in table.iter()? {
            let (key, record) = record?;
            records.push((key.value().to_owned(), record.value().to_vec()));
        }
        Ok(records)
    }

    /// A place for a change. Changes take effect in the order in which their places are filled.
    pub(super) async fn place(&self) -> Result<Place<'_>, JournalError> {
        self.changes.reserve().await.map(Place).map_err(|_| JournalError::ended())
    }
}

/// Where a change goes.
#[derive(Debug)]
pub(super) struct Place<'a>(mpsc::Permit<'a, Command>);

/// A change that was handed over.
#[derive(Debug)]
pub(super) struct Pending(oneshot::Receiver<Result<(), JournalError>>);

impl Place<'_> {
    pub(super) fn fill(self, change: Change) -> Pending {
        let (answer, answered) = oneshot::channel();
        self.0.send((change, answer));
        Pending(answered)
    }
}

impl Pending {
    /// Until it is durable.
    pub(super) async fn written(self) -> Result<(), JournalError> {
        self.0.await.unwrap_or_else(|_| Err(JournalError::ended()))
    }
}

impl JournalError {
    fn ended() -> Self {
        Self("its thread has ended".to_owned())
    }
}

fn run(database: &Database, mut commands: mpsc::Receiver<Command>) {
    let mut batch = Vec::new();
    while let Some(command) = commands.blocking_recv() {
        batch.push(command);
        while batch.len() < BATCH
            && let Ok(command) = commands.try_recv()
        {
            batch.push(command);
        }
        let written = write(database, &batch).map_err(|error| JournalError(error.to_string()));
        if let Err(error) = &written {
            tracing::error!(%error, jobs = batch.len(), "queue not written");
        }
        for (_, answer) in batch.drain(..) {
            // An error means that nobody waits.
            let _ = answer.send(written.clone());
        }
    }
}

/// All, or nothing of it.
fn write(database: &Database, batch: &[Command]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for (Change { table, key, record }, _) in batch {
        let mut table = transaction.open_table(definition(table))?;
        match record {
            Some(record) => table.insert(key.as_str(), record.as_slice())?,
            None => table.remove(key.as_str())?,
        };
    }
    Ok(transaction.commit()?)
}

fn definition(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

/// Changes that wait for the disk; whoever brings more waits too.
const WAITING: usize = 1024;
/// Changes that share a sync.
const BATCH: usize = 256;
/// What of the file is kept in memory, in bytes.
const CACHE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, record: Option<&str>) -> Change {
        Change {
            table: "jobs".into(),
            key: key.to_owned(),
            record: record.map(|text| text.as_bytes().to_vec()),
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queues");
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.load("jobs").unwrap(), []);
        for (key, record) in [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("b", None)] {
            journal.place().await.unwrap().fill(change(key, record)).written().await.unwrap();
        }
        drop(journal);
        // Its thread lets go of the file in a moment.
        let again = (0..100).find_map(|_| {
            thread::sleep(std::time::Duration::from_millis(10));
            Journal::open(&path).ok()
        });
        let again = again.unwrap();
        assert_eq!(again.load("jobs").unwrap(), [("a".to_owned(), b"3".to_vec())]);
        assert_eq!(again.load("others").unwrap(), []);
    }

    #[tokio::test]
    async fn a_file_that_is_no_journal_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queues");
        std::fs::write(&path, b"something else entirely").unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("queues"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else entirely");
    }
}
