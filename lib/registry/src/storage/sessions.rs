//! Which upload sessions are being written to in this process: one writer a session, a bounded number in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::RepositoryName;
use shoal_driver::UploadId;

type Key = (RepositoryName, UploadId);

/// The sessions that have a writer, and how far each one is.
#[derive(Clone)]
pub(super) struct Sessions {
    open: Arc<Mutex<HashMap<Key, Progress>>>,
    limit: usize,
}

/// How far a session's writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its writer is being opened.
    Opening,
    /// So many bytes are written.
    Written(u64),
}

/// Why a session has no writer for you.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It has one already.
    Busy,
    /// As many sessions are written to as may be.
    Full,
}

/// The right to write to a session; given back when dropped.
pub(crate) struct Claim {
    sessions: Sessions,
    key: Key,
}

impl Sessions {
    pub(super) fn new(limit: usize) -> Self {
        Self { open: Arc::default(), limit }
    }

    /// Makes the caller the session's only writer, or says at once why not.
    pub(super) fn claim(&self, repository: &RepositoryName, id: UploadId) -> Result<Claim, Refused> {
        let key = (repository.clone(), id);
        let mut open = self.lock();
        if open.contains_key(&key) {
            return Err(Refused::Busy);
        }
        if open.len() >= self.limit {
            return Err(Refused::Full);
        }
        open.insert(key.clone(), Progress::Opening);
        Ok(Claim { sessions: self.clone(), key })
    }

    /// How far the writer of a session is, if it has one.
    pub(super) fn progress(&self, repository: &RepositoryName, id: UploadId) -> Option<Progress> {
        self.lock().get(&(repository.clone(), id)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Progress>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The writer has written `bytes` in all.
    pub(super) fn written(&self, bytes: u64) {
        if let Some(progress) = self.sessions.lock().get_mut(&self.key) {
            *progress = Progress::Written(bytes);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_writer_and_the_number_of_writers_a_limit() {
        let (sessions, name) = (Sessions::new(2), RepositoryName::parse("a").unwrap());
        let [one, two, three] = [(); 3].map(|()| UploadId::random());
        let claim = sessions.claim(&name, one).unwrap();
        assert_eq!(sessions.claim(&name, one).err(), Some(Refused::Busy));
        let _other = sessions.claim(&name, two).unwrap();
        assert_eq!(sessions.claim(&name, three).err(), Some(Refused::Full));
        assert_eq!(sessions.progress(&name, one), Some(Progress::Opening));
        claim.written(5);
        assert_eq!(sessions.progress(&name, one), Some(Progress::Written(5)));
        drop(claim);
        assert_eq!(sessions.progress(&name, one), None);
        assert!(sessions.claim(&name, three).is_ok());
    }
}
