//! Conditional requests: a digest is the perfect entity tag (RFC 9110, section 13).

use shoal_core::Digest;
use shoal_driver::{Freshness, TagExpectation};

/// The entity tag of what has that digest.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether `If-None-Match` names it: then the client has it already. Some clients leave the quotes out.
pub(super) fn is_known_to_client(if_none_match: Option<&str>, digest: &Digest) -> bool {
    let digest = digest.to_string();
    let names = |tag: &str| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == digest
    };
    if_none_match.is_some_and(|tags| tags.split(',').any(names))
}

/// Whether `If-Range` lets a range through: it names the same bytes, or is not there.
pub(super) fn allows_range(if_range: Option<&str>, digest: &Digest) -> bool {
    if_range.is_none_or(|tag| tag.trim() == entity_tag(digest))
}

/// What a tag must name for a PUT with these headers to be made (RFC 9110, sections 13.1.1 and 13.1.2).
pub(super) fn expectation(
    if_match: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<TagExpectation, &'static str> {
    let present = match if_match {
        None => TagExpectation::anything(),
        Some(tags) if tags.trim() == "*" => TagExpectation::something(),
        Some(tags) => TagExpectation::one_of(digests(tags)?),
    };
    match if_none_match {
        None => Ok(present),
        Some(tags) if tags.trim() == "*" => Ok(present.and(&TagExpectation::nothing())),
        Some(_) => Err("If-None-Match of a PUT can only be *: the tag must not be there"),
    }
}

/// The entity tags of a list, which must be strong ones; those that are no digests are no manifest's.
fn digests(tags: &str) -> Result<Vec<Digest>, &'static str> {
    let tags: Vec<_> = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if tags.is_empty() {
        return Err("If-Match names no entity tag: it is * or digests in quotes");
    }
    Ok(tags.into_iter().filter_map(|tag| Digest::parse(tag.trim_matches('"')).ok()).collect())
}

/// What is said with a tag that may have moved (RFC 7234, section 5.5).
pub(super) fn warning(freshness: Freshness) -> Option<&'static str> {
    match freshness {
        Freshness::Current => None,
        Freshness::Unconfirmed => Some(
            r#"110 shoal "too few origins, or no upstream, answer to confirm this tag; it may have moved""#,
        ),
        Freshness::Remembered => {
            Some(r#"111 shoal "no origin answers; this is what the tag named when one did""#)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_a_put_are_what_the_tag_must_name() {
        let (own, other) = (Digest::sha256(b"own"), Digest::sha256(b"other"));
        let one = format!("\"{own}\"");
        let both = format!("\"{own}\", \"{other}\"");
        let allows = |matches: Option<&str>, differs: Option<&str>| {
            let expected = expectation(matches, differs).unwrap();
            [None, Some(&own), Some(&other)].map(|current| expected.allows(current))
        };
        assert_eq!(allows(None, None), [true, true, true]);
        assert_eq!(allows(Some("*"), None), [false, true, true]);
        assert_eq!(allows(None, Some("*")), [true, false, false]);
        assert_eq!(allows(Some(&one), None), [false, true, false]);
        assert_eq!(allows(Some(&both), None), [false, true, true]);
        assert_eq!(allows(Some("\"x\", W/\"y\""), None), [false, false, false]);
        assert_eq!(allows(Some(&one), Some("*")), [false, false, false]);
        for (matches, differs) in [(Some(""), None), (None, Some(one.as_str())), (None, Some(""))] {
            assert!(expectation(matches, differs).is_err());
        }
    }

    #[test]
    fn a_tag_is_found_in_every_way_that_clients_write_it() {
        let (own, other) = (Digest::sha256(b"own"), Digest::sha256(b"other"));
        for tags in [
            format!("\"{own}\""),
            format!("W/\"{own}\""),
            format!("\"{other}\", \"{own}\""),
            own.to_string(),
            "*".into(),
        ] {
            assert!(is_known_to_client(Some(&tags), &own), "{tags}");
        }
        for tags in [format!("\"{other}\""), String::new(), "\"\"".into()] {
            assert!(!is_known_to_client(Some(&tags), &own), "{tags}");
        }
        assert!(!is_known_to_client(None, &own));
        assert!(allows_range(None, &own) && allows_range(Some(&entity_tag(&own)), &own));
        assert!(!allows_range(Some(&entity_tag(&other)), &own));
    }
}
