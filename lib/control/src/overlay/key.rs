//! The cluster's pre-shared key: who does not have it hears nothing that makes sense, and is not listened to.
//!
//! Given in a file it is a secret, and hides the overlay from whoever reaches its port. Without one it is derived from the
//! cluster's name. The authority's certificate would be no better: it is as public, and it changes when a cluster goes
//! from one authority to the next. Whom to let in is decided by certificates in either case.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use libp2p::pnet::PreSharedKey;
use shoal_core::Digest;

/// Why there is no pre-shared key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the overlay's key {path} cannot be read: `overlay.key` names it", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "the overlay's key {path} is none: its three lines are /key/swarm/psk/1.0.0/, /base16/ and 64 hexadecimal digits (`openssl rand -hex 32`)",
        path = path.display()
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// No key file is longer: header, encoding and 64 digits take 95 bytes.
const MAX_FILE_LENGTH: u64 = 1024;

/// The key of the file, or of the cluster.
pub(crate) fn load(file: Option<&Path>, cluster: &str) -> Result<PreSharedKey, KeyError> {
    let Some(path) = file else { return Ok(of_cluster(cluster)) };
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_LENGTH).read_to_string(&mut text));
    read.map_err(|source| KeyError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
}

fn of_cluster(cluster: &str) -> PreSharedKey {
    let text = ["shoal overlay pre-shared key v1\0", cluster].concat();
    match Digest::sha256(text.as_bytes()) {
        Digest::Sha256(key) => PreSharedKey::new(key),
        Digest::Sha512(_) => unreachable!("SHA-256 was asked for"),
    }
}

fn parse(text: &str) -> Option<PreSharedKey> {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_have_keys_of_their_own_and_a_file_has_its() {
        assert_eq!(of_cluster("a"), of_cluster("a"));
        assert_ne!(of_cluster("a"), of_cluster("b"));
        let written = of_cluster("a").to_key_file();
        for text in [written.clone(), format!("{written}\n"), written.replace('\n', "\r\n")] {
            assert_eq!(parse(&text), Some(of_cluster("a")));
        }
        for text in ["", "00", "/key/swarm/psk/1.0.0/\n/base16/\n00", &"0".repeat(2000)] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Some(Path::new("no/such.key")), "a").unwrap_err().to_string();
        assert!(error.contains("no/such.key") && error.contains("overlay.key"), "{error}");
    }
}
