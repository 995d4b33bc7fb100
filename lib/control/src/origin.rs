//! The client of the origins' internal API.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use shoal_core::{Digest, PeerId, RepositoryName, Role, SignedMetainfo, Tag};
use shoal_identity::Identity;

use crate::error::{ControlError, Nonsense};
use crate::message::{HashesQuery, HashesReply, TagReply, TagsReply, path};
use crate::server_url::ServerUrl;
use crate::servers::{Call, Server, Servers, Start};

/// Asks an origin, or the next of several when one is away. Clones share their connections.
#[derive(Clone, Debug)]
pub struct OriginClient {
    servers: Servers,
}

impl OriginClient {
    /// A client of the origins whose APIs are at `https://host:port` each. Any of them will do, so the first to be asked is
    /// taken by chance. Without any, every question is answered by `Unavailable`.
    pub fn new(identity: &Identity, origins: Vec<String>) -> Result<Self, ControlError> {
        let servers = Servers::new(identity, Role::Origin, origins)?;
        servers.start_anywhere();
        Ok(Self { servers })
    }

    /// A client of other origins that shares the connections of this one, and waits no longer than `timeout` in all.
    #[must_use]
    pub fn with_origins(&self, origins: impl IntoIterator<Item = ServerUrl>, timeout: Duration) -> Self {
        let servers = self.servers.with_urls(origins, timeout);
        servers.start_anywhere();
        Self { servers }
    }

    /// What a tag names now. An origin that cannot be sure is believed only if no other is, soon.
    pub async fn resolve_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<TagReply, ControlError> {
        let call = Call {
            method: Method::GET,
            path: path::TAG,
            query: vec![("repository", repository.as_str()), ("tag", tag.as_str())],
            body: Bytes::new(),
            max_reply: SMALL_REPLY,
            what: format!("tag {tag} of {repository}"),
        };
        let read = |reply: Bytes| -> Result<TagReply, Nonsense> { Ok(serde_json::from_slice(&reply)?) };
        let (reply, server) = self.servers.ask(&call, Start::LastGood, read).await?;
        if !reply.unconfirmed {
            return Ok(reply);
        }
        let others = (0..self.servers.urls().len()).filter(|&index| index != server.index);
        let mut opinions: FuturesUnordered<_> =
            others.map(|index| self.servers.ask_at(&call, index, SECOND_OPINION, read)).collect();
        while let Some(opinion) = opinions.next().await {
            match opinion {
                Ok((other, _)) if !other.unconfirmed => return Ok(other),
                Err(error @ ControlError::NotFound { .. }) => return Err(error),
                _ => {}
            }
        }
        Ok(reply)
    }

    /// All tags of a repository, in lexical order.
    pub async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, ControlError> {
        let query = vec![("repository", repository.as_str())];
        let what = format!("tags of {repository}");
        let (reply, _): (TagsReply, _) = self
            .ask(path::TAGS, query, TagsReply::MAX_LENGTH, what, |reply| Ok(serde_json::from_slice(&reply)?))
            .await?;
        Ok(reply.tags)
    }

    /// The signed metainfo, if the blob (layer or manifest) is linked in the repository (`None`: if the origin has it at
    /// all), and the id of the origin that gave it. It is of that digest, and otherwise unverified.
    pub async fn metainfo(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<(SignedMetainfo, Option<PeerId>), ControlError> {
        let text = digest.to_string();
        let mut query = vec![("digest", text.as_str())];
        query.extend(repository.map(|name| ("repository", name.as_str())));
        let read = |reply| read_metainfo(reply, digest);
        let (max, what) = (SignedMetainfo::MAX_ENCODED_LENGTH, blob(repository, digest));
        let (signed, server) = self.ask(path::METAINFO, query, max, what, read).await?;
        Ok((signed, server.id))
    }

    /// What an origin knows of a blob that it still receives, beyond the first `known` hashes; waits a while for more.
    pub async fn hashes(&self, query: &HashesQuery) -> Result<HashesReply, ControlError> {
        let (digest, known) = (query.digest.to_string(), query.known.to_string());
        let mut pairs = vec![("digest", digest.as_str()), ("known", known.as_str())];
        pairs.extend(query.repository.as_ref().map(|name| ("repository", name.as_str())));
        let what = format!("hashes of {}", blob(query.repository.as_ref(), &query.digest));
        let read = |reply: Bytes| Ok(serde_json::from_slice(&reply)?);
        Ok(self.ask(path::HASHES, pairs, HashesReply::MAX_LENGTH, what, read).await?.0)
    }

    async fn ask<T>(
        &self,
        path: &'static str,
        query: Vec<(&'static str, &str)>,
        max_reply: usize,
        what: String,
        read: impl Fn(Bytes) -> Result<T, Nonsense>,
    ) -> Result<(T, Server), ControlError> {
        let call = Call { method: Method::GET, path, query, body: Bytes::new(), max_reply, what };
        self.servers.ask(&call, Start::LastGood, read).await
    }
}

/// The longest reply that names one digest.
const SMALL_REPLY: usize = 4 << 10;

/// How long other origins may take to be sure of a tag where one is not. 1 s: what the agent's deadline has left.
const SECOND_OPINION: Duration = Duration::from_secs(1);

/// How errors name a blob.
pub(crate) fn blob(repository: Option<&RepositoryName>, digest: &Digest) -> String {
    repository.map_or_else(|| format!("blob {digest}"), |name| format!("blob {digest} of {name}"))
}

pub(crate) fn read_metainfo(reply: Bytes, digest: &Digest) -> Result<SignedMetainfo, Nonsense> {
    let signed = SignedMetainfo::decode(reply)?;
    if signed.metainfo.digest() != digest {
        return Err(Nonsense::OtherBlob { found: *signed.metainfo.digest() });
    }
    Ok(signed)
}
