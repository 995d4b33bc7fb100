//! Join tokens: with one a node that has nothing gets its first certificate from a tracker.
//!
//! A token says which role and name its holder gets, until when, and how many nodes may use it; and it has the hash of the
//! authority's certificate, so that its holder knows a tracker of the cluster when it meets one. Whoever holds it may join:
//! it is a secret, for as long as it lasts.

use std::fmt;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use shoal_core::{PeerId, Role};

use crate::spiffe::{NameError, SpiffeId, check_name};
use crate::statement::{Kind, Sealed, StatementError};

/// A token as its holder has it: readable, and not checked.
#[derive(Clone, Debug)]
pub struct JoinToken(Sealed<Claims>);

/// What a token is to allow.
#[derive(Clone, Debug)]
pub struct TokenOrder {
    /// By chance; two tokens of one id are one token.
    pub id: [u8; 16],
    /// The role that its holders get.
    pub role: Role,
    /// What its holders are called.
    pub name: NamePattern,
    /// How many nodes may use it.
    pub uses: u32,
    /// How long it is good for, at most [`JoinToken::MAX_LIFETIME`].
    pub lifetime: Duration,
}

/// A node's name; or one with a `*`, for which each node's own id is put in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern(String);

/// What the authority allows the holder of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which token it is.
    pub id: [u8; 16],
    /// The role of whoever joins by it.
    pub role: Role,
    /// What they are called.
    pub name: NamePattern,
    /// How many nodes may use it.
    pub uses: u32,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    id: String,
    cluster: String,
    role: Role,
    name: NamePattern,
    uses: u32,
    /// In seconds since 1970.
    expires: u64,
    /// SHA-256 of the authority's certificate.
    authority: String,
}

/// Why a token is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is none, or not this authority's.
    #[error("join token refused")]
    Statement(#[from] StatementError),
    /// Its time is over.
    #[error("join token expired {ago} s ago: make a new one with `shoal ca token`")]
    Expired {
        /// How long ago, in seconds.
        ago: u64,
    },
    /// It is of another cluster.
    #[error("join token is of cluster {found:?}, not of {expected:?}")]
    OtherCluster {
        /// The cluster here.
        expected: String,
        /// The token's.
        found: String,
    },
    /// A name that no node can have.
    #[error("a token cannot give that name")]
    Name(#[from] NameError),
    /// All nodes that use it would have one name.
    #[error("a token for {uses} nodes needs a * in its name, for which the id of each is put in: {name:?}")]
    OneNameForMany {
        /// The name.
        name: String,
        /// How many nodes would have it.
        uses: u32,
    },
    /// Nobody could use it.
    #[error("a token for 0 nodes, or for no time, is of no use")]
    Useless,
    /// It would be a secret for too long.
    #[error("a token may be good for {max} days at most", max = JoinToken::MAX_LIFETIME.as_secs() / 86_400)]
    TooLong,
}

impl JoinToken {
    /// Long enough to prepare a batch of machines; what lasts longer leaks.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

    /// Reads a token, and believes nothing of it: only the authority can say whether it is its own.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        Ok(Self(Sealed::read(Kind::TOKEN, text)?))
    }

    /// The line as `shoal ca token` printed it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.text()
    }

    /// The cluster that it is said to be of.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.0.claims.cluster
    }

    /// The role that it is said to give.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.claims.role
    }

    /// Refuses a token whose time is over, so that nobody is asked in vain.
    pub fn check_time(&self, now: SystemTime) -> Result<(), TokenError> {
        match seconds(now).checked_sub(self.0.claims.expires) {
            Some(ago) => Err(TokenError::Expired { ago }),
            None => Ok(()),
        }
    }

    /// Whether the token's holder may take this for the authority's certificate.
    pub(crate) fn pins(&self, certificate: &CertificateDer<'_>) -> bool {
        self.0.claims.authority == fingerprint(certificate)
    }

    /// What one of these authorities allows with this token.
    pub(crate) fn grant(
        &self,
        cluster: &str,
        authorities: &[PeerId],
        now: SystemTime,
    ) -> Result<Grant, TokenError> {
        let claims = self.0.by(Kind::TOKEN, authorities)?;
        if claims.cluster != cluster {
            let (expected, found) = (cluster.to_owned(), claims.cluster.clone());
            return Err(TokenError::OtherCluster { expected, found });
        }
        self.check_time(now)?;
        let mut id = [0; 16];
        let form = || StatementError::Form { kind: Kind::TOKEN.name };
        let length = HEXLOWER.decode_len(claims.id.len()).map_err(|_| form())?;
        let slot = id.get_mut(..length).filter(|slot| slot.len() == 16).ok_or_else(form)?;
        HEXLOWER.decode_mut(claims.id.as_bytes(), slot).map_err(|_| form())?;
        let Claims { role, ref name, uses, expires, .. } = *claims;
        Ok(Grant { id, role, name: name.clone(), uses, expires })
    }
}

impl TokenOrder {
    pub(crate) fn claims(
        self,
        cluster: &str,
        authority: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<Claims, TokenError> {
        if self.uses == 0 || self.lifetime.as_secs() == 0 {
            return Err(TokenError::Useless);
        }
        if self.lifetime > JoinToken::MAX_LIFETIME {
            return Err(TokenError::TooLong);
        }
        if self.uses > 1 && !self.name.0.contains('*') {
            return Err(TokenError::OneNameForMany { name: self.name.0, uses: self.uses });
        }
        Ok(Claims {
            id: HEXLOWER.encode(&self.id),
            cluster: cluster.to_owned(),
            role: self.role,
            name: self.name,
            uses: self.uses,
            expires: seconds(now) + self.lifetime.as_secs(),
            authority: fingerprint(authority),
        })
    }
}

impl NamePattern {
    /// A name, with one `*` at most.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_name(&text.replacen('*', &PeerId::from_public_key([0; 32]).to_string(), 1))?;
        Ok(Self(text.to_owned()))
    }

    /// What a node is called that joins by it.
    #[must_use]
    pub fn name_of(&self, node: &PeerId) -> String {
        self.0.replacen('*', &node.to_string(), 1)
    }
}

impl Grant {
    pub(crate) fn subject(&self, cluster: &str, node: &PeerId) -> Result<SpiffeId, NameError> {
        SpiffeId::new(cluster, self.role, &self.name.name_of(node))
    }
}

impl TryFrom<String> for NamePattern {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    HEXLOWER.encode(digest(&SHA256, certificate).as_ref())
}

/// Since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
