//! Reading manifests: which kind a document is, and what it names. The bytes are kept as they came.
//!
//! A document that one client could take for an image and another for an index is refused (CVE-2021-41190), and so is
//! one whose keys readers could tell apart differently: twice the same key, or the same in another case.
//! Sources: OCI image-spec 1.1 (manifest, image-index, descriptor), Docker image manifest v2 schema 2.

mod depth;
mod descriptor;
mod keys;
mod media_type;
mod referrer;

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use shoal_core::Digest;

use descriptor::Descriptor;
pub(crate) use media_type::MediaType;
pub(crate) use referrer::{Referrer, ReferrerList};

/// A valid manifest or index.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    bytes: Bytes,
    media_type: MediaType,
    children: Vec<Child>,
    subject: Option<Digest>,
}

/// Something that has to be in the repository before the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Child {
    pub(crate) digest: Digest,
    pub(crate) kind: ChildKind,
}

/// As what a child has to be in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChildKind {
    /// A configuration or a layer.
    Blob,
    /// A manifest or an index.
    Manifest,
    /// An index's entry of another type: BuildKit lists the layers of its cache so.
    Either,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestParseError {
    /// Not one of the types that are accepted here; schema 1 is not.
    #[error("media type {0:?} is not accepted: use a docker schema 2 or OCI manifest, list or index")]
    UnknownMediaType(String),
    /// The document says it is something else than its Content-Type.
    #[error("the document's mediaType {document:?} is not its Content-Type {header:?}")]
    MediaTypeMismatch {
        /// What the document says.
        document: String,
        /// What the request said.
        header: String,
    },
    /// Docker's types have to say what they are inside the document.
    #[error("the document has no mediaType")]
    NoMediaType,
    /// Nested deeper than any manifest, so that readers would run out of stack.
    #[error("the document is nested {0} levels deep, {MAX_DEPTH} are allowed")]
    TooDeep(usize),
    /// Not JSON, or not of the shape of a manifest.
    #[error("the document is not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Two keys that some readers take for one.
    #[error("key {0:?} is there twice, or in another case than {0:?}")]
    AmbiguousKey(String),
    /// What makes it an image is there, and what makes it an index too; or neither.
    #[error("the document is not clearly an image manifest or an index")]
    Confused,
    /// `schemaVersion` is not 2.
    #[error("schemaVersion is {0}, not 2")]
    SchemaVersion(i64),
    /// A descriptor is wrong in itself.
    #[error("descriptor {digest}: {reason}")]
    Descriptor {
        /// Which.
        digest: Digest,
        /// In what.
        reason: &'static str,
    },
    /// More descriptors than anybody needs.
    #[error("{0} descriptors are more than the {MAX_DESCRIPTORS} that are allowed")]
    TooManyDescriptors(usize),
}

/// What is read of a document; everything else in it is the client's own business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: i64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
}

impl Manifest {
    /// Reads a document. `content_type`: what the client says it is, without parameters; `None` where nobody said.
    pub(crate) fn parse(bytes: Bytes, content_type: Option<&str>) -> Result<Self, ManifestParseError> {
        let claimed = content_type.map(MediaType::parse).transpose()?;
        let depth = depth::of(&bytes);
        if depth > MAX_DEPTH {
            return Err(ManifestParseError::TooDeep(depth));
        }
        keys::check(&bytes)?;
        let document: Document = serde_json::from_slice(&bytes)?;
        if document.schema_version != 2 {
            return Err(ManifestParseError::SchemaVersion(document.schema_version));
        }
        let media_type = document.media_type(claimed)?;
        if media_type.is_index() != document.is_index()? {
            return Err(ManifestParseError::Confused);
        }
        document.check_descriptors()?;
        let subject = document.subject.as_ref().map(|subject| subject.digest);
        let manifest = Self { media_type, children: document.children(), subject, bytes };
        if manifest.subject.is_some() {
            // What it will be listed with has to be readable.
            referrer::Listing::of(&manifest)?;
        }
        Ok(manifest)
    }

    /// The document, byte for byte.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn media_type(&self) -> MediaType {
        self.media_type
    }

    /// The manifest that it says something about; it need not be there.
    pub(crate) fn subject(&self) -> Option<Digest> {
        self.subject
    }

    /// What has to be in the repository first, each once. A subject and foreign layers do not.
    pub(crate) fn children(&self) -> &[Child] {
        &self.children
    }
}

impl Document {
    fn media_type(&self, claimed: Option<MediaType>) -> Result<MediaType, ManifestParseError> {
        let Some(text) = &self.media_type else {
            return match claimed {
                Some(claimed) if claimed.is_docker() => Err(ManifestParseError::NoMediaType),
                Some(claimed) => Ok(claimed),
                None if self.is_index()? => Ok(MediaType::OciIndex),
                None => Ok(MediaType::OciManifest),
            };
        };
        let own = MediaType::parse(text)?;
        match claimed {
            Some(claimed) if claimed != own => Err(ManifestParseError::MediaTypeMismatch {
                document: own.as_str().to_owned(),
                header: claimed.as_str().to_owned(),
            }),
            _ => Ok(own),
        }
    }

    fn is_index(&self) -> Result<bool, ManifestParseError> {
        match (&self.manifests, &self.config, &self.layers) {
            (Some(_), None, None) => Ok(true),
            (None, Some(_), _) => Ok(false),
            _ => Err(ManifestParseError::Confused),
        }
    }

    fn check_descriptors(&self) -> Result<(), ManifestParseError> {
        let count = self.layers.iter().chain(&self.manifests).map(Vec::len).sum();
        if count > MAX_DESCRIPTORS {
            return Err(ManifestParseError::TooManyDescriptors(count));
        }
        let lists = self.layers.iter().chain(&self.manifests).flatten();
        self.config.iter().chain(&self.subject).chain(lists).try_for_each(Descriptor::check)
    }

    fn children(&self) -> Vec<Child> {
        let blob = |blob: &Descriptor| Child { digest: blob.digest, kind: ChildKind::Blob };
        let entry = |entry: &Descriptor| Child { digest: entry.digest, kind: entry.index_entry_kind() };
        let layers = self.layers.iter().flatten().filter(|layer| !layer.is_foreign());
        let blobs = self.config.iter().chain(layers).map(blob);
        let all = blobs.chain(self.manifests.iter().flatten().map(entry));
        let mut seen = HashSet::new();
        all.filter(|child| seen.insert(*child)).collect()
    }
}

/// The longest manifest in bytes: what the distribution-spec asks registries to take, and what clients read.
pub(crate) const MAX_MANIFEST_SIZE: usize = 4 << 20;
/// A descriptor's annotations are on level 5; the rest is for what clients add.
const MAX_DEPTH: usize = 32;
/// The most layers or entries: images have at most 127 layers, the largest indexes a few hundred entries.
const MAX_DESCRIPTORS: usize = 10_000;

#[cfg(test)]
mod tests;
