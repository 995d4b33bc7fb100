//! Where an answer may lead: at most some hops, never from https to http, never nearer to this host than the registry is.

use std::net::IpAddr;

use reqwest::Url;

use crate::reach::Reach;

/// Why a redirect, or the address of a token server, is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedirectError {
    #[error("it leads on more than {MAX_HOPS} times")]
    TooMany,
    #[error("it leads to no http or https URL")]
    NoUrl,
    #[error("it leads from https to plain http, at {0}")]
    Downgrade(String),
    #[error("it leads to {0}, which is nearer to this host than the registry is")]
    TooNear(String),
}

/// The most redirects: registries have one, to their object store.
pub(crate) const MAX_HOPS: usize = 5;

/// Where to go on after `from` said `location`. `hop` counts from 0; names are looked at again when they are resolved.
pub(crate) fn follow(from: &Url, location: &str, hop: usize, registry: Reach) -> Result<Url, RedirectError> {
    if hop >= MAX_HOPS {
        return Err(RedirectError::TooMany);
    }
    let target = from.join(location).map_err(|_| RedirectError::NoUrl)?;
    check(from, &target, registry)?;
    Ok(target)
}

/// Whether what came from `from` may name `target`.
pub(crate) fn check(from: &Url, target: &Url, registry: Reach) -> Result<(), RedirectError> {
    let place = || target.origin().ascii_serialization();
    let userinfo = !target.username().is_empty() || target.password().is_some();
    if !matches!(target.scheme(), "http" | "https") || userinfo || !target.has_host() {
        return Err(RedirectError::NoUrl);
    }
    if from.scheme() == "https" && target.scheme() == "http" {
        return Err(RedirectError::Downgrade(place()));
    }
    let same = from.origin() == target.origin();
    if !same && literal(target).is_some_and(|reach| reach > registry) {
        return Err(RedirectError::TooNear(place()));
    }
    Ok(())
}

/// How near the host is, where the URL names it by address, or by the name of this host.
fn literal(url: &Url) -> Option<Reach> {
    let name = url.host_str()?.trim_end_matches('.');
    if name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost") {
        return Some(Reach::Loopback);
    }
    let address: IpAddr = name.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(Reach::of(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_are_judged_by_where_they_lead() {
        let registry = url("https://registry.example/v2/a/blobs/x");
        for (location, good) in [
            ("https://store.example/x?sig=1", true),
            ("/other", true),
            ("//cdn.example/x", true),
            ("https://93.184.216.34/x", true),
            ("http://store.example/x", false),
            ("https://127.0.0.1/x", false),
            ("https://2130706433/x", false),
            ("https://0x7f.1/x", false),
            ("https://localhost/x", false),
            ("https://a.localhost./x", false),
            ("https://169.254.169.254/latest/meta-data", false),
            ("https://[::ffff:169.254.169.254]/x", false),
            ("https://10.0.0.1/x", false),
            ("https://user:pw@store.example/x", false),
            ("file:///etc/passwd", false),
            ("https:///", false),
        ] {
            assert_eq!(follow(&registry, location, 0, Reach::Public).is_ok(), good, "{location}");
        }
    }

    #[test]
    fn a_registry_that_is_near_may_lead_as_near() {
        let registry = url("http://127.0.0.1:5000/v2/");
        assert!(follow(&registry, "http://127.0.0.1:9000/x", 0, Reach::Loopback).is_ok());
        assert!(follow(&registry, "http://10.0.0.1/x", 0, Reach::Loopback).is_ok());
        assert!(follow(&registry, "http://169.254.169.254/x", 0, Reach::Loopback).is_err());
        assert_eq!(follow(&registry, "/x", MAX_HOPS, Reach::Loopback), Err(RedirectError::TooMany));
    }

    proptest! {
        #[test]
        fn nothing_leads_from_https_to_http(location in "[ -~]{0,40}") {
            if let Ok(target) = follow(&url("https://a.example/"), &location, 0, Reach::LinkLocal) {
                prop_assert_eq!(target.scheme(), "https");
            }
        }
    }
}
