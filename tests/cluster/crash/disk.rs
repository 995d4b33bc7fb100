//! What a killed origin leaves on its disk: every blob right, and nothing that grows without bound.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shoal_core::{Algorithm, Digest};

use super::journal::Journal;

/// After a start and an audit nothing is under way: what there is of temporary files is what lost requests account for.
pub(crate) fn check_leftovers(home: &Path, journals: &[Journal]) {
    let data = home.join("data");
    for folder in ["incoming", "partial", "aside", "metadata/temporary"] {
        let left = files(&data.join(folder));
        assert!(left.is_empty(), "{folder} holds {left:?}");
    }
    for journal in journals {
        let repository = format!("docker/registry/v2/repositories/{}/_uploads", journal.repository);
        for place in ["metadata/pending", "metadata/tree"] {
            let sessions = children(&data.join(place).join(&repository)).len();
            let lost = journal.sessions_lost;
            assert!(sessions <= lost, "{place}/{repository}: {sessions} sessions, {lost} were lost");
        }
    }
}

/// Every blob on disk is what its name says, and what somebody pushed.
pub(crate) fn check_blobs(home: &Path, journals: &[Journal]) {
    let pushed: BTreeSet<Digest> = journals
        .iter()
        .flat_map(|journal| journal.blobs.keys().chain(journal.manifests.keys()).copied())
        .collect();
    let blobs = files(&home.join("data/blobs"));
    assert!(!blobs.is_empty());
    for path in blobs {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        let named = Digest::from_hex(Algorithm::Sha256, name).unwrap();
        let found = Digest::sha256(&fs::read(&path).unwrap());
        assert_eq!(named, found);
        assert!(pushed.contains(&found), "nobody pushed {found}");
    }
}

/// All files below a folder, which need not be there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (folders, mut found): (Vec<_>, Vec<_>) = children(folder).into_iter().partition(|path| path.is_dir());
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}
