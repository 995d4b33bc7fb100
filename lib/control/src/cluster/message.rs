//! What the origins of a cluster say to each other, as it is on the wire: JSON, both ways, but for blobs and the list of all
//! metadata, which stream.

use serde::{Deserialize, Serialize};
use shoal_core::{Digest, PeerAddress, PeerId, RepositoryName, SignedMetainfo, Tag};

/// Where each request goes; a `POST` of the message that is named, unless it says otherwise.
pub mod path {
    /// [`super::Probe`], for a [`super::Probed`].
    pub const PROBE: &str = "/v1/cluster/probe";
    /// [`super::Copy`], for a [`super::CopyState`].
    pub const COPY: &str = "/v1/cluster/copy";
    /// A list of digests, for the list of those that the origin does not have whole.
    pub const LACKING: &str = "/v1/cluster/lacking";
    /// `GET` with a [`super::BlobQuery`], for the bytes.
    pub const BLOB: &str = "/v1/cluster/blob";
    /// `GET` with a [`crate::message::MetainfoQuery`] without a repository, for the metainfo of what this origin has itself.
    pub const METAINFO: &str = "/v1/cluster/metainfo";
    /// `GET` with a [`super::RefillQuery`], for the bytes: the origin fetches the blob from what stands behind the cluster, and
    /// sends it on as it comes.
    pub const REFILL: &str = "/v1/cluster/refill";
    /// [`super::BlobName`], for how long the blob is, by what stands behind that origin.
    pub const REFILL_LENGTH: &str = "/v1/cluster/refill/length";
    /// [`crate::message::HashesQuery`], for a [`crate::message::HashesReply`] of what stands behind that origin: it fetches the
    /// blob, unless it is at it or has it.
    pub const REFILL_HASHES: &str = "/v1/cluster/refill/hashes";
    /// [`super::LinkName`], for the digest that it names, or null.
    pub const LINK: &str = "/v1/cluster/link";
    /// [`super::LinkRecord`], for true once it is durable.
    pub const PUT_LINK: &str = "/v1/cluster/link/put";
    /// [`super::LinkName`], for whether there was one.
    pub const DELETE_LINK: &str = "/v1/cluster/link/delete";
    /// [`super::TagName`], for its [`super::TagValue`], or null.
    pub const TAG: &str = "/v1/cluster/tag";
    /// [`super::TagRecord`], for the [`super::TagValue`] that the origin has then: that one, or a newer one.
    pub const PUT_TAG: &str = "/v1/cluster/tag/put";
    /// [`super::TagName`], for whether there was one.
    pub const DELETE_TAG: &str = "/v1/cluster/tag/delete";
    /// A repository's name, for the list of its tags.
    pub const TAGS: &str = "/v1/cluster/tags";
    /// `GET`, for a [`super::MetadataRecord`] a line: all that the origin has.
    pub const METADATA: &str = "/v1/cluster/metadata";
}

/// "Are you there?"
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Probe {}

/// "I am."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Stands for the origins of this one's configuration and for how many have each blob. Where two disagree, they divide
    /// blobs differently.
    pub members: u64,
}

/// "Have a copy of this blob."
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// `SignedMetainfo::encode` in standard base64.
    pub metainfo: String,
    /// Who has the blob. An unspecified IP stands for the one that the connection comes from.
    pub source: PeerAddress,
    /// Why.
    pub reason: CopyReason,
}

/// What a copy is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyReason {
    /// Somebody waits for the acknowledgement of a push.
    Push,
    /// There are too few: after everything else.
    Repair,
}

/// How far a copy is; said when it is whole, and else after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// Proved and durable.
    Whole,
    /// On its way.
    Arriving {
        /// How many pieces have come.
        pieces: u32,
    },
}

/// Which bytes of which blob.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BlobQuery {
    /// The blob.
    pub digest: Digest,
    /// From this byte on.
    #[serde(default)]
    pub start: u64,
    /// Before this byte; `None`: to the end.
    #[serde(default)]
    pub end: Option<u64>,
}

/// A blob that no origin holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobName {
    /// On behalf of which repository it is asked for; `None`: of none in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// The blob.
    pub digest: Digest,
}

/// Which bytes of which blob that no origin holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefillQuery {
    /// As in [`BlobName`].
    #[serde(default)]
    pub repository: Option<RepositoryName>,
    /// The blob.
    pub digest: Digest,
    /// From this byte on.
    #[serde(default)]
    pub start: u64,
    /// Before this byte; `None`: to the end.
    #[serde(default)]
    pub end: Option<u64>,
}

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkTo {
    /// A blob.
    Layer,
    /// A manifest.
    Revision,
}

/// A link, by what it is filed under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkName {
    /// Whose.
    pub repository: RepositoryName,
    /// To what.
    pub to: LinkTo,
    /// Under which digest.
    pub digest: Digest,
}

/// A link and what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The link.
    pub name: LinkName,
    /// What it names.
    pub target: Digest,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TagName {
    /// Whose.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
}

/// A tag and what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The tag.
    pub name: TagName,
    /// What it names.
    pub value: TagValue,
}

/// What a tag names, and since when: the greater version wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagValue {
    /// The manifest.
    pub digest: Digest,
    /// Greater than that of what it replaced.
    pub version: TagVersion,
}

/// When a tag was put, and at which origin, so that no two are equal. The least is that of a tag from before the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TagVersion {
    /// Microseconds since 1970 by that origin's clock, or one more than the version before, whichever is greater.
    pub stamp: u64,
    /// That origin.
    pub by: Option<PeerId>,
}

/// One entry of the list of all metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataRecord {
    /// A link.
    Link(LinkRecord),
    /// A tag.
    Tag(TagRecord),
    /// The end: there is no more. A list without it was cut.
    End,
}

/// The most digests of one question for what is lacking.
pub const MAX_LACKING: usize = 1000;
/// The longest line of the list of all metadata: names and digests are shorter.
pub const MAX_RECORD_LENGTH: usize = 4 << 10;
/// The longest request but a copy's.
pub const MAX_REQUEST_LENGTH: usize = 256 << 10;
/// The longest request for a copy: metainfo in base64, and where to find it.
pub const MAX_COPY_LENGTH: usize = SignedMetainfo::MAX_ENCODED_LENGTH / 3 * 4 + (8 << 10);

impl TagValue {
    /// Whether it replaces the other. Of two without a version the greater digest, so that all origins agree.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.version, self.digest.as_bytes()) > (other.version, other.digest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(stamp: u64, by: Option<u8>, content: &[u8]) -> TagValue {
        let by = by.map(|key| PeerId::from_public_key([key; 32]));
        TagValue { digest: Digest::sha256(content), version: TagVersion { stamp, by } }
    }

    #[test]
    fn of_two_values_of_a_tag_one_is_newer() {
        let rising =
            [value(0, None, b"a"), value(1, Some(1), b"a"), value(1, Some(2), b"a"), value(2, Some(1), b"a")];
        for (at, one) in rising.iter().enumerate() {
            for (other_at, other) in rising.iter().enumerate() {
                assert_eq!(one.is_newer_than(other), at > other_at);
            }
        }
        let (one, other) = (value(0, None, b"one"), value(0, None, b"other"));
        assert!(one.is_newer_than(&other) != other.is_newer_than(&one));
    }
}
