//! The origins of a cluster among each other: what one asks another, and the client that asks.
//!
//! Each question goes to one origin, which answers for itself and asks nobody. Whom to ask is for the caller to decide.

pub mod message;

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_core::{Digest, PeerAddress, RepositoryName, Role, SignedMetainfo};
use shoal_identity::Identity;

use self::message::{
    BlobName, BlobQuery, Copy, CopyReason, CopyState, LinkAnswer, LinkDeletion, LinkName, LinkRecord,
    LinkState, MAX_RECORD_LENGTH, MetadataRecord, Probe, Probed, RefillQuery, TagAcceptance, TagBallot,
    TagEntry, TagName, TagPromise, TagRecord, TagVote, UpstreamPause, UpstreamTag, Use, path,
};
use crate::error::{ControlError, Nonsense};
use crate::message::{HashesQuery, HashesReply};
use crate::origin::{blob, read_metainfo};
use crate::server_url::ServerUrl;
use crate::servers::{Call, Servers};

/// Asks the origins of a cluster, each by its place in the configuration. Clones share their connections.
#[derive(Clone, Debug)]
pub struct ClusterClient {
    servers: Servers,
    timeout: Duration,
}

impl ClusterClient {
    /// A client of the origins whose APIs are at `https://host:port` each. An answer may take `timeout`.
    pub fn new(identity: &Identity, origins: Vec<String>, timeout: Duration) -> Result<Self, ControlError> {
        Ok(Self { servers: Servers::new(identity, Role::Origin, origins)?, timeout })
    }

    /// Where each origin is. Those that are named twice in the configuration are there once.
    #[must_use]
    pub fn urls(&self) -> Vec<ServerUrl> {
        self.servers.urls().to_vec()
    }

    /// Whether the origin is there.
    pub async fn probe(&self, place: usize, timeout: Duration) -> Result<Probed, ControlError> {
        self.ask(place, (path::PROBE, timeout, SMALL_REPLY), &Probe {}, "probe".to_owned()).await
    }

    /// Has the origin fetch a blob from `source`, and says how far that is: an answer that is not `Whole` comes after two
    /// seconds or so, and the question is to be put again.
    pub async fn copy(
        &self,
        place: usize,
        metainfo: &SignedMetainfo,
        source: &PeerAddress,
        reason: CopyReason,
    ) -> Result<CopyState, ControlError> {
        let what = format!("copy of {}", metainfo.metainfo.digest());
        let copy = Copy { metainfo: BASE64.encode(&metainfo.encode()), source: source.clone(), reason };
        self.ask(place, (path::COPY, self.timeout.max(COPY_TIMEOUT), SMALL_REPLY), &copy, what).await
    }

    /// Which of the blobs the origin does not have; [`message::MAX_LACKING`] at most may be asked for.
    pub async fn lacking(&self, place: usize, digests: &[Digest]) -> Result<Vec<Digest>, ControlError> {
        let how = (path::LACKING, self.timeout, message::MAX_REQUEST_LENGTH);
        self.ask(place, how, &digests, "missing blobs".to_owned()).await
    }

    /// The metainfo of a blob that the origin itself has. It is of that digest, and otherwise unverified.
    pub async fn metainfo(&self, place: usize, digest: &Digest) -> Result<SignedMetainfo, ControlError> {
        let text = digest.to_string();
        let query = vec![("digest", text.as_str())];
        let max_reply = SignedMetainfo::MAX_ENCODED_LENGTH;
        let (method, body) = (Method::GET, Bytes::new());
        let call = Call { method, path: path::METAINFO, query, body, max_reply, what: blob(None, digest) };
        let read = |reply| read_metainfo(reply, digest);
        Ok(self.servers.ask_at(&call, place, self.timeout, read).await?.0)
    }

    /// Bytes of a blob that the origin itself has, as they come. An error is the end of it.
    pub async fn blob(
        &self,
        place: usize,
        query: &BlobQuery,
    ) -> Result<impl Stream<Item = Result<Bytes, ControlError>> + Send + use<>, ControlError> {
        let (digest, start) = (query.digest.to_string(), query.start.to_string());
        let end = query.end.map(|end| end.to_string());
        let mut pairs = vec![("digest", digest.as_str()), ("start", start.as_str())];
        pairs.extend(end.as_deref().map(|end| ("end", end)));
        self.servers.stream_at(path::BLOB, pairs, blob(None, &query.digest), place, self.timeout).await
    }

    /// Hands a request about an upload over to the origin that has it, as it comes; and gives its answer, as it comes.
    pub async fn hand_over(
        &self,
        place: usize,
        request: http::Request<reqwest::Body>,
    ) -> Result<http::Response<reqwest::Body>, ControlError> {
        self.servers.forward_to(path::REGISTRY, request, place).await
    }

