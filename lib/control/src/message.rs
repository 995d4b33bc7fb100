//! The requests and replies of trackers and origins, as they are on the wire.
//!
//! Both ends use these types. Readers take fields that they do not know (a newer version wrote them) and check
//! sizes; writers keep to the limits that are named here.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use shoal_core::{Digest, Geometry, PeerAddress, PeerId, PieceHash, RepositoryName, SignedMetainfo, Tag};

use crate::error::Nonsense;

/// Where each request goes.
pub mod path {
    /// `POST` [`super::FindRequest`] to a tracker, for a [`super::FindReply`].
    pub const FIND: &str = "/v1/find";
    /// `POST` [`super::AnnounceRequest`] to a tracker, for an [`super::Announced`].
    pub const ANNOUNCE: &str = "/v1/announce";
    /// `POST` [`super::UnreachableRequest`] to a tracker, for an empty object.
    pub const UNREACHABLE: &str = "/v1/unreachable";
    /// `POST` [`crate::prefetch::PrefetchOrder`] to a tracker, by an origin; `GET` for a [`crate::prefetch::PrefetchReply`].
    pub const PREFETCH: &str = "/v1/prefetch";
    /// `POST` [`super::LeaveRequest`] to a tracker, for an empty object.
    pub const LEAVE: &str = "/v1/leave";
    /// `POST` [`super::EnrolRequest`] to a tracker's enrolment port, without a certificate, for a [`super::CertificateReply`].
    pub const ENROL: &str = "/v1/enrol";
    /// `POST` [`super::RenewRequest`] to a tracker, for a [`super::CertificateReply`].
    pub const RENEW: &str = "/v1/renew";
    /// `GET` from a tracker: the authority's revocation list, as text; 404 while there is none.
    pub const REVOCATIONS: &str = "/v1/revocations";
    /// `GET` with a [`super::MetainfoQuery`] from an origin, for `SignedMetainfo::encode` as it is.
    pub const METAINFO: &str = "/v1/metainfo";
    /// `GET` with a [`super::HashesQuery`] from an origin, for a [`super::HashesReply`]: what is known of a blob that an origin
    /// still receives.
    pub const HASHES: &str = "/v1/hashes";
    /// `GET` with a [`super::TagQuery`] from an origin, for a [`super::TagReply`].
    pub const TAG: &str = "/v1/tag";
    /// `GET` with a [`super::TagsQuery`] from an origin, for a [`super::TagsReply`].
    pub const TAGS: &str = "/v1/tags";
}

/// "Who has this blob?" Answered by 404 if no origin has it (in that repository), by 503 if none can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FindRequest {
    /// The blob must be linked there; `None`: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// The blob.
    pub digest: Digest,
    /// The answer may wait for somebody new. Without it, it comes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub news: Option<News>,
}

/// "Whom you named before I know."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct News {
    /// What the answer before said.
    pub seen: Seen,
    /// How long the answer may take while nobody is new, in milliseconds; a tracker may wait less, or not at all.
    pub wait_ms: u64,
}

/// How much a tracker knew when it answered: it alone can tell what came after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    /// Which tracker, in which of its lives.
    pub tracker: u64,
    /// How many had come to blobs by then.
    pub arrivals: u64,
}

/// What there is to know before the first piece is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindReply<'a> {
    /// `SignedMetainfo::encode` in standard base64.
    pub metainfo: Cow<'a, str>,
    /// Whom to ask, best first; origins last.
    pub peers: Vec<PeerAddress>,
    /// To be said when this is asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// "I cannot connect to these nodes", of whom the tracker said that they may be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachableRequest {
    /// Who did not answer.
    pub peers: Vec<PeerId>,
}

