//! A node's name inside its certificate: `spiffe://<cluster>/<role>/<name>` (SPIFFE-ID specification, section 2).
//!
//! The form is SPIFFE's, so that certificates of cert-manager or a SPIFFE issuer can stand in for our own.

use std::fmt;

use shoal_core::Role;

/// What the URI name of a node's certificate says. Parsing and printing are inverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpiffeId {
    pub(crate) cluster: String,
    pub(crate) role: Role,
    pub(crate) name: String,
}

/// Why a text names no cluster or node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a cluster's name.
    #[error("cluster name {0:?} is not valid: 1 to 64 of a-z 0-9 . _ -")]
    Cluster(String),
    /// Not a node's name.
    #[error("node name {0:?} is not valid: 1 to 253 of A-Z a-z 0-9 . _ - and neither . nor ..")]
    Node(String),
    /// Not of our form at all.
    #[error("{0:?} is not spiffe://<cluster>/<agent|origin|tracker>/<name>")]
    Form(String),
}

impl SpiffeId {
    pub(crate) fn new(cluster: &str, role: Role, name: &str) -> Result<Self, NameError> {
        check_cluster(cluster)?;
        check_name(name)?;
        Ok(Self { cluster: cluster.to_owned(), role, name: name.to_owned() })
    }

    pub(crate) fn parse(uri: &str) -> Result<Self, NameError> {
        let form = || NameError::Form(excerpt(uri));
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(form)?.splitn(3, '/');
        let (Some(cluster), Some(role), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        Self::new(cluster, Role::parse(role).ok_or_else(form)?, name)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.name)
    }
}

/// SPIFFE-ID section 2.1: a trust domain is lower case.
pub(crate) fn check_cluster(text: &str) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || is_mark(byte);
    let valid = (1..=MAX_CLUSTER_LENGTH).contains(&text.len()) && text.bytes().all(inner);
    if valid { Ok(()) } else { Err(NameError::Cluster(excerpt(text))) }
}

/// SPIFFE-ID section 2.2: one path segment, and not a relative one.
pub(crate) fn check_name(text: &str) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || is_mark(byte);
    let valid =
        (1..=MAX_NAME_LENGTH).contains(&text.len()) && text.bytes().all(inner) && !matches!(text, "." | "..");
    if valid { Ok(()) } else { Err(NameError::Node(excerpt(text))) }
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'.' | b'_' | b'-')
}

/// At most the first 80 characters of a text from outside, so that an error stays readable.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

const SCHEME: &str = "spiffe://";
/// The cluster's name is its authority's common name, which X.509 cuts at 64 characters (RFC 5280, ub-common-name).
const MAX_CLUSTER_LENGTH: usize = 64;
/// As long as a host's full name may be, since nodes are mostly called after their host.
const MAX_NAME_LENGTH: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_uris_are_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://prod",
            "spiffe://prod/agent",
            "spiffe://prod/agent/",
            "spiffe://prod/root/a",
            "spiffe://prod/Agent/a",
            "spiffe://Prod/agent/a",
            "spiffe:///agent/a",
            "spiffe://prod/agent/a/b",
            "spiffe://prod/agent/..",
            "spiffe://prod/agent/a?b",
            "spiffe://prod/agent/a%2f",
            "spiffe://prod:443/agent/a",
            "https://prod/agent/a",
            " spiffe://prod/agent/a",
        ] {
            assert!(SpiffeId::parse(uri).is_err(), "{uri:?} was accepted");
        }
        assert!(SpiffeId::new(&"c".repeat(65), Role::Agent, "a").is_err());
        assert!(SpiffeId::new("c", Role::Agent, &"a".repeat(254)).is_err());
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(cluster in "[a-z0-9._-]{1,64}", name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}") {
            for role in [Role::Agent, Role::Origin, Role::Tracker] {
                let id = SpiffeId::new(&cluster, role, &name).unwrap();
                prop_assert_eq!(SpiffeId::parse(&id.to_string()).unwrap(), id);
            }
        }

        #[test]
        fn what_parses_prints_as_it_was(text in "spiffe://[a-z./]{0,12}/(agent|origin)/[a-z./]{0,12}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