    /// How long a blob is that no origin holds, by what stands behind that one.
    pub async fn refill_length(&self, place: usize, name: &BlobName) -> Result<u64, ControlError> {
        let how = (path::REFILL_LENGTH, REFILL_TIMEOUT, SMALL_REPLY);
        self.ask(place, how, name, blob(name.repository.as_ref(), &name.digest)).await
    }

    /// What is known of a blob that this origin fetches from behind the cluster.
    pub async fn refill_hashes(
        &self,
        place: usize,
        query: &HashesQuery,
    ) -> Result<HashesReply, ControlError> {
        let how = (path::REFILL_HASHES, REFILL_TIMEOUT, HashesReply::MAX_LENGTH);
        self.ask(place, how, query, blob(query.repository.as_ref(), &query.digest)).await
    }

    /// Bytes of a blob that no origin holds: this one fetches it, unless it is at it, and sends them as they come. A source may be
    /// silent for long, so whoever reads looks himself whether the origin is still there. An error is the end of it.
    pub async fn refill(
        &self,
        place: usize,
        query: &RefillQuery,
    ) -> Result<impl Stream<Item = Result<Bytes, ControlError>> + Send + use<>, ControlError> {
        let (digest, start) = (query.digest.to_string(), query.start.to_string());
        let end = query.end.map(|end| end.to_string());
        let mut pairs = vec![("digest", digest.as_str()), ("start", start.as_str())];
        pairs.extend(end.as_deref().map(|end| ("end", end)));
        pairs.extend(query.repository.as_ref().map(|name| ("repository", name.as_str())));
        let what = blob(query.repository.as_ref(), &query.digest);
        self.servers.stream_at(path::REFILL, pairs, what, place, REFILL_TIMEOUT).await
    }

    /// What the origin knows of a link.
    pub async fn link(&self, place: usize, link: &LinkName) -> Result<Option<LinkState>, ControlError> {
        self.ask_small(place, path::LINK, link, || name_of(link)).await
    }

    /// Puts a link at the origin.
    pub async fn put_link(&self, place: usize, record: &LinkRecord) -> Result<LinkAnswer, ControlError> {
        self.ask_small(place, path::PUT_LINK, record, || name_of(&record.name)).await
    }

    /// Deletes a link at the origin.
    pub async fn delete_link(
        &self,
        place: usize,
        deletion: &LinkDeletion,
    ) -> Result<LinkAnswer, ControlError> {
        self.ask_small(place, path::DELETE_LINK, deletion, || name_of(&deletion.name)).await
    }

    /// Has the origin forget a deletion; says whether it did. No origin may have that link any more.
    pub async fn forget_link(&self, place: usize, deletion: &LinkDeletion) -> Result<bool, ControlError> {
        self.ask_small(place, path::FORGET_LINK, deletion, || name_of(&deletion.name)).await
    }

    /// The origin's vote on a tag.
    pub async fn tag(&self, place: usize, tag: &TagName) -> Result<Option<TagVote>, ControlError> {
        self.ask_small(place, path::TAG, tag, || name_of_tag(tag)).await
    }

    /// Announces a ballot on a tag to the origin.
    pub async fn promise_tag(&self, place: usize, ballot: &TagBallot) -> Result<TagPromise, ControlError> {
        self.ask_small(place, path::PROMISE_TAG, ballot, || name_of_tag(&ballot.name)).await
    }

    /// Puts what a tag is to name to the origin's vote.
    pub async fn accept_tag(&self, place: usize, record: &TagRecord) -> Result<TagAcceptance, ControlError> {
        self.ask_small(place, path::ACCEPT_TAG, record, || name_of_tag(&record.name)).await
    }

    /// Has the origin forget a deleted tag, if that is still its vote; says whether it was. All must have voted so.
    pub async fn forget_tag(&self, place: usize, ballot: &TagBallot) -> Result<bool, ControlError> {
        self.ask_small(place, path::FORGET_TAG, ballot, || name_of_tag(&ballot.name)).await
    }

    /// The tags of a repository by the origin's votes.
    pub async fn tags(
        &self,
        place: usize,
        repository: &RepositoryName,
    ) -> Result<Vec<TagEntry>, ControlError> {
        let how = (path::TAGS, self.timeout, message::MAX_TAG_LIST_LENGTH);
        self.ask(place, how, repository, format!("tags of {repository}")).await
    }

    /// All links and tags of the origin. An error is the end of it; without one it ends after [`MetadataRecord::End`].
    pub async fn metadata(
        &self,
        place: usize,
    ) -> Result<impl Stream<Item = Result<MetadataRecord, ControlError>> + Send + use<>, ControlError> {
        let what = "all metadata".to_owned();
        let bytes = self.servers.stream_at(path::METADATA, Vec::new(), what, place, self.timeout).await?;
        let url = self.servers.urls()[place].as_str().to_owned();
        Ok(lines(bytes.boxed()).map(move |line| {
            serde_json::from_slice(&line?).map_err(|error| malformed(url.clone(), error.into()))
        }))
    }

