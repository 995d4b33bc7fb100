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
    /// [`super::LinkName`], for the [`super::LinkState`] that this origin knows, or null.
    pub const LINK: &str = "/v1/cluster/link";
    /// [`super::LinkRecord`], for a [`super::LinkAnswer`] once it is durable.
    pub const PUT_LINK: &str = "/v1/cluster/link/put";
    /// [`super::LinkDeletion`], for a [`super::LinkAnswer`] once it is durable.
    pub const DELETE_LINK: &str = "/v1/cluster/link/delete";
    /// [`super::LinkDeletion`] of a link that no origin has, for true once it is forgotten.
    pub const FORGET_LINK: &str = "/v1/cluster/link/forget";
    /// [`super::TagName`], for the [`super::TagVote`] of this origin, or null.
    pub const TAG: &str = "/v1/cluster/tag";
    /// [`super::TagBallot`], for a [`super::TagPromise`].
    pub const PROMISE_TAG: &str = "/v1/cluster/tag/promise";
    /// [`super::TagRecord`], for a [`super::TagAcceptance`].
    pub const ACCEPT_TAG: &str = "/v1/cluster/tag/accept";
    /// [`super::TagBallot`] of a deleted tag that all origins know as deleted, for true once it is forgotten.
    pub const FORGET_TAG: &str = "/v1/cluster/tag/forget";
    /// A repository's name, for a [`super::TagEntry`] for each tag that this origin knows of.
    pub const TAGS: &str = "/v1/cluster/tags";
    /// Before a path of the registry's API: a request about an upload of that origin, let in by the one that sends it.
    pub const REGISTRY: &str = "/v1/cluster/registry";
    /// `GET`, for a [`super::MetadataRecord`] a line: all that the origin has.
    pub const METADATA: &str = "/v1/cluster/metadata";
    /// [`super::TagName`] of a repository that is an upstream's, for a [`super::UpstreamTag`]: the origin asks the upstream, if it
    /// has to.
    pub const UPSTREAM_TAG: &str = "/v1/cluster/upstream/tag";
    /// [`super::LinkName`] of a repository that is an upstream's, for true once it is put, since the upstream has it.
    pub const UPSTREAM_LINK: &str = "/v1/cluster/upstream/link";
    /// [`super::UpstreamPause`], for whether that is news.
    pub const UPSTREAM_PAUSE: &str = "/v1/cluster/upstream/pause";
    /// A repository's name, for a [`super::Use`] of each of its manifests that was pulled at this origin.
    pub const UPSTREAM_USES: &str = "/v1/cluster/upstream/uses";
}

/// Headers of a request that is handed over ([`path::REGISTRY`]).
pub mod header {
    /// The name of who sent it, in base64; absent for nobody that is known.
    pub const CALLER: &str = "shoal-caller";
    /// From where that was.
    pub const CALLER_ADDRESS: &str = "shoal-caller-address";
    /// The host that it asked.
    pub const CALLER_HOST: &str = "shoal-caller-host";
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

/// A link, what it names, and when it was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The link.
    pub name: LinkName,
    /// What it names.
    pub target: Digest,
    /// Which of its puts that is. The least is that of a link from before the cluster.
    #[serde(default)]
    pub version: LinkVersion,
}

/// A link that was deleted: every put of it up to this version. One that is newer stays, whatever comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDeletion {
    /// The link.
    pub name: LinkName,
    /// The last put that whoever deletes it has seen.
    pub version: LinkVersion,
}

/// What an origin knows of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// What it names; `None`: it was deleted.
    pub target: Option<Digest>,
    /// Its put; where it was deleted, the last one that this undid.
    pub version: LinkVersion,
}

/// When a link was put, and by which origin.
pub type LinkVersion = TagVersion;

/// The answer to a change of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkAnswer {
    /// It is so, durably.
    Done {
        /// Whether this origin has the blob whole, and will not take it for garbage.
        holds: bool,
    },
    /// The origin knows of a put, or of a deletion, that is not older.
    Refused(LinkVersion),
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TagName {
    /// Whose.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
}

/// A tag and an origin's vote on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The tag.
    pub name: TagName,
    /// What it names by that origin.
    pub vote: TagVote,
}

/// A ballot on what a tag names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagBallot {
    /// The tag.
    pub name: TagName,
    /// The ballot.
    pub ballot: TagVersion,
}

/// What an origin voted for last. A value has been chosen once a majority of all origins voted for it in one ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagVote {
    /// In which ballot. No other value is ever put to the vote in it.
    pub ballot: TagVersion,
    /// For what.
    pub value: TagValue,
}

/// What a tag names, and by which writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagValue {
    /// The manifest; `None`: the tag was deleted.
    pub digest: Option<Digest>,
    /// The write that made it so: the ballot in which it was put to the vote first.
    pub version: TagVersion,
    /// The writes before it, the last one first, [`MAX_TAG_WRITES`] at most: whoever does not know what became of its write
    /// finds it here.
    pub before: Vec<TagVersion>,
}

