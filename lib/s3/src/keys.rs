//! Object keys: `<root directory>/docker/registry/v2/…`, read as paths of the registry layout.
//!
//! Only paths that hold content are keys; folders exist as prefixes. A key and its path are inverse to each other.

use shoal_core::{Digest, RepositoryName};
use shoal_driver::{DriverPath, InvalidDriverPath, RegistryPath, UploadId};

/// What the keys of a bucket mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Before every path of the layout, which starts with `/`: empty, or parts without a `/` at the end.
    root: String,
}

/// An object: its path, and what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where the driver has it.
    pub path: DriverPath,
    /// What it is.
    pub content: Content,
}

/// What lies at a path that holds content: it decides by which of the driver's operations it is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A link: a digest, as text, in a repository.
    Link(RepositoryName),
    /// The time at which an upload began. The upload is deleted by it.
    StartedAt(RepositoryName, UploadId),
    /// The state of a digester.
    HashState(RepositoryName, UploadId),
    /// The bytes of an upload.
    Upload(RepositoryName, UploadId),
    /// The bytes of a blob.
    Blob(Digest),
}

/// A root directory with which no key could be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct InvalidRoot(#[from] InvalidDriverPath);

/// Where the keys with a prefix are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// The folder whose children are meant.
    pub(crate) folder: DriverPath,
    /// How their names start: empty for all of them.
    pub(crate) start: String,
}

impl Keys {
    /// The keys below a root directory, written as the registry's configuration takes it: with or without `/` around it.
    pub fn below(root_directory: &str) -> Result<Self, InvalidRoot> {
        let root = root_directory.trim_matches('/');
        if !root.is_empty() {
            DriverPath::parse(&format!("/{root}"))?;
        }
        Ok(Self { root: root.into() })
    }

    /// What a key names; `None` if no object can have it.
    #[must_use]
    pub fn parse(&self, key: &str) -> Option<Named> {
        let path = if self.root.is_empty() {
            DriverPath::parse(&format!("/{key}"))
        } else {
            DriverPath::parse(key.strip_prefix(&self.root)?)
        };
        Named::of(&path.ok()?)
    }

    /// The key of a path; of a folder, what all keys in it start with, without the `/` at the end.
    #[must_use]
    pub fn key(&self, path: &DriverPath) -> String {
        let path = if path.is_root() { "" } else { path.as_str() };
        format!("{}{path}", self.root).trim_start_matches('/').into()
    }

    /// Where the keys with that prefix are; `None`: there are none.
    pub(crate) fn prefix(&self, prefix: &str) -> Option<Prefix> {
        if format!("{}/", self.root).trim_start_matches('/').starts_with(prefix) {
            return Some(Prefix { folder: DriverPath::root(), start: String::new() });
        }
        let path =
            if self.root.is_empty() { &format!("/{prefix}") } else { prefix.strip_prefix(&self.root)? };
        let (folder, start) = path.rsplit_once('/')?;
        let folder = if folder.is_empty() { "/" } else { folder };
        Some(Prefix { folder: DriverPath::parse(folder).ok()?, start: start.into() })
    }

    /// The path of a key or common prefix that a listing ended with; `None` for what no listing gave.
    pub(crate) fn marker(&self, marker: &str) -> Option<DriverPath> {
        let marker = marker.strip_suffix('/').unwrap_or(marker);
        let path =
            if self.root.is_empty() { &format!("/{marker}") } else { marker.strip_prefix(&self.root)? };
        DriverPath::parse(path).ok()
    }
}

