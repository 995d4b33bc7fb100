//! Nodes: their names, roles, zones and addresses.

use std::cmp::Ordering;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A node's name: its Ed25519 public key, written as a libp2p peer id (`12D3KooW…`).
///
/// The text is base58 of the identity multihash of the key's protobuf (libp2p peer-ids specification).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId([u8; 32]);

/// A text is no peer id of an Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the peer id of an Ed25519 key: expected 12D3KooW…")]
pub struct PeerIdError(String);

/// What a node may do; its certificate says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pulls for the host that it runs on, and passes on what it has.
    Agent,
    /// Takes pushes, keeps every blob, signs metainfo.
    Origin,
    /// Introduces peers to each other.
    Tracker,
}

/// Where a node stands, as its operator names it: a data centre, or a rack in it after a slash (`berlin/rack-7`); empty if
/// nobody said. What one data centre has, its nodes need not fetch over a link that it pays for; a rack's nodes share a switch.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Zone(pub String);

impl Zone {
    /// The data centre: all before the first slash.
    #[must_use]
    pub fn centre(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(centre, _)| centre)
    }

    /// Whether both are in one data centre.
    #[must_use]
    pub fn is_near(&self, other: &Self) -> bool {
        self.centre() == other.centre()
    }
}

/// How to reach a node that exchanges pieces.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PeerAddress {
    /// Who must answer there.
    pub id: PeerId,
    /// What it is.
    pub role: Role,
    /// Where its peer port is, the best address first.
    pub addresses: Vec<SocketAddr>,
    /// Where it stands.
    #[serde(default)]
    pub zone: Zone,
}

/// The order of the bytes. Keys are random, so their beginnings decide, and a comparison of numbers is enough.
impl Ord for PeerId {
    fn cmp(&self, other: &Self) -> Ordering {
        let head = |id: &Self| id.0.first_chunk().map(|head| u64::from_be_bytes(*head));
        head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PeerId {
    /// Identity multihash (0x00) of 36 bytes: the protobuf `{1: Ed25519, 2: <32 bytes>}`.
    const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    /// No text of a peer id is longer.
    const MAX_TEXT_LENGTH: usize = 64;

    /// The name of the holder of that key.
    #[must_use]
    pub fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the base58 text.
    pub fn parse(text: &str) -> Result<Self, PeerIdError> {
        let error = || PeerIdError(text.chars().take(Self::MAX_TEXT_LENGTH).collect());
        if text.len() > Self::MAX_TEXT_LENGTH {
            return Err(error());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| error())?;
        let key = bytes.strip_prefix(&Self::PREFIX).ok_or_else(error)?;
        Ok(Self(key.try_into().map_err(|_| error())?))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&Self::PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Role {
    /// The role's name, as certificates and configurations carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Origin => "origin",
            Self::Tracker => "tracker",
        }
    }

    /// Reads a role's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Agent, Self::Origin, Self::Tracker].into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peer_id_reads_as_libp2p_writes_it() {
        // The all-zero key, as libp2p's own implementations print it.
        let id = PeerId::from_public_key([0; 32]);
        assert_eq!(id.to_string(), "12D3KooW9pNAk8aiBuGVQtWRdbkLmo5qVL3e2h5UxbN2Nz9ttwiw");
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(key: [u8; 32]) {
            let id = PeerId::from_public_key(key);
            prop_assert!(id.to_string().starts_with("12D3KooW"));
            prop_assert_eq!(PeerId::parse(&id.to_string()).unwrap(), id);
        }

        #[test]
        fn other_texts_are_refused(text: String) {
            prop_assert!(PeerId::parse(&text).is_err());
        }
    }
}
