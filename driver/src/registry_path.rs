//! Every path of the registry layout, as one enum: what `/docker/registry/v2/...` means.
//!
//! `parse` and `Display` are inverse: each text that parses is the one text of its value, and each value has a text that
//! parses to it. Source: distribution, `registry/storage/paths.go`, and the folders in between that a walk meets.
//! Whether anything lies at a path is not known here.

mod parse;

use std::fmt;

use shoal_core::{Algorithm, Digest, RepositoryName, Tag};
use uuid::Uuid;

use crate::path::DriverPath;

pub use parse::{InvalidRegistryPath, RegistryPathFault};

/// A path of the registry layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegistryPath {
    /// `/`
    Root,
    /// `/docker`
    Docker,
    /// `/docker/registry`
    Registry,
    /// `/docker/registry/v2`, under which everything lies; `…` below.
    Version,
    /// `…/repositories`
    Repositories,
    /// `…/repositories/<name>`: a repository, or a folder on the way to repositories with longer names, or both. The path
    /// does not say; what has a `_manifests` below it is a repository.
    Repository(RepositoryName),
    /// `…/<name>/_manifests`
    Manifests(RepositoryName),
    /// `…/<name>/_manifests/revisions`
    Revisions(RepositoryName),
    /// `…/revisions/<algorithm>`
    RevisionsByAlgorithm(RepositoryName, Algorithm),
    /// `…/revisions/<algorithm>/<hex>`
    Revision(RepositoryName, Digest),
    /// `…/revisions/<algorithm>/<hex>/link`: the repository has the manifest.
    RevisionLink(RepositoryName, Digest),
    /// `…/<name>/_manifests/tags`
    Tags(RepositoryName),
    /// `…/tags/<tag>`
    Tag(RepositoryName, Tag),
    /// `…/tags/<tag>/current`
    TagCurrent(RepositoryName, Tag),
    /// `…/tags/<tag>/current/link`: the digest that the tag names now.
    TagCurrentLink(RepositoryName, Tag),
    /// `…/tags/<tag>/index`
    TagIndex(RepositoryName, Tag),
    /// `…/tags/<tag>/index/<algorithm>`
    TagIndexByAlgorithm(RepositoryName, Tag, Algorithm),
    /// `…/tags/<tag>/index/<algorithm>/<hex>`
    TagIndexEntry(RepositoryName, Tag, Digest),
    /// `…/tags/<tag>/index/<algorithm>/<hex>/link`: a digest that the tag names or has named.
    TagIndexEntryLink(RepositoryName, Tag, Digest),
    /// `…/<name>/_layers`
    Layers(RepositoryName),
    /// `…/_layers/<algorithm>`
    LayersByAlgorithm(RepositoryName, Algorithm),
    /// `…/_layers/<algorithm>/<hex>`
    Layer(RepositoryName, Digest),
    /// `…/_layers/<algorithm>/<hex>/link`: the repository has the blob.
    LayerLink(RepositoryName, Digest),
    /// `…/<name>/_uploads`
    Uploads(RepositoryName),
    /// `…/_uploads/<id>`
    Upload(RepositoryName, UploadId),
    /// `…/_uploads/<id>/data`: the bytes so far.
    UploadData(RepositoryName, UploadId),
    /// `…/_uploads/<id>/startedat`: an RFC 3339 time.
    UploadStartedAt(RepositoryName, UploadId),
    /// `…/_uploads/<id>/hashstates`
    UploadHashAlgorithms(RepositoryName, UploadId),
    /// `…/_uploads/<id>/hashstates/<algorithm>`
    UploadHashStates(RepositoryName, UploadId, Algorithm),
    /// `…/_uploads/<id>/hashstates/<algorithm>/<offset>`: the digester's state after that many bytes.
    UploadHashState(RepositoryName, UploadId, Algorithm, u64),
    /// `…/blobs`
    Blobs,
    /// `…/blobs/<algorithm>`
    BlobsByAlgorithm(Algorithm),
    /// `…/blobs/<algorithm>/<xx>`
    BlobShard(Algorithm, Shard),
    /// `…/blobs/<algorithm>/<xx>/<hex>`
    Blob(Digest),
    /// `…/blobs/<algorithm>/<xx>/<hex>/data`: the bytes of a blob or manifest.
    BlobData(Digest),
}

/// An upload's id: a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(pub Uuid);

/// The first byte of a digest, by which blobs are spread over 256 folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u8);

impl RegistryPath {
    /// The path as drivers take it.
    #[must_use]
    pub fn to_driver_path(&self) -> DriverPath {
        DriverPath::from_valid(&self.to_string())
    }

    /// The repository in which it lies, where the path tells.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Root
            | Self::Docker
            | Self::Registry
            | Self::Version
            | Self::Repositories
            | Self::Blobs
            | Self::BlobsByAlgorithm(_)
            | Self::BlobShard(..)
            | Self::Blob(_)
            | Self::BlobData(_) => None,
            Self::Repository(name)
            | Self::Manifests(name)
            | Self::Revisions(name)
            | Self::RevisionsByAlgorithm(name, _)
            | Self::Revision(name, _)
            | Self::RevisionLink(name, _)
            | Self::Tags(name)
            | Self::Tag(name, _)
            | Self::TagCurrent(name, _)
            | Self::TagCurrentLink(name, _)
            | Self::TagIndex(name, _)
            | Self::TagIndexByAlgorithm(name, ..)
            | Self::TagIndexEntry(name, ..)
            | Self::TagIndexEntryLink(name, ..)
            | Self::Layers(name)
            | Self::LayersByAlgorithm(name, _)
            | Self::Layer(name, _)
            | Self::LayerLink(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::UploadData(name, _)
            | Self::UploadStartedAt(name, _)
            | Self::UploadHashAlgorithms(name, _)
            | Self::UploadHashStates(name, ..)
            | Self::UploadHashState(name, ..) => Some(name),
        }
    }
}