/// "I am here, and have these blobs." The sender is who its certificate says; the body must agree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnnounceRequest<'a> {
    /// Where the sender exchanges pieces. An unspecified IP stands for the one that the connection comes from.
    pub address: Cow<'a, PeerAddress>,
    /// Where an origin's internal API is: `https://host:port`. Agents have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<Cow<'a, str>>,
    /// What the sender has now and had not, or not so complete, at the last announce.
    #[serde(default)]
    pub added: Cow<'a, [Holding]>,
    /// What it has no more.
    #[serde(default)]
    pub removed: Cow<'a, [Digest]>,
    /// Whether `added` replaces all that the sender announced before.
    #[serde(default)]
    pub everything: bool,
    /// Greater than that of whatever the sender said before, to any tracker: microseconds since 1970 by its clock, more or less.
    /// 0: it does not count.
    #[serde(default)]
    pub sequence: u64,
}

/// One blob of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The blob.
    pub digest: Digest,
    /// Whether every piece is there.
    pub complete: bool,
}

/// "I hold this token, and that key." The sender has no certificate yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// As `shoal ca token` printed it.
    pub token: String,
    /// PKCS #10, DER in standard base64: only its key counts.
    pub request: String,
}

/// "My certificate ends soon." Whose it is, says the certificate of the connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RenewRequest {}

/// A node's new certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateReply {
    /// PEM; intermediates, if there are any, after it.
    pub certificate: String,
}

impl EnrolRequest {
    /// A token and a request of a few hundred bytes each; others than our own nodes may ask for more.
    pub const MAX_LENGTH: usize = 16 << 10;
}

impl RenewRequest {
    /// An empty object.
    pub const MAX_LENGTH: usize = 64;
}

impl CertificateReply {
    /// Some certificates of a KiB each.
    pub const MAX_LENGTH: usize = 16 << 10;
}

/// What a tracker answers to an announce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Announce (renew the lease) again after that many milliseconds.
    pub interval_ms: u64,
    /// The tracker does not know what this node holds (it restarted, or the lease ran out): send everything.
    pub send_all: bool,
    /// The number of the revocation list that the tracker has; 0: none. Who has an older one asks for it.
    #[serde(default)]
    pub revocations: u64,
    /// Who else knows what this tracker is told.
    #[serde(default)]
    pub sharing: Sharing,
    /// The latest `sequence` of this node that the trackers know: the next must be greater. 0: they know none.
    #[serde(default)]
    pub sequence: u64,
    /// Orders to fetch something that are for this node, by id: it asks for those that it does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefetch: Vec<u64>,
}

/// Who knows what a tracker is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// All trackers: it is enough to tell one.
    Shared,
    /// All trackers when they can share again; until then only those that are told. All of them should be told everything.
    Cut,
    /// This one: each of the trackers is told of its own share of the blobs.
    #[default]
    #[serde(other)]
    Own,
}

/// "Hand me out no more."
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LeaveRequest {
    /// As in an announce.
    #[serde(default)]
    pub sequence: u64,
}

/// Which metainfo: that of a blob (layer or manifest), if it is linked in the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetainfoQuery {
    /// The blob.
    pub digest: Digest,
    /// Where it must be linked; `None`: the origin has it at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
}

/// What is known of a blob that an origin still receives, beyond the first `known` hashes. The answer waits a while for more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashesQuery {
    /// The blob.
    pub digest: Digest,
    /// Where it must be linked; `None`: the origin has it at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// How many hashes are known already, from the first.
    #[serde(default)]
    pub known: u32,
}

/// What an origin knows of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashesReply {
    /// How the blob is cut. While it arrives, its length is the source's word.
    pub geometry: Geometry,
    /// The hashes that follow those that are known, one after the other in standard base64. They are the word of the origin
    /// that answers, which has not seen all of the blob.
    pub hashes: String,
    /// `SignedMetainfo::encode` in standard base64, once the blob is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metainfo: Option<String>,
}

