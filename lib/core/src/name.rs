//! Repository names, tags, and references (OCI distribution-spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// A repository's name: lower-case components joined by `/`, none of which starts with `_`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

/// A tag: at most 128 characters, letters, digits, `_`, `.`, `-`, not starting with `.` or `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// What names a manifest in a repository. A text with a `:` is a digest, any other a tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By tag: may name another manifest later.
    Tag(Tag),
    /// By digest: for ever the same bytes.
    Digest(Digest),
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "repository name {0:?} is not valid: components of a-z and 0-9, separated inside by one of . _ __ or -, \
         joined by /, at most 255 characters in all"
    )]
    Repository(String),
    /// Not a tag.
    #[error("tag {0:?} is not valid: 1 to 128 of A-Z a-z 0-9 _ . - and not starting with . or -")]
    Tag(String),
    /// Meant as a digest, and none.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl RepositoryName {
    /// The longest name, in bytes: what clients allow, and below the 255 bytes of a file's name.
    pub const MAX_LENGTH: usize = 255;

    /// Reads a name as the specification's grammar has it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let valid = text.len() <= Self::MAX_LENGTH && text.split('/').all(is_component);
        if valid { Ok(Self(text.into())) } else { Err(NameError::Repository(excerpt(text))) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The longest tag, in bytes.
    pub const MAX_LENGTH: usize = 128;

    /// Reads a tag as the specification's grammar has it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let valid = text.len() <= Self::MAX_LENGTH
            && text.bytes().all(inner)
            && text.bytes().next().is_some_and(|first| !matches!(first, b'.' | b'-'));
        if valid { Ok(Self(text.into())) } else { Err(NameError::Tag(excerpt(text))) }
    }

    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reference {
    /// Reads a digest where there is a `:`, and a tag elsewhere.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            Ok(Self::Digest(Digest::parse(text)?))
        } else {
            Ok(Self::Tag(Tag::parse(text)?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(|&byte| alphanumeric(byte)).all(is_separator)
}

/// What may stand between two runs of letters and digits; nothing at all is fine, since runs are split byte by byte.
fn is_separator(bytes: &[u8]) -> bool {
    matches!(bytes, b"" | b"." | b"_" | b"__") || bytes.iter().all(|&byte| byte == b'-')
}

/// At most the first 80 characters of a text from outside, so that an error stays readable.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_type!(RepositoryName);
text_type!(Tag);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_grammar_are_accepted() {
        for name in
            ["a", "library/ubuntu", "a.b/c_d/e__f/g---h", "0/1", "blobs/tags/uploads/manifests", "a-b.c_d"]
        {
            assert_eq!(RepositoryName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "_a",
            "a_",
            "a___b",
            "a..b",
            "a._b",
            "a/.",
            "a/..",
            ".",
            "..",
            "-a",
            "a-",
            "a b",
            "a\0",
            "a:b",
            "a/_uploads/b",
            "é",
        ] {
            assert!(RepositoryName::parse(name).is_err(), "{name:?} was accepted");
        }
        assert!(RepositoryName::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn tags_follow_their_grammar() {
        for tag in ["latest", "_", "A.b-c_d", "current", "link", "sha256", &"x".repeat(128)] {
            assert!(Tag::parse(tag).is_ok(), "{tag:?} was refused");
        }
        for tag in ["", ".a", "-a", "a:b", "a/b", "a b", "é", "..", &"x".repeat(129)] {
            assert!(Tag::parse(tag).is_err(), "{tag:?} was accepted");
        }
    }

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        assert!(matches!(Reference::parse("latest"), Ok(Reference::Tag(_))));
        assert!(matches!(Reference::parse("sha256:totallywrong"), Err(NameError::Digest(_))));
    }

    proptest! {
        #[test]
        fn components_agree_with_a_straightforward_reading(text in "[a-c._-]{0,8}") {
            prop_assert_eq!(is_component(&text), slow_component(&text));
        }
    }

    /// The grammar read one run at a time, as the regular expression does.
    fn slow_component(text: &str) -> bool {
        let mut rest = text;
        loop {
            let run = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
            if run.len() == rest.len() {
                return false;
            }
            if run.is_empty() {
                return true;
            }
            let dashes = run.trim_start_matches('-');
            rest = if dashes.len() < run.len() {
                dashes
            } else if let Some(after) = run.strip_prefix("__") {
                after
            } else {
                &run[1..]
            };
        }
    }
}
