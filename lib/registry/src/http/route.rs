//! Which resource a path names.
//!
//! Read from the right, since a repository's name may hold every word that a route has (`a/blobs/uploads` is a name).
//! The path is percent-decoded exactly once, part by part: an encoded slash, a NUL or a `..` never becomes structure.

use http::StatusCode;

use super::error::{ApiError, Code};
use crate::auth::PASS_PATH;

/// A path below `/v2/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The repository as the client names it: decoded, not yet validated.
    pub(super) name: String,
    /// What of the repository is meant; `None` for `/v2/` itself.
    pub(super) resource: Option<Resource>,
}

/// What of a repository is meant. The texts are decoded and not yet validated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// A manifest, by reference.
    Manifest(String),
    /// A blob, by digest.
    Blob(String),
    /// Where uploads start.
    Uploads,
    /// An upload session, by id.
    Upload(String),
    /// What refers to a manifest, by its digest.
    Referrers(String),
    /// The list of all repositories; it is in none.
    Catalog,
    /// The list of tags.
    Tags,
    /// Where clients get a pass for their credentials; it is in no repository.
    Pass,
}

impl Route {
    /// Reads a raw path, percent-encoded as it came.
    pub(super) fn parse(path: &str) -> Result<Self, ApiError> {
        if matches!(path, "/v2" | "/v2/") {
            return Ok(Self { name: String::new(), resource: None });
        }
        match path {
            "/v2/_catalog" => return Ok(Self { name: String::new(), resource: Some(Resource::Catalog) }),
            PASS_PATH => return Ok(Self { name: String::new(), resource: Some(Resource::Pass) }),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(no_such_route)?;
        if rest.len() > MAX_PATH_LENGTH {
            return Err(bad_name("the path is too long"));
        }
        // Clients end the address where uploads start with a slash; no other has one.
        let rest = rest.strip_suffix('/').filter(|rest| rest.ends_with("/blobs/uploads")).unwrap_or(rest);
        let parts = rest.split('/').map(decode).collect::<Result<Vec<String>, ApiError>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (name, resource) = match parts.as_slice() {
            [name @ .., "manifests", reference] => (name, Resource::Manifest((*reference).to_owned())),
            [name @ .., "referrers", subject] => (name, Resource::Referrers((*subject).to_owned())),
            [name @ .., "tags", "list"] => (name, Resource::Tags),
            [name @ .., "blobs", "uploads", id] => (name, Resource::Upload((*id).to_owned())),
            [name @ .., "blobs", "uploads"] => (name, Resource::Uploads),
            [name @ .., "blobs", digest] => (name, Resource::Blob((*digest).to_owned())),
            _ => return Err(no_such_route()),
        };
        Ok(Self { name: name.join("/"), resource: Some(resource) })
    }

    /// Whether a DELETE of it takes content away, rather than an upload that nobody has seen yet.
    pub(super) fn is_content(&self) -> bool {
        matches!(self.resource, Some(Resource::Manifest(_) | Resource::Blob(_)))
    }

    /// The methods that it answers.
    pub(super) fn methods(&self) -> &'static [&'static str] {
        match self.resource {
            None | Some(Resource::Catalog | Resource::Tags | Resource::Referrers(_)) => &["GET", "HEAD"],
            Some(Resource::Blob(_)) => &["GET", "HEAD", "DELETE"],
            Some(Resource::Manifest(_)) => &["GET", "HEAD", "PUT", "DELETE"],
            Some(Resource::Pass) => &["GET"],
            Some(Resource::Uploads) => &["POST"],
            Some(Resource::Upload(_)) => &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        }
    }
}

/// Decodes one part of a path, once, and refuses what would be structure.
fn decode(part: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (code, tail) =
            tail.split_at_checked(2).ok_or_else(|| bad_name("a percent sign ends the path"))?;
        let byte = data_encoding::HEXLOWER_PERMISSIVE.decode(code);
        bytes.extend(byte.map_err(|_| bad_name("a percent sign is not followed by two hexadecimal digits"))?);
        rest = tail;
    }
    let text = String::from_utf8(bytes).map_err(|_| bad_name("the path is not UTF-8"))?;
    if matches!(text.as_str(), "" | "." | "..")
        || text.contains(['/', '\\'])
        || text.contains(char::is_control)
    {
        return Err(bad_name(
            "a part of the path is empty, is '.' or '..', or holds a slash or a control character",
        ));
    }
    Ok(text)
}

fn bad_name(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, Code::NameInvalid, message)
}

/// No code of the specification is for an address that means nothing; clients take this one for "not here".
pub(super) fn no_such_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, Code::NameUnknown, "no such resource")
}

/// A host, a name of 255 bytes and a SHA-512 digest, all percent-encoded, take less.
const MAX_PATH_LENGTH: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(path: &str) -> Option<(String, Resource)> {
        Route::parse(path).ok().map(|route| (route.name, route.resource.unwrap()))
    }

    #[test]
    fn a_path_is_read_from_the_right() {
        for (path, name, resource) in [
            ("a/manifests/latest", "a", Resource::Manifest("latest".into())),
            ("a/b/c/manifests/sha256:x", "a/b/c", Resource::Manifest("sha256:x".into())),
            ("a/manifests/manifests/manifests", "a/manifests", Resource::Manifest("manifests".into())),
            ("a/tags/list", "a", Resource::Tags),
            ("a/referrers/referrers/sha256:x", "a/referrers", Resource::Referrers("sha256:x".into())),
            ("tags/list/tags/list", "tags/list", Resource::Tags),
            ("a/tags/manifests/list", "a/tags", Resource::Manifest("list".into())),
            ("a/blobs/sha256:x", "a", Resource::Blob("sha256:x".into())),
            ("a/blobs/uploads", "a", Resource::Uploads),
            ("a/blobs/uploads/", "a", Resource::Uploads),
            ("a/blobs/uploads/7", "a", Resource::Upload("7".into())),
            ("a/blobs/uploads/blobs/uploads/7", "a/blobs/uploads", Resource::Upload("7".into())),
            ("blobs/uploads/manifests/x", "blobs/uploads", Resource::Manifest("x".into())),
            ("a/blobs/sha256%3Ax", "a", Resource::Blob("sha256:x".into())),
            ("%61/tags/list", "a", Resource::Tags),
        ] {
            assert_eq!(route(&format!("/v2/{path}")), Some((name.to_owned(), resource)), "{path}");
        }
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(route("/v2/%252e%252e/tags/list").unwrap().0, "%2e%2e");
        for bad in [
            "a%2fb", "a%2Fb", "%2e%2e", "..", ".", "", "%00", "a%5Cb", "a\\b", "%", "%4", "%zz", "%ff", "%0a",
        ] {
            assert!(Route::parse(&format!("/v2/{bad}/tags/list")).is_err(), "{bad}");
            assert!(Route::parse(&format!("/v2/a/{bad}/tags/list")).is_err(), "{bad}");
            assert!(Route::parse(&format!("/v2/a/manifests/{bad}")).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_no_part_is_structure(path in "/v2/[a-z%0-9./\\\\]{0,40}(/manifests/|/tags/list|/blobs/).{0,9}") {
            if let Ok(route) = Route::parse(&path) {
                prop_assert!(route.name.split('/').all(|part| part != ".." && part != "."));
            }
        }
    }
}