impl HashesReply {
    /// The most bytes of a reply: all hashes of the largest blob, and its metainfo, in base64.
    pub const MAX_LENGTH: usize =
        (SignedMetainfo::MAX_ENCODED_LENGTH + 32 * Geometry::MAX_PIECES as usize) / 3 * 4 + 1024;
    /// How long an origin waits for more at most. Below the second that each of several origins is given to answer.
    pub const PATIENCE: Duration = Duration::from_millis(500);

    /// The hashes of a blob that arrives.
    #[must_use]
    pub fn arriving(geometry: Geometry, hashes: &[PieceHash]) -> Self {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        Self { geometry, hashes: BASE64.encode(&bytes), metainfo: None }
    }

    /// All that there is to know.
    #[must_use]
    pub fn whole(signed: &SignedMetainfo) -> Self {
        let metainfo = Some(BASE64.encode(&signed.encode()));
        Self { geometry: *signed.metainfo.geometry(), hashes: String::new(), metainfo }
    }

    /// What it says, unverified.
    pub fn read(&self) -> Result<Known, Nonsense> {
        if let Some(metainfo) = &self.metainfo {
            return Ok(Known::Whole(SignedMetainfo::decode(BASE64.decode(metainfo.as_bytes())?.into())?));
        }
        let bytes = BASE64.decode(self.hashes.as_bytes())?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Nonsense::CutHash);
        }
        Ok(Known::Hashes(hashes.iter().copied().map(PieceHash).collect()))
    }
}

/// What a [`HashesReply`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// These follow those that were known.
    Hashes(Vec<PieceHash>),
    /// All of it, signed.
    Whole(SignedMetainfo),
}

/// Which tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagQuery {
    /// In this repository.
    pub repository: RepositoryName,
    /// Of this name.
    pub tag: Tag,
}

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagReply {
    /// The manifest.
    pub digest: Digest,
    /// Whether that is only the newest that the origin could find: too few answered it to know of a newer one.
    #[serde(default)]
    pub unconfirmed: bool,
}

/// Whose tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagsQuery {
    /// This repository's.
    pub repository: RepositoryName,
}

/// A repository's tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagsReply {
    /// All of them, in lexical order.
    pub tags: Vec<Tag>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// For a human.
    pub error: String,
}

impl FindRequest {
    /// The longest body: a repository name, a digest, and room for what newer versions add.
    pub const MAX_LENGTH: usize = 4 << 10;
    /// No tracker lets an answer wait longer, in milliseconds: proxies cut what is silent for a minute.
    pub const MAX_WAIT_MS: u64 = 30_000;
}

impl UnreachableRequest {
    /// The most nodes in one request; more go in several.
    pub const MAX_PEERS: usize = 256;
    /// The longest body: `MAX_PEERS` of 55 bytes each, and room for what newer versions add.
    pub const MAX_LENGTH: usize = 32 << 10;
}

impl FindReply<'_> {
    /// The longest body: metainfo in base64, and 512 KiB for the peers.
    pub const MAX_LENGTH: usize = SignedMetainfo::MAX_ENCODED_LENGTH.div_ceil(3) * 4 + (512 << 10);
    /// The most peers that a reader takes of a reply: several times what a tracker hands out.
    pub const MAX_PEERS: usize = 256;

    /// The text that stands for a metainfo.
    #[must_use]
    pub fn encode_metainfo(signed: &SignedMetainfo) -> String {
        BASE64.encode(&signed.encode())
    }

    /// The metainfo in the reply, **not** verified.
    pub fn decode_metainfo(&self) -> Result<SignedMetainfo, Nonsense> {
        let bytes = BASE64.decode(self.metainfo.as_bytes())?;
        Ok(SignedMetainfo::decode(Bytes::from(bytes))?)
    }
}

impl AnnounceRequest<'_> {
    /// The most blobs, added and removed together, in one request; more go in several.
    pub const MAX_CHANGES: usize = 10_000;
    /// The longest body: `MAX_CHANGES` of the longest digests (180 bytes each), and the sender's addresses.
    pub const MAX_LENGTH: usize = 2 << 20;
    /// The most addresses that a node may have.
    pub const MAX_ADDRESSES: usize = 8;
    /// The longest name of a zone, in bytes.
    pub const MAX_ZONE_LENGTH: usize = 64;
}

