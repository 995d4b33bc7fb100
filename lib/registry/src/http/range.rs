//! The `Range` header of a blob's request (RFC 9110, section 14).

use std::ops::Range;

/// What of a body is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it: no range was asked for, or one that this server does not serve.
    Whole,
    /// These bytes; at least one.
    Part(Range<u64>),
    /// Nothing that is there.
    Unsatisfiable,
}

impl Selection {
    /// What `header` selects of `size` bytes.
    ///
    /// Several ranges select the whole: an answer with the first one only would be taken for all of them
    /// (zstd:chunked pulls). So does what is no range of bytes, as the RFC asks for. An inverted range selects
    /// nothing, as the conformance suite wants it.
    pub(super) fn parse(header: Option<&str>, size: u64) -> Self {
        let Some((unit, set)) = header.and_then(|header| header.split_once('=')) else {
            return Self::Whole;
        };
        match set.trim().split_once('-') {
            Some((first, last)) if unit.trim().eq_ignore_ascii_case("bytes") => {
                select(first.trim(), last.trim(), size)
            }
            _ => Self::Whole,
        }
    }
}

fn select(first: &str, last: &str, size: u64) -> Selection {
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        _ => return Selection::Whole,
    };
    if range.is_empty() { Selection::Unsatisfiable } else { Selection::Part(range) }
}

/// A number of digits only; one beyond 64 bits is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_select_what_the_rfc_says() {
        use Selection::{Part, Unsatisfiable, Whole};
        for (header, expected) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=500-999", Part(500..1000)),
            ("bytes=500-", Part(500..1000)),
            ("bytes=-1", Part(999..1000)),
            ("bytes=-5000", Part(0..1000)),
            ("bytes=900-5000", Part(900..1000)),
            ("bytes=0-99999999999999999999999", Part(0..1000)),
            ("BYTES = 1-2 ", Part(1..3)),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=5000-10000", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=0-0,2-3", Whole),
            ("bytes=-1,2-3", Whole),
            ("bytes=1-2,", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=--1", Whole),
            ("bytes", Whole),
            ("items=0-1", Whole),
            ("", Whole),
        ] {
            assert_eq!(Selection::parse(Some(header), 1000), expected, "{header}");
        }
        assert_eq!(Selection::parse(None, 1000), Whole);
        assert_eq!(Selection::parse(Some("bytes=0-"), 0), Unsatisfiable);
        let many = format!("bytes={}", vec!["0-0"; 1000].join(","));
        assert_eq!(Selection::parse(Some(&many), 1000), Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_end(header in "bytes=[0-9]{0,22}-[0-9]{0,22}", size: u64) {
            if let Selection::Part(range) = Selection::parse(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn a_range_selects_exactly_the_bytes_between(first in 0u64..300, last in 0u64..300, size in 0u64..200) {
            let expected: Vec<u64> = (0..size).filter(|byte| (first..=last).contains(byte)).collect();
            let selected = match Selection::parse(Some(&format!("bytes={first}-{last}")), size) {
                Selection::Part(range) => range.collect(),
                Selection::Unsatisfiable => vec![],
                Selection::Whole => (0..size).collect(),
            };
            prop_assert_eq!(selected, expected);
        }

        #[test]
        fn a_suffix_selects_the_last_bytes(suffix in 1u64..300, size in 1u64..200) {
            let selected = Selection::parse(Some(&format!("bytes=-{suffix}")), size);
            prop_assert_eq!(selected, Selection::Part(size - suffix.min(size)..size));
        }

        #[test]
        fn no_header_panics(header: String, size: u64) {
            let _ = Selection::parse(Some(&header), size);
        }
    }
}