    /// What an upstream's tag names, by the origin that asks the upstream for all.
    pub async fn upstream_tag(&self, place: usize, tag: &TagName) -> Result<UpstreamTag, ControlError> {
        self.ask(place, (path::UPSTREAM_TAG, REFILL_TIMEOUT, SMALL_REPLY), tag, name_of_tag(tag)).await
    }

    /// Has a link put, if the upstream of its repository has what it leads to.
    pub async fn upstream_link(&self, place: usize, link: &LinkName) -> Result<bool, ControlError> {
        self.ask(place, (path::UPSTREAM_LINK, REFILL_TIMEOUT, SMALL_REPLY), link, name_of(link)).await
    }

    /// Tells the origin not to ask an upstream for a while.
    pub async fn pause_upstream(&self, place: usize, pause: &UpstreamPause) -> Result<bool, ControlError> {
        self.ask_small(place, path::UPSTREAM_PAUSE, pause, || format!("pause of {}", pause.upstream)).await
    }

    /// When the manifests of a repository were pulled last at the origin.
    pub async fn upstream_uses(
        &self,
        place: usize,
        repository: &RepositoryName,
    ) -> Result<Vec<Use>, ControlError> {
        let how = (path::UPSTREAM_USES, self.timeout, message::MAX_USES_LENGTH);
        self.ask(place, how, repository, format!("uses of {repository}")).await
    }

    async fn ask_small<T: DeserializeOwned>(
        &self,
        place: usize,
        path: &'static str,
        message: &impl Serialize,
        what: impl Fn() -> String,
    ) -> Result<T, ControlError> {
        self.ask(place, (path, self.timeout, SMALL_REPLY), message, what()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        place: usize,
        (path, timeout, max_reply): (&'static str, Duration, usize),
        message: &impl Serialize,
        what: String,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(message).expect("messages are plain values").into();
        let call = Call { method: Method::POST, path, query: Vec::new(), body, max_reply, what };
        let read = |reply: Bytes| Ok(serde_json::from_slice(&reply)?);
        Ok(self.servers.ask_at(&call, place, timeout, read).await?.0)
    }
}

/// Cuts a stream into its lines, of which none may be longer than a record.
fn lines(
    bytes: stream::BoxStream<'static, Result<Bytes, ControlError>>,
) -> impl Stream<Item = Result<Vec<u8>, ControlError>> + Send {
    stream::try_unfold((bytes, Vec::new()), |(mut bytes, mut buffer): (_, Vec<u8>)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let rest = buffer.split_off(end + 1);
                buffer.pop();
                return Ok(Some((buffer, (bytes, rest))));
            }
            if buffer.len() > MAX_RECORD_LENGTH {
                let limit = MAX_RECORD_LENGTH;
                return Err(malformed("an origin".to_owned(), Nonsense::TooLong { limit }));
            }
            match bytes.try_next().await? {
                Some(more) => buffer.extend_from_slice(&more),
                None => return Ok(None),
            }
        }
    })
}

fn malformed(url: String, source: Nonsense) -> ControlError {
    ControlError::Malformed { what: "all metadata".to_owned(), url, source }
}

fn name_of(link: &LinkName) -> String {
    format!("link to {} in {}", link.digest, link.repository)
}

fn name_of_tag(TagName { repository, tag }: &TagName) -> String {
    format!("tag {tag} of {repository}")
}

/// The longest reply that names one digest.
const SMALL_REPLY: usize = 4 << 10;
/// How long an origin may be silent while it waits for what stands behind it: a source that stalls is asked anew after some
/// pauses, and others are asked after it.
const REFILL_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an origin may take to say how far a copy is: it says so after two seconds, and its disk may be slow.
const COPY_TIMEOUT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &[u8], length: usize) -> Result<Vec<Vec<u8>>, ControlError> {
        let parts: Vec<_> = text.chunks(length).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(lines(stream::iter(parts).boxed()).try_collect())
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_arrive(
            lines in prop::collection::vec("[a-z]{0,9}", 0..9), rest in "[a-z]{0,9}", length in 1usize..20
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let found = cut((text + &rest).as_bytes(), length).unwrap();
            // What has no end is no line: the list was cut there.
            prop_assert_eq!(found, lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let text = vec![b'x'; MAX_RECORD_LENGTH * 4];
        let error = cut(&text, 1000).unwrap_err();
        assert!(matches!(error, ControlError::Malformed { source: Nonsense::TooLong { .. }, .. }));
    }
}
