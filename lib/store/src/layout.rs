//! Where each file of the store is, and the strict reading of names that are found on disk.
//!
//! ```text
//! blobs/<algorithm>/<hex[0:2]>/<hex>      committed bytes, immutable
//! metainfo/<algorithm>/<hex[0:2]>/<hex>   their signed metainfo
//! partial/<algorithm>-<hex>               arriving bytes at full length, and beside them `.metainfo` and `.bitfield`
//! incoming/   aside/   lock               files being written; what does not fit together; whose directory it is
//! ```

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use shoal_core::{Algorithm, Digest};

/// The paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The three files of a partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartialFile {
    /// The blob's bytes, with holes where pieces are missing.
    Bytes,
    /// Its signed metainfo, written once.
    Metainfo,
    /// Which pieces are known to be on disk.
    Bitfield,
}

impl Layout {
    pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    pub(crate) fn metainfos(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("metainfo").join(algorithm.as_str())
    }

    /// Every directory that is there from the start.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let mut all = vec![self.incoming(), self.aside(), self.partials()];
        for algorithm in Self::ALGORITHMS {
            all.extend([self.blobs(algorithm), self.metainfos(algorithm)]);
        }
        all
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        sharded(self.blobs(digest.algorithm()), digest)
    }

    pub(crate) fn metainfo(&self, digest: &Digest) -> PathBuf {
        sharded(self.metainfos(digest.algorithm()), digest)
    }

    pub(crate) fn set_aside(&self, digest: &Digest) -> PathBuf {
        self.aside().join(flat_name(digest))
    }

    pub(crate) fn partial(&self, digest: &Digest, file: PartialFile) -> PathBuf {
        self.partials().join(flat_name(digest) + file.suffix())
    }
}

impl PartialFile {
    /// All three; the bitfield first, since it is what vouches for the others: it goes first when they are removed.
    pub(crate) const ALL: [Self; 3] = [Self::Bitfield, Self::Bytes, Self::Metainfo];

    fn suffix(self) -> &'static str {
        match self {
            Self::Bytes => "",
            Self::Metainfo => ".metainfo",
            Self::Bitfield => ".bitfield",
        }
    }
}

/// The digest whose blob (or metainfo) is `<algorithm>/<prefix>/<name>`, if that is exactly its place.
pub(crate) fn parse_sharded(algorithm: Algorithm, prefix: &OsStr, name: &OsStr) -> Option<Digest> {
    let name = name.to_str()?;
    let digest = Digest::from_hex(algorithm, name).ok()?;
    (prefix.to_str()? == &name[..PREFIX_LENGTH]).then_some(digest)
}

/// Which file of which partial has that name.
pub(crate) fn parse_partial(name: &OsStr) -> Option<(Digest, PartialFile)> {
    let (algorithm, rest) = name.to_str()?.split_once('-')?;
    let (hex, suffix) = rest.find('.').map_or((rest, ""), |dot| rest.split_at(dot));
    let digest = Digest::from_hex(Algorithm::parse(algorithm).ok()?, hex).ok()?;
    let file = PartialFile::ALL.into_iter().find(|file| file.suffix() == suffix)?;
    Some((digest, file))
}

fn sharded(tree: PathBuf, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let mut path = tree;
    path.push(&hex[..PREFIX_LENGTH]);
    path.push(hex);
    path
}

fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// Two characters: 256 folders, so that a million blobs are 4,000 a folder.
const PREFIX_LENGTH: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn paths_and_parsing_are_inverse(content: Vec<u8>, long: bool) {
            let algorithm = Layout::ALGORITHMS[usize::from(long)];
            let digest = Digest::of(algorithm, &content);
            let layout = Layout::new("/store".into());
            for file in PartialFile::ALL {
                let path = layout.partial(&digest, file);
                prop_assert_eq!(parse_partial(path.file_name().unwrap()), Some((digest, file)));
            }
            let path = layout.blob(&digest);
            let prefix = path.parent().unwrap().file_name().unwrap();
            prop_assert_eq!(parse_sharded(algorithm, prefix, path.file_name().unwrap()), Some(digest));
        }

        #[test]
        fn no_name_panics_the_parser(prefix: String, name: String) {
            let _ = parse_partial(OsStr::new(&name));
            let _ = parse_sharded(Algorithm::Sha256, OsStr::new(&prefix), OsStr::new(&name));
        }
    }

    #[test]
    fn a_name_that_is_not_exact_is_refused() {
        let hex = "ab".repeat(32);
        for name in [
            hex.clone(),
            format!("sha256-{hex}.tmp"),
            format!("sha256-{hex}."),
            format!("sha256-{}", hex.to_uppercase()),
            format!("sha512-{hex}"),
            format!("md5-{hex}"),
            format!("sha256-{hex}.metainfo.metainfo"),
        ] {
            assert_eq!(parse_partial(OsStr::new(&name)), None, "{name} was accepted");
        }
        assert_eq!(parse_sharded(Algorithm::Sha256, OsStr::new("ac"), OsStr::new(&hex)), None);
        assert_eq!(parse_sharded(Algorithm::Sha256, OsStr::new("ab"), OsStr::new(&hex[1..])), None);
    }
}