impl Named {
    /// The object at a path; `None` if only folders can be there, or nothing.
    pub(crate) fn of(path: &DriverPath) -> Option<Self> {
        let content = match RegistryPath::parse(path).ok()? {
            RegistryPath::RevisionLink(name, _)
            | RegistryPath::TagCurrentLink(name, _)
            | RegistryPath::TagIndexEntryLink(name, ..)
            | RegistryPath::LayerLink(name, _) => Content::Link(name),
            RegistryPath::UploadStartedAt(name, id) => Content::StartedAt(name, id),
            RegistryPath::UploadHashState(name, id, ..) => Content::HashState(name, id),
            RegistryPath::UploadData(name, id) => Content::Upload(name, id),
            RegistryPath::BlobData(digest) => Content::Blob(digest),
            _ => return None,
        };
        Some(Self { path: path.clone(), content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOB: &str = "docker/registry/v2/blobs/sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/data";

    fn prefix(folder: &str, start: &str) -> Option<Prefix> {
        Some(Prefix { folder: DriverPath::parse(folder).unwrap(), start: start.into() })
    }

    #[test]
    fn the_root_directory_comes_before_the_layout() {
        for (written, key) in
            [("/", BLOB.to_owned()), ("", BLOB.to_owned()), ("/a/b/", format!("a/b/{BLOB}"))]
        {
            let keys = Keys::below(written).unwrap();
            let named = keys.parse(&key).unwrap();
            assert_eq!(named.path.as_str(), format!("/{BLOB}"));
            assert_eq!(keys.key(&named.path), key);
        }
    }

    #[test]
    fn what_is_outside_of_the_layout_is_no_key() {
        let keys = Keys::below("/store").unwrap();
        for key in ["", "store", "store/", "storedocker/registry/v2", BLOB, &format!("store//{BLOB}"), "../x"]
        {
            assert_eq!(keys.parse(key), None, "{key}");
        }
        let keys = Keys::below("/").unwrap();
        for key in
            ["docker/registry/v2/blobs", "elsewhere", &BLOB.replace("/e3/", "/e4/"), &format!("/{BLOB}")]
        {
            assert_eq!(keys.parse(key), None, "{key}");
        }
    }

    #[test]
    fn a_root_directory_is_made_of_parts() {
        for root in ["/..", "a//b", "a b"] {
            assert!(Keys::below(root).is_err(), "{root}");
        }
    }

    #[test]
    fn a_prefix_ends_within_a_folder() {
        let keys = Keys::below("/").unwrap();
        assert_eq!(keys.prefix(""), prefix("/", ""));
        assert_eq!(keys.prefix("doc"), prefix("/", "doc"));
        assert_eq!(keys.prefix("docker/registry/"), prefix("/docker/registry", ""));
        assert_eq!(keys.prefix("docker//"), None);
        let keys = Keys::below("/a/b").unwrap();
        for start in ["", "a", "a/b", "a/b/"] {
            assert_eq!(keys.prefix(start), prefix("/", ""), "{start:?}");
        }
        assert_eq!(keys.prefix("a/b/do"), prefix("/", "do"));
        assert_eq!(keys.prefix("a/bc"), None);
        assert_eq!(keys.prefix("c"), None);
    }

    /// Below a repository.
    const BELOW: &str = "(_layers/sha256/[0-9a-f]{64}/link|_manifests/revisions/sha256/[0-9a-f]{64}/link\
        |_manifests/tags/[a-z0-9]{1,8}(/current|/index/sha256/[0-9a-f]{64})/link\
        |_uploads/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}\
        /(data|startedat|hashstates/sha256/[1-9][0-9]{0,8}))";

    fn layout() -> impl Strategy<Value = String> {
        let repository = ("[a-z]{1,8}(/(blobs|tags|uploads|[a-z0-9]{1,4})){0,3}", BELOW)
            .prop_map(|(name, below)| format!("/docker/registry/v2/repositories/{name}/{below}"));
        let blob = "[0-9a-f]{64}"
            .prop_map(|hex| format!("/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
        prop_oneof![repository, blob]
    }

    proptest! {
        #[test]
        fn keys_and_paths_are_inverse(path in layout(), root in "(/[a-z.]{2,5}){0,2}".prop_filter("no dots", |root| !root.contains(".."))) {
            let keys = Keys::below(&root).unwrap();
            let path = DriverPath::parse(&path).unwrap();
            let key = keys.key(&path);
            prop_assert_eq!(keys.parse(&key).map(|named| named.path), Some(path.clone()));
            prop_assert_eq!(keys.marker(&key), Some(path.clone()));
            let within = keys.prefix(&key).unwrap();
            prop_assert_eq!(within.folder.child(&within.start).unwrap(), path);
        }

        #[test]
        fn a_key_that_is_taken_is_the_one_key_of_its_path(key in "(docker/registry/v2/)?[a-z0-9/_.-]{0,60}") {
            let keys = Keys::below("/").unwrap();
            if let Some(named) = keys.parse(&key) {
                prop_assert_eq!(keys.key(&named.path), key);
            }
        }

        #[test]
        fn no_text_panics(text: String, root: String) {
            if let Ok(keys) = Keys::below(&root) {
                let _ = (keys.parse(&text), keys.prefix(&text), keys.marker(&text));
            }
        }
    }
}
