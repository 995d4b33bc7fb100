//! Which repository a client means: runtimes that pull through a mirror say the upstream host as well.
//!
//! containerd sends it as `?ns=`, podman and docker can only be given a path prefix. Only listed hosts are taken:
//! what a client writes never becomes an address that somebody connects to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::StatusCode;
use shoal_core::RepositoryName;

use super::error::{ApiError, Code};

/// The prefixes of repositories, by upstream host in lower case.
pub(super) struct Namespaces(BTreeMap<String, String>);

/// A repository, here and as the client calls it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its name here.
    pub(super) repository: RepositoryName,
    /// Its name in the client's URLs; made of validated parts.
    pub(super) external: String,
    /// The upstream host of the client's query, if it has one; a listed one.
    pub(super) namespace: Option<String>,
}

impl Namespaces {
    pub(super) fn new(prefixes: &BTreeMap<String, String>) -> Self {
        let entry = |(host, prefix): (&String, &String)| {
            (host.to_ascii_lowercase(), prefix.trim_matches('/').to_owned())
        };
        // What stands in addresses and headers has to fit there; no host has other characters.
        let is_host = |(host, _): &(&String, &String)| {
            host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
        };
        Self(prefixes.iter().filter(is_host).map(entry).collect())
    }

    /// The repository that `name` means: in the upstream of `?ns=`, else in the upstream that its first part names,
    /// else as it is.
    pub(super) fn resolve(&self, namespace: Option<&str>, name: &str) -> Result<Target, ApiError> {
        let (repository, namespace) = match namespace {
            Some(namespace) => {
                let host = namespace.to_ascii_lowercase();
                let prefix = self.0.get(&host).ok_or_else(|| unknown_namespace(namespace))?;
                (join(prefix, &official(&host, name)), Some(host))
            }
            None => (self.strip_host(name).unwrap_or_else(|| name.to_owned()), None),
        };
        let repository = RepositoryName::parse(&repository)
            .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, Code::NameInvalid, error.to_string()))?;
        Ok(Target { repository, external: name.to_owned(), namespace })
    }

    /// The repository behind `<listed host>/<name>`. A host is only one with a dot: `library` may be listed as well.
    fn strip_host(&self, name: &str) -> Option<String> {
        let (host, rest) = name.split_once('/')?;
        let host = host.to_ascii_lowercase();
        let prefix = self.0.get(&host).filter(|_| host.contains('.'))?;
        Some(join(prefix, &official(&host, rest)))
    }
}

impl Target {
    pub(super) fn manifest_url(&self, reference: impl std::fmt::Display) -> String {
        self.url(&format!("manifests/{reference}"), &[])
    }

    pub(super) fn blob_url(&self, digest: impl std::fmt::Display) -> String {
        self.url(&format!("blobs/{digest}"), &[])
    }

    /// An address of this repository, as this client has to ask for it. Relative: what a client says about its way
    /// here (`Host`) is not believed.
    pub(super) fn url(&self, rest: &str, query: &[(&str, &str)]) -> String {
        let namespace = self.namespace.as_deref().map(|namespace| ("ns", namespace));
        let mut url = format!("/v2/{}/{rest}", self.external);
        for (number, (key, value)) in query.iter().copied().chain(namespace).enumerate() {
            url.push(if number == 0 { '?' } else { '&' });
            url.push_str(&format!("{key}={value}"));
        }
        url
    }
}

/// Docker Hub's repositories of one part are below `library/`, and some clients leave that out.
fn official<'a>(host: &str, name: &'a str) -> Cow<'a, str> {
    if host == "docker.io" && !name.contains('/') { format!("library/{name}").into() } else { name.into() }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn unknown_namespace(namespace: &str) -> ApiError {
    let shown: String = namespace.chars().take(80).collect();
    let message = format!("namespace {shown:?} is not served here");
    ApiError::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces() -> Namespaces {
        let listed = [("docker.io", ""), ("registry.example.com:5000", "/example/"), ("library", "other")];
        Namespaces::new(&listed.map(|(host, prefix)| (host.to_owned(), prefix.to_owned())).into())
    }

    fn repository(namespace: Option<&str>, name: &str) -> Option<String> {
        namespaces().resolve(namespace, name).ok().map(|target| target.repository.to_string())
    }

    #[test]
    fn the_query_comes_first_then_a_listed_host_in_the_path() {
        for (namespace, name, expected) in [
            (None, "a/b", Some("a/b")),
            (Some("docker.io"), "a/b", Some("a/b")),
            (Some("docker.io"), "a", Some("library/a")),
            (None, "docker.io/a", Some("library/a")),
            (Some("Docker.IO"), "a/b", Some("a/b")),
            (Some("registry.example.com:5000"), "a/b", Some("example/a/b")),
            (None, "registry.example.com:5000/a/b", Some("example/a/b")),
            (None, "docker.io/a/b", Some("a/b")),
            (Some("docker.io"), "docker.io/a/b", Some("docker.io/a/b")),
            (None, "docker.io", Some("docker.io")),
            (None, "other.io/a", Some("other.io/a")),
            (None, "library/a", Some("library/a")),
            (Some("library"), "a", Some("other/a")),
        ] {
            assert_eq!(repository(namespace, name).as_deref(), expected, "{namespace:?} {name}");
        }
    }

    #[test]
    fn an_unlisted_namespace_is_unknown_at_once() {
        for namespace in
            ["", "quay.io", "docker.io:443", "user@docker.io", "docker.io/x", "169.254.169.254", "a\nb"]
        {
            let error = namespaces().resolve(Some(namespace), "a").unwrap_err();
            assert_eq!(error.status(), StatusCode::NOT_FOUND, "{namespace}");
        }
    }

    #[test]
    fn urls_lead_back_to_the_same_repository() {
        let target = namespaces().resolve(Some("registry.example.com:5000"), "a/b").unwrap();
        let url = target.url("tags/list", &[("last", "x"), ("n", "2")]);
        assert_eq!(url, "/v2/a/b/tags/list?last=x&n=2&ns=registry.example.com:5000");
        let target = namespaces().resolve(None, "docker.io/a").unwrap();
        assert_eq!(target.blob_url("sha256:x"), "/v2/docker.io/a/blobs/sha256:x");
    }
}
