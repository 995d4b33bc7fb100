//! The authority's list of those who are no longer to be let in: nodes by their key, and single certificates.
//!
//! A node is its key, and renewals give that key new certificates; so a list of serial numbers, as X.509 has it, would
//! always be one renewal behind. The list is signed once and checked once, when it is taken in; a connection costs a look
//! into a set. It has a number, and an older list never takes the place of a newer one.

use std::collections::{BTreeSet, HashSet};
use std::time::SystemTime;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};
use shoal_core::PeerId;

use crate::statement::{Kind, Sealed, StatementError};
use crate::token::seconds;

/// A list of the authority, checked.
#[derive(Clone, Debug)]
pub struct Revocations {
    text: String,
    number: u64,
    nodes: HashSet<PeerId>,
    serials: HashSet<Serial>,
}

/// A certificate's serial number, its bytes as X.509 has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

/// A text is no serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no serial number: expected 1 to 20 bytes in hexadecimal, as openssl prints them")]
pub struct SerialError(String);

/// Who is to be kept out from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcast {
    /// A node, with all certificates that its key has or will have.
    Node(PeerId),
    /// One certificate.
    Certificate(Serial),
}

/// Why a list is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The text is none, or not the authority's.
    #[error("revocation list refused")]
    Statement(#[from] StatementError),
    /// It is of another cluster.
    #[error("revocation list is of cluster {found:?}, not of {expected:?}")]
    OtherCluster {
        /// The cluster here.
        expected: String,
        /// The list's.
        found: String,
    },
    /// A newer one is known.
    #[error("revocation list {found} is older than {known}, which is known")]
    Older {
        /// Its number.
        found: u64,
        /// The number of the list that is known.
        known: u64,
    },
    /// More entries than a list may have.
    #[error("a revocation list has room for {max} entries: replace the authority, with `shoal ca init`", max = Revocations::MAX_ENTRIES)]
    Full,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    cluster: String,
    number: u64,
    nodes: BTreeSet<PeerId>,
    serials: BTreeSet<Serial>,
}

impl Revocations {
    /// Where an authority has lost so many nodes, its key is likely to be among what was lost. About 1 MiB of text.
    pub const MAX_ENTRIES: usize = 10_000;
    /// No text of a list is longer, in bytes.
    pub const MAX_LENGTH: usize = Kind::REVOCATIONS.max_length;

    /// Reads a list of one of these authorities.
    pub(crate) fn read(text: &str, cluster: &str, authorities: &[PeerId]) -> Result<Self, RevocationError> {
        let sealed = Sealed::<Claims>::read(Kind::REVOCATIONS, text)?;
        let claims = sealed.by(Kind::REVOCATIONS, authorities)?;
        if claims.cluster != cluster {
            let (expected, found) = (cluster.to_owned(), claims.cluster.clone());
            return Err(RevocationError::OtherCluster { expected, found });
        }
        if claims.nodes.len() + claims.serials.len() > Self::MAX_ENTRIES {
            return Err(RevocationError::Full);
        }
        Ok(Self {
            text: sealed.text().to_owned(),
            number: claims.number,
            nodes: claims.nodes.iter().copied().collect(),
            serials: claims.serials.iter().cloned().collect(),
        })
    }

    /// The list that comes after `last`, with one more to be kept out. Its number is the time where that is later, so that
    /// a list from an authority that came out of a backup still counts as newer.
    pub(crate) fn after(
        last: Option<&Self>,
        cluster: &str,
        outcast: Outcast,
        now: SystemTime,
    ) -> Result<Claims, RevocationError> {
        let mut nodes: BTreeSet<_> = last.iter().flat_map(|list| list.nodes.iter().copied()).collect();
        let mut serials: BTreeSet<_> = last.iter().flat_map(|list| list.serials.iter().cloned()).collect();
        match outcast {
            Outcast::Node(id) => nodes.insert(id),
            Outcast::Certificate(serial) => serials.insert(serial),
        };
        if nodes.len() + serials.len() > Self::MAX_ENTRIES {
            return Err(RevocationError::Full);
        }
        let number = last.map_or(0, |list| list.number.saturating_add(1)).max(seconds(now));
        Ok(Claims { cluster: cluster.to_owned(), number, nodes, serials })
    }

    /// As the authority wrote it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Higher than that of any list before.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() + self.serials.len()
    }

    /// Whether nobody is kept out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this node, or this certificate of it, is to be kept out.
    pub(crate) fn has(&self, node: &PeerId, serial: &[u8]) -> bool {
        self.nodes.contains(node) || self.serials.contains(&Serial::of(serial))
    }
}

impl Serial {
    /// RFC 5280, section 4.1.2.2.
    const MAX_LENGTH: usize = 20;

    /// Reads hexadecimal, with or without colons.
    pub fn parse(text: &str) -> Result<Self, SerialError> {
        let error = || SerialError(text.chars().take(80).collect());
        // Twice the digits, the colons between them, and a zero in front.
        if text.len() > 3 * (Self::MAX_LENGTH + 1) {
            return Err(error());
        }
        let digits = text.replace(':', "");
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| error())?;
        let serial = Self::of(&bytes);
        if (1..=Self::MAX_LENGTH).contains(&serial.0.len()) { Ok(serial) } else { Err(error()) }
    }

    /// A zero in front only says that the number is positive; tools print it or not.
    fn of(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        Self(bytes[zeros..].to_vec())
    }
}

impl TryFrom<String> for Serial {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        Self::parse(&text)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        HEXLOWER_PERMISSIVE.encode(&serial.0)
    }
}

#[cfg(test)]
mod tests;
