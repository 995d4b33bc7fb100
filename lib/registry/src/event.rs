//! What clients do to a registry's content, told to whoever acts on it: notifications, replication, preheating.

use std::net::SocketAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shoal_core::{Digest, RepositoryName, Tag};

/// Told of what happens in a registry.
#[async_trait]
pub trait Watcher: Send + Sync + 'static {
    /// Whether it is to be told of that at all. Asked for every request.
    fn watches(&self, action: &Action) -> bool;

    /// That happened. The client is answered after it returns: what is durable by then is not lost with this process.
    async fn happened(&self, event: Event);
}

/// Something that happened to a blob, a manifest or a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// The repository, by its name here.
    pub repository: RepositoryName,
    /// The tag, where it was done by tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// What it was done to; not known where a tag was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Who did it.
    pub client: Client,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is in the repository now.
    Push,
    /// A blob of another repository is in this one as well.
    Mount {
        /// The other.
        from: RepositoryName,
    },
    /// Its body is about to be sent.
    Pull,
    /// It is in the repository no more.
    Delete,
}

/// A blob or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its digest.
    pub digest: Digest,
    /// Its kind and length in bytes; not known where it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Its path, in the words of the client.
    pub path: String,
    /// Whether it is a manifest.
    pub is_manifest: bool,
}

/// What a blob or a manifest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its media type.
    pub media_type: String,
    /// Bytes.
    pub length: u64,
}

/// Who asked, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// By which method.
    pub method: String,
    /// The host that it asked, in its own words.
    #[serde(default)]
    pub host: String,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// By which program, in its own words.
    #[serde(default)]
    pub user_agent: String,
    /// Its name, where it proved one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where a request came from: an extension of it that whoever listens puts there.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);
