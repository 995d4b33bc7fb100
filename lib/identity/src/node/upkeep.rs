//! What changes of an identity while its node runs: renewed certificates, files that others replaced, revocation lists.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Identity, NodeFiles};
use crate::error::IdentityError;
use crate::files::{self, FileError, PemFile, Secrecy, Stamp};
use crate::revocation::Revocations;
use crate::standing::Current;
use crate::trust;

/// The directory of a node, and its files as they were when they were read.
#[derive(Debug)]
pub(super) struct Home {
    directory: PathBuf,
    seen: Mutex<[Stamp; 4]>,
}

/// What a look at the files found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Nothing that was not known.
    Unchanged,
    /// Others wrote them, and they are in use now.
    Taken,
}

impl Home {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), seen: Mutex::default() }
    }

    /// The files as they are now, put together and not checked.
    pub(super) fn read(&self) -> Result<Current, FileError> {
        self.look();
        let read = |name| PemFile::read(&self.directory, name, files::CA_ISSUE);
        let current = Current::assemble(NodeFiles {
            authorities: read(files::AUTHORITY_CERTIFICATE)?,
            certificate: read(files::NODE_CERTIFICATE)?,
            key: read(files::NODE_KEY)?,
        })?;
        let path = self.directory.join(files::REVOCATIONS);
        let Some(text) = files::read_optional(&path, Revocations::MAX_LENGTH as u64)? else {
            return Ok(current);
        };
        let list = current.trust.read_revocations(&text);
        let list = list.map_err(|source| FileError::Revocations { path, source })?;
        Ok(current.without(list))
    }

    /// Whether any file is another than at the last look.
    fn look(&self) -> bool {
        let names =
            [files::AUTHORITY_CERTIFICATE, files::NODE_CERTIFICATE, files::NODE_KEY, files::REVOCATIONS];
        let now = names.map(|name| files::stamp(&self.directory.join(name)));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, now) != now
    }

    fn replace(&self, name: &str, content: &str) -> Result<(), FileError> {
        files::replace(&self.directory, name, Secrecy::Public, content)
    }
}

impl Identity {
    /// Looks whether others have replaced the files, and takes them into use. Blocks for some file operations.
    ///
    /// An error leaves everything as it is; it is told once, until a file changes again.
    pub fn refresh(&self) -> Result<Refresh, IdentityError> {
        let Some(home) = self.0.home.as_ref().filter(|home| home.look()) else {
            return Ok(Refresh::Unchanged);
        };
        self.adopt(home.read()?, UnixTime::now())?;
        Ok(Refresh::Taken)
    }

    /// Takes a renewed certificate (PEM, intermediates after it) into use, and writes it to `cert.pem`. Blocks.
    ///
    /// Where it cannot be written it is in use all the same, and the error says so.
    pub fn renewed(&self, certificate: &str) -> Result<(), IdentityError> {
        let mut files = self.0.standing.current().files.clone();
        files.certificate.text = certificate.to_owned();
        self.adopt(Current::assemble(files)?, UnixTime::now())?;
        if let Some(home) = &self.0.home {
            home.replace(files::NODE_CERTIFICATE, certificate)?;
        }
        Ok(())
    }

    /// Takes a revocation list of the authority into use, and writes it to `revoked.list`. Blocks.
    pub fn revoke(&self, list: &str) -> Result<(), IdentityError> {
        self.0.standing.change(|current| {
            Ok::<_, IdentityError>(current.without(current.trust.read_revocations(list)?))
        })?;
        if let Some(home) = &self.0.home {
            home.replace(files::REVOCATIONS, list)?;
        }
        Ok(())
    }

    /// The revocation list that is in use.
    #[must_use]
    pub fn revocations(&self) -> Option<Arc<Revocations>> {
        self.0.standing.trust().revocations.clone()
    }

    /// Ends when a node with that certificate, once let in, is to be let in no more.
    pub fn expelled(&self, certificate: CertificateDer<'static>) -> impl Future<Output = ()> + Send + use<> {
        let standing = Arc::clone(&self.0.standing);
        let mut changes = standing.changes();
        async move {
            while standing.trust().peer(&certificate).is_ok() {
                // The sender is in `standing`.
                let _ = changes.changed().await;
            }
        }
    }

    /// Rings at each change of certificate, authorities or revocation list.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.standing.changes()
    }

    /// When the certificate runs out.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.validity().1
    }

    /// When the certificate should be renewed: after two thirds of its life, and up to a twelfth of it later. `jitter` is
    /// 0 to 1, so that nodes that were set up together do not come back together.
    #[must_use]
    pub fn renewal_due(&self, jitter: f64) -> SystemTime {
        let (from, until) = self.validity();
        due(from, until, jitter)
    }

    fn validity(&self) -> (SystemTime, SystemTime) {
        // It was read before, or it would not be here.
        let (from, until) = trust::validity_of(&self.0.standing.current().chain[0]).unwrap_or_default();
        (moment(from), moment(until))
    }

    fn adopt(&self, next: Current, now: UnixTime) -> Result<(), IdentityError> {
        let next = next.checked(now)?;
        let found = next.peer()?;
        if found != self.0.peer || next.trust.cluster != self.0.cluster {
            let (id, role, name) = (found.id, found.role, found.name);
            return Err(IdentityError::OtherNode { expected: self.0.peer.id, found: id, role, name });
        }
        self.0.standing.change(|current| Ok(next.with_latest_list(current)))
    }
}

impl Current {
    fn without(&self, list: Arc<Revocations>) -> Self {
        Self { trust: Arc::new(self.trust.without(list)), ..self.clone() }
    }

    /// A list that is known is not forgotten because a file has an older one, or none.
    fn with_latest_list(self, last: &Self) -> Self {
        let number = |list: &Option<Arc<Revocations>>| list.as_ref().map(|list| list.number());
        match &last.trust.revocations {
            Some(known) if number(&self.trust.revocations) < Some(known.number()) => {
                self.without(Arc::clone(known))
            }
            _ => self,
        }
    }
}

/// At two thirds of a life, and a little later by chance.
fn due(from: SystemTime, until: SystemTime, jitter: f64) -> SystemTime {
    let life = until.duration_since(from).unwrap_or_default();
    from + life.mul_f64(2.0 / 3.0 + jitter.clamp(0.0, 1.0) / 12.0)
}

fn moment(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