/// When a tag was put to the vote (or a link was put), and by which origin, so that no two are equal. The least is that of one
/// from before the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TagVersion {
    /// Microseconds since 1970 by that origin's clock, or one more than what it has to surpass, whichever is greater.
    pub stamp: u64,
    /// That origin.
    pub by: Option<PeerId>,
}

/// The answer to a ballot that is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagPromise {
    /// The origin votes in no lesser ballot from now on; and its last vote, if it has any.
    Promised(Option<TagVote>),
    /// It has promised that to this one.
    Refused(TagVersion),
}

/// The answer to what is put to the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagAcceptance {
    /// The origin voted for it; that is durable.
    Accepted,
    /// It has promised to vote in no ballot before this one.
    Refused(TagVersion),
}

/// A tag in the list of an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagEntry {
    /// The tag.
    pub tag: Tag,
    /// The ballot of the origin's vote.
    pub ballot: TagVersion,
    /// Whether that was for a manifest; else the tag was deleted.
    pub named: bool,
}

/// What an upstream's tag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTag {
    /// The manifest.
    pub digest: Digest,
    /// The upstream does not answer: it is what the tag named when it did.
    pub unconfirmed: bool,
    /// For how many milliseconds more that is believed.
    pub fresh_for_ms: u64,
}

/// "That upstream says that it is asked too much."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamPause {
    /// The upstream's name.
    pub upstream: String,
    /// For how many milliseconds nobody is to ask it.
    pub for_ms: u64,
}

/// When a manifest was pulled last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The manifest.
    pub digest: Digest,
    /// Seconds since 1970, by that origin's clock.
    pub at: u64,
}

/// One entry of the list of all metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataRecord {
    /// A link.
    Link(LinkRecord),
    /// One that was deleted.
    Unlinked(LinkDeletion),
    /// A tag.
    Tag(TagRecord),
    /// The end: there is no more. A list without it was cut.
    End,
}

/// The most digests of one question for what is lacking.
pub const MAX_LACKING: usize = 1000;
/// How many writes of a tag are remembered in it: more than origins that write one tag between two attempts of another.
pub const MAX_TAG_WRITES: usize = 8;
/// The longest list of tags of one origin: some 200,000.
pub const MAX_TAG_LIST_LENGTH: usize = 32 << 20;
/// The longest list of uses of a repository: some 100,000 manifests.
pub const MAX_USES_LENGTH: usize = 16 << 20;
/// The longest line of the list of all metadata: names and digests are shorter.
pub const MAX_RECORD_LENGTH: usize = 4 << 10;
/// The longest request but a copy's.
pub const MAX_REQUEST_LENGTH: usize = 256 << 10;
/// The longest request for a copy: metainfo in base64, and where to find it.
pub const MAX_COPY_LENGTH: usize = SignedMetainfo::MAX_ENCODED_LENGTH / 3 * 4 + (8 << 10);

impl TagVote {
    /// The vote for a tag from before the cluster.
    #[must_use]
    pub fn before_the_cluster(digest: Digest) -> Self {
        let value = TagValue { digest: Some(digest), version: TagVersion::default(), before: Vec::new() };
        Self { ballot: TagVersion::default(), value }
    }

    /// Whether it replaces the other. Of two from before the cluster the greater digest, so that all origins agree.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let order = |vote: &Self| (vote.ballot, vote.value.digest.map(|digest| digest.as_bytes().to_vec()));
        order(self) > order(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(stamp: u64, by: Option<u8>, content: &[u8]) -> TagVote {
        let version = TagVersion { stamp, by: by.map(|key| PeerId::from_public_key([key; 32])) };
        let value = TagValue { digest: Some(Digest::sha256(content)), version, before: vec![] };
        TagVote { ballot: version, value }
    }

    #[test]
    fn of_two_votes_on_a_tag_one_is_newer() {
        let rising =
            [vote(0, None, b"a"), vote(1, Some(1), b"a"), vote(1, Some(2), b"a"), vote(2, Some(1), b"a")];
        for (at, one) in rising.iter().enumerate() {
            for (other_at, other) in rising.iter().enumerate() {
                assert_eq!(one.is_newer_than(other), at > other_at);
            }
        }
        let (one, other) = (vote(0, None, b"one"), vote(0, None, b"other"));
        assert!(one.is_newer_than(&other) != other.is_newer_than(&one));
    }

    #[test]
    fn the_longest_record_of_a_tag_fits_a_line() {
        let by = Some(PeerId::from_public_key([255; 32]));
        let version = TagVersion { stamp: u64::MAX, by };
        let repository = RepositoryName::parse(&["a"; 128].join("/")).unwrap();
        let name = TagName { repository, tag: Tag::parse(&"t".repeat(128)).unwrap() };
        let digest = Some(Digest::of(shoal_core::Algorithm::Sha512, b""));
        let value = TagValue { digest, version, before: vec![version; MAX_TAG_WRITES] };
        let record = MetadataRecord::Tag(TagRecord { name, vote: TagVote { ballot: version, value } });
        assert!(serde_json::to_vec(&record).unwrap().len() < MAX_RECORD_LENGTH);
    }
}
