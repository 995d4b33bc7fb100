//! Who was given a first certificate: a line a node in `issued` beside the authority's key, so that a node can be revoked by
//! the name that its operator knows. It grows by some 120 bytes a node; renewals, and what a node does, are not in it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use shoal_core::{PeerId, Role};

use crate::Peer;
use crate::files::FileError;

/// The list in an authority's directory.
#[derive(Clone, Debug)]
pub struct Ledger(PathBuf);

impl Ledger {
    /// That of the authority in this directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(directory.join("issued"))
    }

    /// Notes a node. One write of one line: several processes may note at once.
    pub fn note(&self, node: &Peer) -> Result<(), FileError> {
        let line = format!("{} {} {}\n", node.id, node.role, node.name);
        let write = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
            file.write_all(line.as_bytes())?;
            file.sync_data()
        };
        write().map_err(|source| FileError::Write { path: self.0.clone(), source })
    }

    /// All nodes that were given that name.
    pub fn named(&self, name: &str) -> Result<Vec<Peer>, FileError> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.unreadable(source)),
        };
        let mut found = Vec::new();
        for line in BufReader::new(file.take(MAX_BYTES)).lines() {
            let node = parse(&line.map_err(|source| self.unreadable(source))?);
            found.extend(node.filter(|node| node.name == name && !found.contains(node)));
        }
        Ok(found)
    }

    fn unreadable(&self, source: io::Error) -> FileError {
        FileError::Read { path: self.0.clone(), remedy: "`shoal ca issue`", source }
    }
}

/// A line that a crash cut is no node.
fn parse(line: &str) -> Option<Peer> {
    let mut parts = line.splitn(3, ' ');
    let (id, role, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Peer { id: PeerId::parse(id).ok()?, role: Role::parse(role)?, name: name.to_owned() })
}

/// Two million nodes.
const MAX_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_its_name_once() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(directory.path());
        assert_eq!(ledger.named("a").unwrap(), []);
        let node = |number: u8, name: &str| Peer {
            id: PeerId::from_public_key([number; 32]),
            role: Role::Agent,
            name: name.to_owned(),
        };
        for noted in [node(1, "a"), node(2, "b"), node(1, "a"), node(3, "a")] {
            ledger.note(&noted).unwrap();
        }
        OpenOptions::new().append(true).open(&ledger.0).unwrap().write_all(b"12D3Koo").unwrap();
        assert_eq!(ledger.named("a").unwrap(), [node(1, "a"), node(3, "a")]);
    }
}
