//! Uploads that were begun and not ended, kept for the next process: one small file each, which nobody else may read.
//!
//! They are a convenience: what cannot be written or read is as if it had never been. A session is a capability, hence the modes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use shoal_core::Digest;
use shoal_upstream::Session;

/// A folder of sessions.
#[derive(Clone, Debug)]
pub struct Sessions(PathBuf);

impl Sessions {
    /// Makes the folder if need be, and throws away what no registry knows any more. `None` where there can be none. Blocks.
    #[must_use]
    pub fn open(folder: &Path) -> Option<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).ok()?;
        let old = SystemTime::now().checked_sub(LIFE)?;
        for entry in fs::read_dir(folder).ok()?.take(MAX_SESSIONS).flatten() {
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            if changed.is_ok_and(|changed| changed < old) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Some(Self(folder.to_owned()))
    }

    pub(crate) fn load(&self, key: &str) -> Option<Session> {
        let mut text = String::new();
        fs::File::open(self.path(key)).ok()?.take(MAX_LENGTH).read_to_string(&mut text).ok()?;
        (!text.is_empty()).then(|| Session::kept(text))
    }

    /// Some hundred bytes, once in 32 MiB of an upload: not worth a thread of its own.
    pub(crate) fn keep(&self, key: &str, session: &Session) {
        let path = self.path(key);
        let partial = path.with_extension("partial");
        let mut options = fs::File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial);
        if file.and_then(|mut file| file.write_all(session.expose().as_bytes())).is_ok() {
            let _ = fs::rename(partial, path);
        }
    }

    pub(crate) fn forget(&self, key: &str) {
        let _ = fs::remove_file(self.path(key));
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join(Digest::sha256(key.as_bytes()).hex())
    }
}

/// Registries throw away what rests for a week (distribution's default).
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// As many are looked at.
const MAX_SESSIONS: usize = 10_000;
/// The longest location: states of some registries have a KiB.
const MAX_LENGTH: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_session_is_kept_where_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(sessions.load("k"), None);
        sessions.keep("k", &Session::kept("https://r.example/v2/x"));
        assert_eq!(sessions.load("k").unwrap().expose(), "https://r.example/v2/x");
        assert_eq!(sessions.load("other"), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&sessions.0), mode(&sessions.path("k"))), (0o700, 0o600));
        sessions.forget("k");
        assert_eq!(sessions.load("k"), None);
    }
}
