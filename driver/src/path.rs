//! Driver paths: the names under which a storage driver keeps content.
//!
//! A path that exists is valid, so no driver checks one again: absolute, no empty part, no `.` and no `..`, nothing but
//! ASCII letters, digits, `.`, `_` and `-`, and bounded. What a path means to a registry is told by `registry_path`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A driver path: `/`, or `(/[A-Za-z0-9._-]+)+` without the parts `.` and `..`.
///
/// The grammar is that of distribution's drivers, which accept `.` and `..` and so let a path leave the root; here they
/// are refused. Paths are ordered as a walk meets them: `/` comes before every other character.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DriverPath(Arc<str>);

/// Why a text is no driver path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("driver path {path:?} is not valid: {fault}")]
pub struct InvalidDriverPath {
    /// The beginning of what was given.
    pub path: String,
    /// What is wrong with it.
    pub fault: PathFault,
}

/// The rule that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It does not start with `/`.
    #[error("it must start with /")]
    Relative,
    /// Two `/` in a row, or one at the end.
    #[error("a part is empty")]
    EmptyPart,
    /// A part that means another folder to a file system.
    #[error("the parts . and .. are not allowed")]
    DotPart,
    /// A character outside of the grammar.
    #[error("parts are made of A-Z a-z 0-9 . _ -")]
    Character,
    /// A part longer than [`DriverPath::MAX_PART_LENGTH`].
    #[error("a part is longer than {max} bytes", max = DriverPath::MAX_PART_LENGTH)]
    PartTooLong,
    /// Longer than [`DriverPath::MAX_LENGTH`].
    #[error("it is longer than {max} bytes", max = DriverPath::MAX_LENGTH)]
    TooLong,
}

impl DriverPath {
    /// The longest path in bytes: Linux' `PATH_MAX`.
    pub const MAX_LENGTH: usize = 4096;
    /// The longest part in bytes: `NAME_MAX` of common file systems.
    pub const MAX_PART_LENGTH: usize = 255;

    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, InvalidDriverPath> {
        match check(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(fault) => Err(InvalidDriverPath { path: text.chars().take(80).collect(), fault }),
        }
    }

    /// `/`, which every driver has.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// A path made of parts that are valid by their types.
    pub(crate) fn from_valid(text: &str) -> Self {
        debug_assert_eq!(check(text), Ok(()), "{text:?}");
        Self(text.into())
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The path one part below.
    pub fn child(&self, part: &str) -> Result<Self, InvalidDriverPath> {
        let base = if self.is_root() { "" } else { self.as_str() };
        let text = format!("{base}/{part}");
        if part.contains('/') {
            return Err(InvalidDriverPath { path: text, fault: PathFault::Character });
        }
        Self::parse(&text)
    }

    /// The path one part above; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.split()?;
        Some(if parent.is_empty() { Self::root() } else { Self(parent.into()) })
    }

    /// The last part; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        Some(self.split()?.1)
    }

    /// The parts, from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// Whether it is `ancestor` or lies below it. `/ab` is not within `/a`.
    #[must_use]
    pub fn is_within(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(ancestor.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn split(&self) -> Option<(&str, &str)> {
        if self.is_root() { None } else { self.0.rsplit_once('/') }
    }
}

impl Ord for DriverPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(other.parts())
    }
}

impl PartialOrd for DriverPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for DriverPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DriverPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DriverPath {
    type Err = InvalidDriverPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn check(text: &str) -> Result<(), PathFault> {
    if text.len() > DriverPath::MAX_LENGTH {
        return Err(PathFault::TooLong);
    }
    let parts = text.strip_prefix('/').ok_or(PathFault::Relative)?;
    if parts.is_empty() { Ok(()) } else { parts.split('/').try_for_each(check_part) }
}

fn check_part(part: &str) -> Result<(), PathFault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match part {
        "" => Err(PathFault::EmptyPart),
        "." | ".." => Err(PathFault::DotPart),
        _ if part.len() > DriverPath::MAX_PART_LENGTH => Err(PathFault::PartTooLong),
        _ if !part.bytes().all(allowed) => Err(PathFault::Character),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> DriverPath {
        DriverPath::parse(text).unwrap()
    }

    #[test]
    fn paths_of_the_grammar_are_accepted() {
        for text in ["/", "/a", "/a.a", "/.abc", "/abc./a", "/_.abc", "/a--b/0-9/c.75", "/...", "/..a"] {
            assert_eq!(path(text).as_str(), text);
        }
        path(&format!("/{}", "a".repeat(255)));
        path(&"/a".repeat(2048));
    }

    #[test]
    fn each_broken_rule_is_named() {
        let cases: &[(&str, PathFault)] = &[
            ("", PathFault::Relative),
            ("abc", PathFault::Relative),
            ("..", PathFault::Relative),
            ("//a", PathFault::EmptyPart),
            ("/a/", PathFault::EmptyPart),
            ("/a//b", PathFault::EmptyPart),
            ("/..", PathFault::DotPart),
            ("/a/../b", PathFault::DotPart),
            ("/a/.", PathFault::DotPart),
            ("/a b", PathFault::Character),
            ("/a\0", PathFault::Character),
            ("/%2e%2e", PathFault::Character),
            ("/a\\b", PathFault::Character),
            ("/é", PathFault::Character),
        ];
        for (text, fault) in cases {
            assert_eq!(DriverPath::parse(text).unwrap_err().fault, *fault, "{text:?}");
        }
        assert_eq!(
            DriverPath::parse(&format!("/{}", "a".repeat(256))).unwrap_err().fault,
            PathFault::PartTooLong
        );
        assert_eq!(DriverPath::parse(&"/a".repeat(2049)).unwrap_err().fault, PathFault::TooLong);
    }

    #[test]
    fn parent_and_name_take_a_path_apart() {
        let deep = path("/a/b");
        assert_eq!((deep.parent(), deep.name()), (Some(path("/a")), Some("b")));
        assert_eq!((path("/a").parent(), path("/a").name()), (Some(DriverPath::root()), Some("a")));
        assert_eq!((DriverPath::root().parent(), DriverPath::root().name()), (None, None));
    }

    #[test]
    fn a_child_is_exactly_one_part_further() {
        assert_eq!(path("/a").child("b").unwrap(), path("/a/b"));
        assert_eq!(DriverPath::root().child("b").unwrap(), path("/b"));
        for part in ["", "..", ".", "b/c", "/b", "b/"] {
            assert!(path("/a").child(part).is_err(), "{part:?}");
        }
    }

    #[test]
    fn within_goes_by_whole_parts() {
        assert!(path("/a/b").is_within(&path("/a")) && path("/a").is_within(&path("/a")));
        assert!(path("/a").is_within(&DriverPath::root()));
        assert!(!path("/ab").is_within(&path("/a")) && !path("/a").is_within(&path("/a/b")));
    }

    #[test]
    fn a_slash_sorts_before_every_other_character() {
        let sorted = ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/a.b", "/ab"].map(path);
        assert!(sorted.is_sorted());
    }

    proptest! {
        #[test]
        fn what_parses_is_made_of_its_parts(text in "(/[a.]{0,3}){0,4}") {
            if let Ok(path) = DriverPath::parse(&text) {
                prop_assert_eq!(path.as_str(), &text);
                let rebuilt = path.parts().try_fold(DriverPath::root(), |path, part| path.child(part));
                prop_assert_eq!(rebuilt.unwrap(), path);
            }
        }

        #[test]
        fn no_text_panics_the_parser(text: String) {
            let _ = DriverPath::parse(&text);
        }
    }
}
