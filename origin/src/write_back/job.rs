//! What there is to write: which link or tag changed. How it is now is looked up when it is written.

use serde::{Deserialize, Serialize};
use shoal_control::cluster::message::{LinkName, LinkTo, TagName};
use shoal_core::{Digest, RepositoryName};

use crate::backend::Key;

/// A link with its blob, or a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Job {
    Link(LinkName),
    Tag(TagName),
}

impl Job {
    /// By what the queue knows it, and operators.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Link(LinkName { repository, to: LinkTo::Layer, digest }) => {
                format!("blob {repository}@{digest}")
            }
            Self::Link(LinkName { repository, to: LinkTo::Revision, digest }) => {
                format!("manifest {repository}@{digest}")
            }
            Self::Tag(TagName { repository, tag }) => format!("tag {repository}:{tag}"),
        }
    }

    pub(super) fn repository(&self) -> &RepositoryName {
        match self {
            Self::Link(name) => &name.repository,
            Self::Tag(name) => &name.repository,
        }
    }

    /// By what its place among the origins is decided.
    pub(super) fn place(&self) -> Digest {
        match self {
            Self::Link(name) => name.digest,
            Self::Tag(name) => Digest::sha256(format!("{}:{}", name.repository, name.tag).as_bytes()),
        }
    }
}

impl From<Key> for Option<Job> {
    fn from(key: Key) -> Self {
        match key {
            Key::Link(name) => Some(Job::Link(name)),
            Key::Tag(name) => Some(Job::Tag(name)),
            Key::Blob(_) => None,
        }
    }
}
