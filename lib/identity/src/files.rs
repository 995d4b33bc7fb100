//! The files of an authority and of a node. Keys are never written over, and certificates only by their renewal.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::revocation::RevocationError;
use crate::spiffe::NameError;
use crate::trust::CertificateError;

/// What is wrong with a file, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there already.
    #[error("{path} exists and is never overwritten: move it away, or choose another directory", path = .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write {path}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read {path}: make it readable, or issue it with {remedy}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The command that makes such a file.
        remedy: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It does not hold what its name says.
    #[error("{path} does not hold {expected} in PEM: issue it again with {remedy}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// The command that makes such a file.
        remedy: &'static str,
    },
    /// The private key belongs to another certificate.
    #[error("{key} is not the key of {certificate}: put back the pair that was issued together", key = .key.display(), certificate = .certificate.display())]
    KeyMismatch {
        /// The private key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate is in its file, and not good.
    #[error("{path} is not accepted: check this machine's clock, and issue it again with {remedy}", path = .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The command that makes such a file.
        remedy: &'static str,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The revocation list is in its file, and not good.
    #[error("{path} is not accepted: copy it anew from where {remedy} wrote it", path = .path.display(), remedy = CA_REVOKE)]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RevocationError,
    },
    /// The authority's name in its certificate is no cluster's name.
    #[error("{path} does not name a cluster: make a new authority with `shoal ca init`", path = .path.display())]
    Cluster {
        /// The file.
        path: PathBuf,
        /// What is wrong with the name.
        source: NameError,
    },
}

/// The certificates that a node trusts: the authority's, and for a while its successor's too.
pub(crate) const AUTHORITY_CERTIFICATE: &str = "ca.pem";
pub(crate) const AUTHORITY_KEY: &str = "ca-key.pem";
pub(crate) const NODE_CERTIFICATE: &str = "cert.pem";
pub(crate) const NODE_KEY: &str = "key.pem";
/// The authority's list of whom it lets in no more; beside its key, and beside each node's.
pub(crate) const REVOCATIONS: &str = "revoked.list";

/// The command that makes an authority.
pub(crate) const CA_INIT: &str = "`shoal ca init`";
/// The command that makes a node's files.
pub(crate) const CA_ISSUE: &str = "`shoal ca issue`";
/// The command that makes a revocation list.
pub(crate) const CA_REVOKE: &str = "`shoal ca revoke`";

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Secrecy {
    Public,
    Private,
}

impl Secrecy {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Private => 0o600,
        }
    }
}

/// Writes a file in place of what is there, if anything: a reader, and a crash, find the old or the new, and no half.
pub(crate) fn replace(
    directory: &Path,
    name: &str,
    secrecy: Secrecy,
    content: &str,
) -> Result<(), FileError> {
    let path = directory.join(name);
    let next = directory.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(secrecy.mode()).open(&next)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&next);
        FileError::Write { path: path.clone(), source }
    })
}

/// Writes all of these files or none. The directory is made if it is missing.
pub(crate) fn create_all(directory: &Path, files: &[(&str, Secrecy, &str)]) -> Result<(), FileError> {
    fs::create_dir_all(directory)
        .map_err(|source| FileError::Write { path: directory.to_owned(), source })?;
    let mut created = Vec::new();
    for (name, secrecy, content) in files {
        if let Err(error) = create(directory.join(name), *secrecy, content, &mut created) {
            // What this call made is worth nothing without the rest, and would stand in the way of the next try.
            for path in created {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn create(
    path: PathBuf,
    secrecy: Secrecy,
    content: &str,
    created: &mut Vec<PathBuf>,
) -> Result<(), FileError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(secrecy.mode()).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(FileError::Exists { path }),
        Err(source) => return Err(FileError::Write { path, source }),
    };
    created.push(path.clone());
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|source| FileError::Write { path, source })
}

/// Tells whether a file is still the one that was read: another file, another length or another time, or none at all.
pub(crate) type Stamp = Option<(u64, u64, i64, i64)>;

pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// A small text file; `None` if there is none.
pub(crate) fn read_optional(path: &Path, max: u64) -> Result<Option<String>, FileError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(max).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Read { path: path.to_owned(), remedy: CA_REVOKE, source }),
    }
}

/// The first certificate of a PEM text.
#[cfg(test)]
pub(crate) fn first_certificate(text: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(text.as_bytes()).ok()
}

/// A PEM file that was read (or will be written), with what to do if it is not right.
#[derive(Clone)]
pub(crate) struct PemFile {
    pub(crate) path: PathBuf,
    pub(crate) remedy: &'static str,
    pub(crate) text: String,
}

impl PemFile {
    pub(crate) fn read(directory: &Path, name: &str, remedy: &'static str) -> Result<Self, FileError> {
        let path = directory.join(name);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => Ok(Self { path, remedy, text }),
            Err(source) => Err(FileError::Read { path, remedy, source }),
        }
    }

    /// A file that is yet to be written.
    pub(crate) fn new(name: &str, text: String) -> Self {
        Self { path: name.into(), remedy: CA_ISSUE, text }
    }

    /// All certificates in the file, one at least.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.text.as_bytes()).collect();
        certificates.ok().filter(|all| !all.is_empty()).ok_or_else(|| self.content("certificates"))
    }

    /// The only certificate in the file.
    pub(crate) fn certificate(&self) -> Result<CertificateDer<'static>, FileError> {
        let only: Result<[_; 1], _> = self.certificates()?.try_into();
        only.map(|[certificate]| certificate).map_err(|_| self.content("exactly one certificate"))
    }

    /// The private key in the file.
    pub(crate) fn key(&self) -> Result<PrivatePkcs8KeyDer<'static>, FileError> {
        PrivatePkcs8KeyDer::from_pem_slice(self.text.as_bytes()).map_err(|_| self.not_a_key())
    }

    pub(crate) fn not_a_key(&self) -> FileError {
        self.content("an Ed25519 private key (PKCS #8)")
    }

    fn content(&self, expected: &'static str) -> FileError {
        FileError::Content { path: self.path.clone(), expected, remedy: self.remedy }
    }

    pub(crate) fn refused(&self, source: CertificateError) -> FileError {
        FileError::Certificate { path: self.path.clone(), remedy: self.remedy, source }
    }
}

/// Without the text, which may be a private key.
impl fmt::Debug for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Far above a few certificates, so that a wrong path (a disk image, a device) does not fill the memory.
const MAX_FILE_BYTES: u64 = 256 * 1024;
