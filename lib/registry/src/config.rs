//! What an operator can set.

use std::collections::BTreeMap;

use bytesize::ByteSize;

use crate::tag_rules::{self, TagRule};

/// Settings of one registry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Writes are refused with 405 UNSUPPORTED, and nothing is collected or purged; pulls go on. How it starts: it can be changed
    /// while the node runs (`shoal read-only`).
    pub read_only: bool,
    /// Whether clients may delete; one switch for tags, manifests and blobs. Off, all three are 405 UNSUPPORTED. On by
    /// default: who may push to a tag can take it from its manifest anyhow, and blobs stay until they are collected.
    pub delete: bool,
    /// Upstream host names by which runtimes may ask (`?ns=`, or as the first part of the path), and the prefix that
    /// their repositories have here ("" = none). A `ns` that is not listed is answered 404 at once.
    pub namespaces: BTreeMap<String, String>,
    /// Repositories below these prefixes are those of the upstream that is named: nobody pushes there. For the node to set.
    #[serde(skip)]
    pub mirrors: BTreeMap<String, String>,
    /// Whether an index may name manifests that are not here, as a copy of a few platforms of an image does. Off by
    /// default: what can be pulled by its name can then be pulled whole.
    pub sparse_indexes: bool,
    /// The largest blob that a client may push. 128 GiB: layers of 10 GB are common, model weights of 100 GB exist,
    /// and one client cannot fill a disk with a single endless body.
    pub max_blob_size: ByteSize,
    /// Upload sessions that are written to at one moment; one more is answered 429. 512: about a hundred pushing
    /// clients with five layers each, and a bound for open files.
    pub max_concurrent_uploads: usize,
    /// The most tags on one page, whatever the client asks for; one that asks for no page gets all. 1000, as the CNCF
    /// registry has it.
    pub max_tags_page: usize,
    /// The most repositories on one page of the catalog, and as many as a client gets that does not say. 1000: a page is
    /// some thousand looks at the storage.
    pub max_catalog_page: usize,
    /// Which tags are immutable: ordered rules, the first that fits decides. None, unless set: every tag moves.
    #[serde(deserialize_with = "tag_rules::bounded")]
    pub tags: Vec<TagRule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_only: false,
            delete: true,
            namespaces: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            sparse_indexes: false,
            max_blob_size: ByteSize::gib(128),
            max_concurrent_uploads: 512,
            max_tags_page: 1000,
            max_catalog_page: 1000,
            tags: Vec::new(),
        }
    }
}
