//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`, lower case only (OCI image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// The digest of a blob's bytes: its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256, the algorithm of nearly all images.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// A digest algorithm that a registry of this cluster accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:` between algorithm and value.
    #[error("digest {0:?} has no algorithm: expected sha256:<hex> or sha512:<hex>")]
    NoAlgorithm(String),
    /// The algorithm is not one that is accepted here.
    #[error("digest algorithm {0:?} is not supported: use sha256 or sha512")]
    UnknownAlgorithm(String),
    /// The value has the wrong length, or a character that is not lower-case hexadecimal.
    #[error("digest value must be {expected} lower-case hexadecimal characters, not {found:?}")]
    BadValue {
        /// How many characters the algorithm asks for.
        expected: usize,
        /// What was given.
        found: String,
    },
    /// A saved digester state cannot be taken up again.
    #[error("saved digest state is not valid for {0}")]
    BadState(Algorithm),
}

impl Digest {
    /// Reads `<algorithm>:<lower-case hex>`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(excerpt(text)))?;
        Self::from_hex(Algorithm::parse(algorithm)?, hex)
    }

    /// Reads the value of a digest whose algorithm is known.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        let bad = || DigestError::BadValue { expected: algorithm.hex_length(), found: excerpt(hex) };
        if hex.len() != algorithm.hex_length() {
            return Err(bad());
        }
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| bad())?;
        Self::from_bytes(algorithm, &bytes).ok_or_else(bad)
    }

    /// Makes a digest of raw bytes; `None` where their number is not the algorithm's.
    #[must_use]
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => bytes.try_into().ok().map(Self::Sha256),
            Algorithm::Sha512 => bytes.try_into().ok().map(Self::Sha512),
        }
    }

    /// The SHA-256 digest of `content`.
    #[must_use]
    pub fn sha256(content: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, content)
    }

    /// The digest of `content`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(content);
        digester.finish()
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The value as raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The value as lower-case hexadecimal, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        HEXLOWER.encode(self.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Algorithm {
    /// Reads `sha256` or `sha512`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            other => Err(DigestError::UnknownAlgorithm(excerpt(other))),
        }
    }

    /// The algorithm's name, as digests carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal characters a value has.
    #[must_use]
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Computes a digest of bytes that come in parts; its state can be saved and taken up again.
#[derive(Clone)]
pub struct Digester(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Digester {
    /// A digester that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }

    /// The state in bytes, for [`Digester::restore`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(state) => state.serialize().to_vec(),
            State::Sha512(state) => state.serialize().to_vec(),
        }
    }

    /// Takes up a state that [`Digester::save`] gave.
    pub fn restore(algorithm: Algorithm, saved: &[u8]) -> Result<Self, DigestError> {
        let bad = || DigestError::BadState(algorithm);
        Ok(Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(
                saved.try_into().ok().and_then(|state| Sha256::deserialize(state).ok()).ok_or_else(bad)?,
            ),
            Algorithm::Sha512 => State::Sha512(
                saved.try_into().ok().and_then(|state| Sha512::deserialize(state).ok()).ok_or_else(bad)?,
            ),
        }))
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digester({})", self.algorithm())
    }
}

/// At most the first 80 characters of a text from outside, so that an error stays readable.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn sha256_of_nothing_is_the_known_value() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
    }

    #[test]
    fn whatever_is_not_a_strict_digest_is_refused() {
        let hex = "a".repeat(64);
        for text in [
            String::new(),
            "sha256".into(),
            "sha256:".into(),
            hex.clone(),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha256:{}", "a".repeat(65)),
            format!("sha256:{}g", "a".repeat(63)),
            format!("SHA256:{hex}"),
            format!("md5:{hex}"),
            format!("sha512:{hex}"),
            format!(" sha256:{hex}"),
            format!("sha256:{hex}\n"),
            "sha256:é".repeat(9),
        ] {
            assert!(Digest::parse(&text).is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(content: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &content);
            prop_assert_eq!(Digest::parse(&digest.to_string()).unwrap(), digest);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }

        #[test]
        fn a_saved_digester_goes_on_where_it_was(head: Vec<u8>, tail: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let mut digester = Digester::new(algorithm);
            digester.update(&head);
            let mut resumed = Digester::restore(algorithm, &digester.save()).unwrap();
            resumed.update(&tail);
            prop_assert_eq!(resumed.finish(), Digest::of(algorithm, &[head, tail].concat()));
        }

        #[test]
        fn no_text_panics_the_parser(text: String) {
            let _ = Digest::parse(&text);
        }
    }
}
