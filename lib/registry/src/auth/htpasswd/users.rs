//! The file of names and hashes, read again when it changed.
//!
//! A file that cannot be taken any more is said in the log, and what it held before stays: half an edit locks nobody
//! out. At start it is an error.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Names with their hashes.
#[derive(Debug)]
pub(crate) struct Users {
    entries: HashMap<String, String>,
    decoy: String,
}

/// Where users come from.
pub(super) struct Source {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    users: Arc<Users>,
    stamp: Option<Stamp>,
    looked: Instant,
}

/// Changes when the file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// What is wrong with a password file. Says which line, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// It cannot be read.
    #[error("cannot read the password file {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("password file {path} has more than {limit} bytes", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// A line is none that can be used.
    #[error("password file {path}, line {line}: {reason}; `htpasswd -B -C 10` writes good ones", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Source {
    pub(super) async fn open(path: &Path) -> Result<Self, HtpasswdError> {
        // Taken first: a change during the read is seen as one later.
        let stamp = Stamp::of(path).await;
        let users = Arc::new(read(path).await?);
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { users, stamp, looked: Instant::now() }) })
    }

    /// The users as the file has them now, or had them a second ago.
    pub(super) async fn users(&self) -> Arc<Users> {
        if self.is_due() {
            self.look().await;
        }
        Arc::clone(&self.lock().users)
    }

    /// Whether it is time to look at the file; says so to one caller.
    fn is_due(&self) -> bool {
        let mut state = self.lock();
        let due = state.looked.elapsed() >= LOOK_INTERVAL;
        if due {
            state.looked = Instant::now();
        }
        due
    }

    async fn look(&self) {
        let stamp = Stamp::of(&self.path).await;
        if stamp == self.lock().stamp {
            return;
        }
        let read = read(&self.path).await;
        let mut state = self.lock();
        state.stamp = stamp;
        match read {
            Ok(users) => state.users = Arc::new(users),
            Err(error) => tracing::error!(%error, "password file is not taken, the one before stays"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    async fn of(path: &Path) -> Option<Self> {
        let metadata = tokio::fs::metadata(path).await.ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { inode: metadata.ino(), length: metadata.len(), modified })
    }
}

impl Users {
    /// The hash of a name.
    pub(crate) fn entry(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(String::as_str)
    }

    /// A hash that nobody knows a password of, as dear as the dearest: what a name that does not exist is checked against.
    pub(super) fn decoy(&self) -> &str {
        &self.decoy
    }

    /// Reads lines of `name:hash`; empty ones and comments (`#`) are passed over.
    fn parse(path: &Path, text: &str) -> Result<Self, HtpasswdError> {
        let mut entries = HashMap::new();
        let mut dearest = LOWEST_COST;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |reason| HtpasswdError::Line { path: path.to_owned(), line: number + 1, reason };
            let (name, hash) = line.split_once(':').ok_or_else(|| bad("no colon"))?;
            if name.is_empty() {
                return Err(bad("no name"));
            }
            dearest = dearest.max(cost(hash).map_err(bad)?);
            if entries.insert(name.to_owned(), hash.to_owned()).is_some() {
                return Err(bad("the name was there before"));
            }
        }
        Ok(Self { entries, decoy: format!("$2b${dearest:02}${DECOY_SALT_AND_HASH}") })
    }
}

async fn read(path: &Path) -> Result<Users, HtpasswdError> {
    let failed = |source| HtpasswdError::Read { path: path.to_owned(), source };
    let length = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(HtpasswdError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    Users::parse(path, &text)
}

/// The cost of a bcrypt hash: the logarithm of its rounds.
fn cost(hash: &str) -> Result<u32, &'static str> {
    // `2x` is the marker of hashes by a broken program.
    if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
        return Err("the hash is not bcrypt");
    }
    let parts: bcrypt::HashParts = hash.parse().map_err(|_| "the hash is not a whole bcrypt hash")?;
    match parts.get_cost() {
        cost if cost < LOWEST_COST => Err("the cost is below 4, which is not bcrypt"),
        cost if cost > HIGHEST_COST => Err("the cost is above 14: each check would take seconds"),
        cost => Ok(cost),
    }
}

/// Who edits the file waits that long; a stat costs nothing beside a request.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// 10,000 names of the usual length.
const MAX_FILE: u64 = 1 << 20;
/// bcrypt's own.
const LOWEST_COST: u32 = 4;
/// About a second of one processor.
const HIGHEST_COST: u32 = 14;
/// Well formed: 22 characters of salt and 31 of a hash, all zero.
const DECOY_SALT_AND_HASH: &str = ".....................................................";
