//! What trackers say to each other, and keep of each node, in a store that anybody may have written to.
//!
//! Nothing that is read there is believed before it was checked as an announce is; what is wrong is refused as a whole. What a
//! store can do is name nodes that are not there: peers prove who they are to whoever connects, and origins sign metainfo.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_control::Holding;
use shoal_control::message::AnnounceRequest;
use shoal_core::{Digest, PeerAddress, PeerId};
use shoal_identity::Peer;

use crate::admission::admit;
use crate::state::Announce;
use crate::state::replica::{Event, MAX_VERSION, Record, Said, Version};

/// The longest message that is read, and sent: in place of a longer one the others are told to read the node's record.
pub(super) const MAX_MESSAGE: usize = 8 << 10;
/// The longest text that says where a node is: eight addresses, a zone, an API.
pub(super) const MAX_HEAD: usize = 2 << 10;
/// The longest name of a field: a digest.
pub(super) const MAX_FIELD: usize = 160;

/// Where a node is.
#[derive(Debug, Serialize, Deserialize)]
struct Head<'a> {
    address: Cow<'a, PeerAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api: Option<Cow<'a, str>>,
}

/// One message.
#[derive(Debug, Serialize, Deserialize)]
struct Message<'a> {
    node: PeerId,
    version: Version,
    /// The version to which the changes belong; 0: they are everything.
    #[serde(default)]
    base: Version,
    /// Missing where the record is to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<Head<'a>>,
    #[serde(default)]
    added: Cow<'a, [Holding]>,
    #[serde(default)]
    removed: Cow<'a, [Digest]>,
    #[serde(default)]
    left: bool,
}

/// Why what was read does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("longer than such a value can be")]
    TooLong,
    #[error("not the expected JSON")]
    Json(#[from] serde_json::Error),
    #[error("of another node, or of a version that cannot be")]
    Version,
    #[error("a field that is no digest with its state")]
    Field,
    #[error("not what a node can announce: {0}")]
    Announce(String),
}

/// The text of a message.
pub(super) fn message(event: &Event) -> String {
    let Event { id, version, said } = event;
    let empty = Message {
        node: *id,
        version: *version,
        base: 0,
        head: None,
        added: [][..].into(),
        removed: [][..].into(),
        left: false,
    };
    match said {
        Said::Left => written(&Message { left: true, ..empty }),
        Said::Whole => written(&empty),
        Said::Changed { base, announce } => {
            let (added, removed) = (announce.added[..].into(), announce.removed[..].into());
            let long =
                written(&Message { base: *base, head: Some(head_of(announce)), added, removed, ..empty });
            if long.len() <= MAX_MESSAGE {
                long
            } else {
                message(&Event { said: Said::Whole, ..event.clone() })
            }
        }
    }
}

/// Reads one.
pub(super) fn read_message(text: &[u8]) -> Result<Event, Nonsense> {
    if text.len() > MAX_MESSAGE {
        return Err(Nonsense::TooLong);
    }
    let message: Message<'_> = serde_json::from_slice(text)?;
    let Message { node: id, version, base, head, added, removed, left } = message;
    if version == 0 || version > MAX_VERSION || base >= version {
        return Err(Nonsense::Version);
    }
    let said = match head {
        _ if left => Said::Left,
        None => Said::Whole,
        Some(head) => {
            let announce = checked(id, head, added.into(), removed.into(), base == 0)?;
            Said::Changed { base, announce: Box::new(announce) }
        }
    };
    Ok(Event { id, version, said })
}

/// The text that says where a node is.
pub(super) fn head(announce: &Announce) -> String {
    written(&head_of(announce))
}

/// The state of a holding.
pub(super) fn flag(complete: bool) -> &'static str {
    if complete { "1" } else { "0" }
}

/// Reads a node's record out of its fields and their values, which alternate. `None`: the node left.
pub(super) fn read_record(
    id: PeerId,
    left: Duration,
    fields: &[Vec<u8>],
) -> Result<Option<Record>, Nonsense> {
    let (mut version, mut head, mut added) = (0, None, Vec::new());
    for pair in fields.chunks(2) {
        let [name, value] = pair else { return Err(Nonsense::Field) };
        let value = std::str::from_utf8(value).map_err(|_| Nonsense::Field)?;
        match &name[..] {
            b"version" => version = value.parse().map_err(|_| Nonsense::Version)?,
            b"head" if value.len() > MAX_HEAD => return Err(Nonsense::TooLong),
            b"head" => head = Some(serde_json::from_str(value)?),
            digest => added.push(read_holding(digest, value).ok_or(Nonsense::Field)?),
        }
    }
    if version == 0 || version > MAX_VERSION {
        return Err(Nonsense::Version);
    }
    let Some(head) = head else { return Ok(None) };
    let announce = Announce { added, ..checked(id, head, Vec::new(), Vec::new(), true)? };
    Ok(Some(Record { version, left, announce }))
}

fn read_holding(name: &[u8], value: &str) -> Option<Holding> {
    let digest = Digest::parse(std::str::from_utf8(name).ok()?).ok()?;
    let complete = match value {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    Some(Holding { digest, complete })
}

fn checked(
    id: PeerId,
    Head { address, api }: Head<'_>,
    added: Vec<Holding>,
    removed: Vec<Digest>,
    everything: bool,
) -> Result<Announce, Nonsense> {
    let peer = Peer { id, role: address.role, name: String::new() };
    if peer.role == shoal_core::Role::Tracker {
        return Err(Nonsense::Announce("a tracker holds nothing".into()));
    }
    let (added, removed) = (added.into(), removed.into());
    let request = AnnounceRequest { address, api, added, removed, everything, sequence: 0 };
    // Whoever was told has put the address of the connection in the place of an unspecified one.
    admit(&peer, IpAddr::V4(Ipv4Addr::UNSPECIFIED), request)
        .map_err(|refusal| Nonsense::Announce(refusal.to_string()))
}

fn head_of(announce: &Announce) -> Head<'_> {
    let api = announce.api.as_ref().map(|api| api.as_str().into());
    Head { address: Cow::Borrowed(&announce.address), api }
}

fn written(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys are strings, so it cannot fail")
}

#[cfg(test)]
mod tests;