impl LeaveRequest {
    /// The longest body.
    pub const MAX_LENGTH: usize = 1 << 10;
}

impl TagsReply {
    /// The longest body: 30,000 of the longest tags, 200,000 of the usual ones.
    pub const MAX_LENGTH: usize = 4 << 20;
}

impl ErrorReply {
    /// The longest body that is read.
    pub const MAX_LENGTH: usize = 4 << 10;

    /// The answer that both servers give when they cannot give a better one.
    #[must_use]
    pub fn response(status: StatusCode, error: impl Into<String>) -> Response<String> {
        let body =
            serde_json::to_string(&Self { error: error.into() }).expect("a struct of one string is JSON");
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::PieceLength;

    use super::*;

    #[test]
    fn the_largest_announce_fits_into_its_limit() {
        let digest = Digest::Sha512([0xff; 64]);
        let request = AnnounceRequest {
            address: Cow::Owned(PeerAddress {
                id: shoal_core::PeerId::from_public_key([0xff; 32]),
                role: shoal_core::Role::Origin,
                addresses: vec!["[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(); 8],
                zone: shoal_core::Zone("z".repeat(AnnounceRequest::MAX_ZONE_LENGTH)),
            }),
            api: Some(Cow::Borrowed("https://origin:1")),
            added: Cow::Owned(vec![Holding { digest, complete: false }; AnnounceRequest::MAX_CHANGES]),
            removed: Cow::Borrowed(&[]),
            everything: true,
            sequence: u64::MAX,
        };
        assert!(serde_json::to_vec(&request).unwrap().len() <= AnnounceRequest::MAX_LENGTH);
    }

    #[test]
    fn fields_of_newer_versions_are_passed_over() {
        let text = r#"{"interval_ms": 5, "send_all": false, "weather": "fine", "sharing": "twice"}"#;
        let announced: Announced = serde_json::from_str(text).unwrap();
        let (sharing, sequence) = (Sharing::Own, 0);
        let prefetch = Vec::new();
        let known =
            Announced { interval_ms: 5, send_all: false, revocations: 0, sharing, sequence, prefetch };
        assert_eq!(announced, known);
    }

    #[test]
    fn what_is_known_of_a_blob_survives_the_wire_and_fits_its_limit() {
        let geometry = Geometry::new(1 << 40, PieceLength::MAX).unwrap();
        let hashes = vec![PieceHash([255; 32]); geometry.piece_count() as usize];
        let reply = HashesReply::arriving(geometry, &hashes);
        let text = serde_json::to_vec(&reply).unwrap();
        assert!(text.len() <= HashesReply::MAX_LENGTH);
        let read: HashesReply = serde_json::from_slice(&text).unwrap();
        assert_eq!((read.geometry, read.read().unwrap()), (geometry, Known::Hashes(hashes)));
        let cut = HashesReply { hashes: BASE64.encode(&[0; 33]), ..reply };
        assert!(matches!(cut.read(), Err(Nonsense::CutHash)));
    }

    #[test]
    fn metainfo_survives_the_wire() {
        let metainfo = shoal_core::Metainfo::of(b"some blob").unwrap();
        let proof =
            shoal_core::Proof { certificate: Bytes::from_static(b"c"), signature: Bytes::from_static(b"s") };
        let signed = SignedMetainfo { metainfo, proof };
        let text = FindReply::encode_metainfo(&signed);
        let reply = FindReply { metainfo: Cow::Borrowed(&text), peers: vec![], seen: None };
        let read: FindReply<'_> = serde_json::from_slice(&serde_json::to_vec(&reply).unwrap()).unwrap();
        assert_eq!(read.decode_metainfo().unwrap(), signed);
    }
}
