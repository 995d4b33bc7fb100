//! Whose an upload session is: noted where its start is, so that a session that was started with credentials goes on only
//! with the same. To everybody else it is unknown.
//!
//! The note is a second line of `startedat`, where there is anything to note. Registries of the same layout that know no
//! owners read the first.

use bytes::Bytes;
use shoal_core::Digest;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A client that has a name, by the digest of the name: what a client calls itself need not be a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(Digest);

/// What a session's `startedat` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    /// `None` where it is no time.
    pub(crate) at: Option<OffsetDateTime>,
    /// `None` for a session of somebody without a name.
    pub(super) owner: Option<Owner>,
}

impl Owner {
    pub(crate) fn of(name: &str) -> Self {
        Self(Digest::sha256(name.as_bytes()))
    }
}

impl Started {
    /// A start now, to the second.
    pub(super) fn now(owner: Option<Owner>) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { at: Some(now.replace_nanosecond(0).unwrap_or(now)), owner }
    }

    pub(crate) fn parse(content: &[u8]) -> Self {
        let text = String::from_utf8_lossy(content);
        let (at, owner) = text.split_once('\n').unwrap_or((&text, ""));
        // A line that is no digest is nobody's: no name has it.
        let nobody = || Owner(Digest::sha256(content));
        let owner = match owner.trim() {
            "" => None,
            owner => Some(Digest::parse(owner).map_or_else(|_| nobody(), Owner)),
        };
        Self { at: OffsetDateTime::parse(at.trim(), &Rfc3339).ok(), owner }
    }

    pub(super) fn to_content(self) -> Bytes {
        let at = self.at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
        self.owner.map_or_else(|| at.clone(), |Owner(digest)| format!("{at}\n{digest}")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_as_it_was_written() {
        for owner in [None, Some(Owner::of("alice")), Some(Owner::of("two\nlines")), Some(Owner::of(""))] {
            let started = Started::now(owner);
            assert_eq!(Started::parse(&started.to_content()), started);
        }
    }

    #[test]
    fn a_start_by_another_registry_is_a_time_and_what_is_no_owner_is_nobody() {
        let plain = Started::parse(b"2026-08-21T10:00:00Z\n");
        assert!(plain.at.is_some() && plain.owner.is_none());
        let odd = Started::parse(b"2026-08-21T10:00:00Z\nalice");
        assert!(odd.at.is_some() && odd.owner.is_some() && odd.owner != Some(Owner::of("alice")));
        assert_eq!(Started::parse(b"soon").at, None);
    }
}
