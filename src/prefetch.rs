//! `shoal prefetch`, and what the admin port of an origin answers to it: agents are told to fetch an image before anybody pulls it.

mod api;
mod command;

use serde::{Deserialize, Serialize};
use shoal_control::prefetch::{PrefetchState, Share};
use shoal_core::{NameError, Reference, RepositoryName, Tag};

pub(crate) use api::router;
pub(crate) use command::{Options, prefetch};

/// `POST` [`Ordered`] for a [`Progress`]; `GET` for all [`Progress`].
const PATH: &str = "/v1/prefetch";

/// What is to be fetched, and by whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    /// `[host/]repository[:tag]` or `[host/]repository@digest`; the host does not count.
    image: String,
    /// The data centre or rack; empty: anywhere.
    #[serde(default)]
    zone: String,
    /// How many of the agents there.
    #[serde(default)]
    share: Share,
    /// The image for that platform; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    /// How long the order holds.
    #[serde(default = "default_ttl", with = "humantime_serde")]
    ttl: std::time::Duration,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The order's name.
    id: String,
    /// What is fetched.
    image: String,
    /// The data centre or rack; empty: anywhere.
    zone: String,
    /// How many of the agents there.
    share: Share,
    /// How many these are now.
    agents: u64,
    /// How many blobs each is to have.
    blobs: usize,
    /// Bytes that are to be there, of all agents together.
    bytes: u64,
    /// Bytes of blobs that agents have whole.
    bytes_there: u64,
    /// Whether all have all.
    complete: bool,
    /// How long agents are still told, in seconds.
    left_s: u64,
}

impl From<PrefetchState> for Progress {
    fn from(state: PrefetchState) -> Self {
        let (bytes_there, bytes) = state.bytes();
        Self {
            id: format!("{:016x}", state.order.id),
            zone: state.order.selection.zone.0.clone(),
            share: state.order.selection.share,
            agents: state.agents,
            blobs: state.order.blobs.len(),
            bytes,
            bytes_there,
            complete: state.is_complete(),
            left_s: state.order.ttl_ms.div_ceil(1000),
            image: state.order.image,
        }
    }
}

/// Which image of this cluster is meant. A host in front, as others write it, does not count.
fn parse_image(text: &str) -> Result<(RepositoryName, Reference), NameError> {
    let path = match text.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => text,
    };
    if let Some((repository, digest)) = path.split_once('@') {
        let digest = shoal_core::Digest::parse(digest)?;
        return Ok((RepositoryName::parse(repository)?, Reference::Digest(digest)));
    }
    let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
    Ok((RepositoryName::parse(repository)?, Reference::Tag(Tag::parse(tag)?)))
}

fn default_ttl() -> std::time::Duration {
    std::time::Duration::from_secs(3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_with_or_without_a_host() {
        let hex = "a".repeat(64);
        let digest = format!("team/app@sha256:{hex}");
        for (text, repository, reference) in [
            ("app", "app", "latest"),
            ("app:1", "app", "1"),
            ("team/app:1", "team/app", "1"),
            ("localhost/app:1", "app", "1"),
            ("localhost:15000/team/app", "team/app", "latest"),
            ("registry.example.com/team/app:v1", "team/app", "v1"),
            (digest.as_str(), "team/app", &format!("sha256:{hex}")),
        ] {
            let (found, named) = parse_image(text).unwrap();
            assert_eq!((found.as_str(), named.to_string()), (repository, reference.to_owned()), "{text}");
        }
        for bad in ["", ":1", "App:1", "app@sha256:x", "app:"] {
            assert!(parse_image(bad).is_err(), "{bad}");
        }
    }
}
