//! What the authority says outside of certificates, signed with its key: one line of text,
//! `shoal-<kind>-1.<base64url of JSON>.<base64url of the signature over all before>`.
//!
//! The authority's key also signs certificates; those begin with the byte 0x30, a statement with its kind, so that neither
//! means anything in place of the other. A text is cut off at the limit of its kind before anything is decoded.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use rcgen::{KeyPair, SigningKey as _};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_core::PeerId;

/// What kind of statement a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// As it stands in the text.
    pub(crate) name: &'static str,
    /// No text of the kind is longer, in bytes.
    pub(crate) max_length: usize,
}

/// A statement that was read. Whether the authority made it is not known before [`Sealed::by`].
#[derive(Clone)]
pub(crate) struct Sealed<T> {
    /// The claims, as far as they can be relied on.
    pub(crate) claims: T,
    text: String,
    signed_length: usize,
    signature: Vec<u8>,
}

/// Why a text is no statement of the authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// More than such a text can have.
    #[error("longer than the {max} bytes that a {kind} can have")]
    TooLong {
        /// What it should be.
        kind: &'static str,
        /// What is allowed.
        max: usize,
    },
    /// Another kind of text, a cut or a damaged one.
    #[error("not a {kind}: copy it whole, as `shoal ca` wrote it")]
    Form {
        /// What it should be.
        kind: &'static str,
    },
    /// Another key signed it, or it was altered.
    #[error("this {kind} was not signed by an authority that is trusted here")]
    Signature {
        /// What it should be.
        kind: &'static str,
    },
}

impl Kind {
    pub(crate) const TOKEN: Self = Self { name: "token", max_length: 2048 };
    /// Room for [`crate::Revocations::MAX_ENTRIES`].
    pub(crate) const REVOCATIONS: Self = Self { name: "revocations", max_length: 2 << 20 };

    fn prefix(self) -> String {
        format!("shoal-{}-1.", self.name)
    }
}

/// Says it in the name of the key's holder.
pub(crate) fn seal<T: Serialize>(kind: Kind, claims: &T, key: &KeyPair) -> Result<String, rcgen::Error> {
    let json = serde_json::to_vec(claims).expect("statements have string keys only and cannot fail");
    let mut text = kind.prefix() + &BASE64URL_NOPAD.encode(&json);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    BASE64URL_NOPAD.encode_append(&signature, &mut text);
    Ok(text)
}

impl<T: DeserializeOwned> Sealed<T> {
    pub(crate) fn read(kind: Kind, text: &str) -> Result<Self, StatementError> {
        let text = text.trim_ascii();
        if text.len() > kind.max_length {
            return Err(StatementError::TooLong { kind: kind.name, max: kind.max_length });
        }
        Self::parse(kind, text).ok_or(StatementError::Form { kind: kind.name })
    }

    fn parse(kind: Kind, text: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let json = signed.strip_prefix(&kind.prefix())?;
        let json = BASE64URL_NOPAD.decode(json.as_bytes()).ok()?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        let claims = serde_json::from_slice(&json).ok()?;
        Some(Self { claims, text: text.to_owned(), signed_length: signed.len(), signature })
    }
}

impl<T> Sealed<T> {
    /// The line itself.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Checks that the holder of one of these keys said it.
    pub(crate) fn by(&self, kind: Kind, authorities: &[PeerId]) -> Result<&T, StatementError> {
        let signed = &self.text.as_bytes()[..self.signed_length];
        let signed_by = |authority: &PeerId| {
            UnparsedPublicKey::new(&ED25519, authority.public_key()).verify(signed, &self.signature).is_ok()
        };
        if authorities.iter().any(signed_by) {
            Ok(&self.claims)
        } else {
            Err(StatementError::Signature { kind: kind.name })
        }
    }
}

/// Without the text: a token is a secret.
impl<T: fmt::Debug> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("claims", &self.claims).finish_non_exhaustive()
    }
}