impl fmt::Display for RegistryPath {
    /// The layout as a table; `parse` reads it the other way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const R: &str = "/docker/registry/v2/repositories";
        const B: &str = "/docker/registry/v2/blobs";
        match self {
            Self::Root => f.write_str("/"),
            Self::Docker => f.write_str("/docker"),
            Self::Registry => f.write_str("/docker/registry"),
            Self::Version => f.write_str("/docker/registry/v2"),
            Self::Repositories => f.write_str(R),
            Self::Repository(n) => write!(f, "{R}/{n}"),
            Self::Manifests(n) => write!(f, "{R}/{n}/_manifests"),
            Self::Revisions(n) => write!(f, "{R}/{n}/_manifests/revisions"),
            Self::RevisionsByAlgorithm(n, a) => write!(f, "{R}/{n}/_manifests/revisions/{a}"),
            Self::Revision(n, d) => write!(f, "{R}/{n}/_manifests/revisions/{}", Parts(d)),
            Self::RevisionLink(n, d) => write!(f, "{R}/{n}/_manifests/revisions/{}/link", Parts(d)),
            Self::Tags(n) => write!(f, "{R}/{n}/_manifests/tags"),
            Self::Tag(n, t) => write!(f, "{R}/{n}/_manifests/tags/{t}"),
            Self::TagCurrent(n, t) => write!(f, "{R}/{n}/_manifests/tags/{t}/current"),
            Self::TagCurrentLink(n, t) => write!(f, "{R}/{n}/_manifests/tags/{t}/current/link"),
            Self::TagIndex(n, t) => write!(f, "{R}/{n}/_manifests/tags/{t}/index"),
            Self::TagIndexByAlgorithm(n, t, a) => write!(f, "{R}/{n}/_manifests/tags/{t}/index/{a}"),
            Self::TagIndexEntry(n, t, d) => write!(f, "{R}/{n}/_manifests/tags/{t}/index/{}", Parts(d)),
            Self::TagIndexEntryLink(n, t, d) => {
                write!(f, "{R}/{n}/_manifests/tags/{t}/index/{}/link", Parts(d))
            }
            Self::Layers(n) => write!(f, "{R}/{n}/_layers"),
            Self::LayersByAlgorithm(n, a) => write!(f, "{R}/{n}/_layers/{a}"),
            Self::Layer(n, d) => write!(f, "{R}/{n}/_layers/{}", Parts(d)),
            Self::LayerLink(n, d) => write!(f, "{R}/{n}/_layers/{}/link", Parts(d)),
            Self::Uploads(n) => write!(f, "{R}/{n}/_uploads"),
            Self::Upload(n, id) => write!(f, "{R}/{n}/_uploads/{id}"),
            Self::UploadData(n, id) => write!(f, "{R}/{n}/_uploads/{id}/data"),
            Self::UploadStartedAt(n, id) => write!(f, "{R}/{n}/_uploads/{id}/startedat"),
            Self::UploadHashAlgorithms(n, id) => write!(f, "{R}/{n}/_uploads/{id}/hashstates"),
            Self::UploadHashStates(n, id, a) => write!(f, "{R}/{n}/_uploads/{id}/hashstates/{a}"),
            Self::UploadHashState(n, id, a, at) => write!(f, "{R}/{n}/_uploads/{id}/hashstates/{a}/{at}"),
            Self::Blobs => f.write_str(B),
            Self::BlobsByAlgorithm(a) => write!(f, "{B}/{a}"),
            Self::BlobShard(a, shard) => write!(f, "{B}/{a}/{shard}"),
            Self::Blob(d) => write!(f, "{B}/{}/{}/{}", d.algorithm(), Shard::of(d), d.hex()),
            Self::BlobData(d) => write!(f, "{B}/{}/{}/{}/data", d.algorithm(), Shard::of(d), d.hex()),
        }
    }
}

/// A digest as two parts of a path.
struct Parts<'a>(&'a Digest);

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.algorithm(), self.0.hex())
    }
}

impl UploadId {
    /// A new id of 122 random bits: who knows it may go on with the upload, so it must not be guessable.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The same with its last four bytes in place of as many random ones: 90 random bits are left.
    #[must_use]
    pub fn marked(self, mark: u32) -> Self {
        let rest = self.0.as_u128() >> 32 << 32;
        Self(Uuid::from_u128(rest | u128::from(mark)))
    }

    /// Its last four bytes.
    #[must_use]
    pub fn mark(self) -> u32 {
        self.0.as_u128() as u32
    }

    /// Reads the canonical form: lower case, with hyphens. `None` for any other spelling, of which a UUID has many.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Shard {
    /// The folder in which a digest lies.
    #[must_use]
    pub fn of(digest: &Digest) -> Self {
        Self(digest.as_bytes()[0])
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

#[cfg(test)]
mod tests;
