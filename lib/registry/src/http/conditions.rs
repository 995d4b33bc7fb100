//! Conditional requests: a digest is the perfect entity tag (RFC 9110, section 13).

use shoal_core::Digest;

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

#[cfg(test)]
mod tests {
    use super::*;

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
