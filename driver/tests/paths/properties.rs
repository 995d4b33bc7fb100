//! What must hold of any text that is given to the path grammar. Bytes are the input, so that a fuzzer can mutate them.
//!
//! Bytes mean a text, or, so that blind bytes get deep into the layout too, the words and characters to put one together of.

use shoal_driver::request::operations_of;
use shoal_driver::{DriverPath, Operation, RegistryPath, Request, RequestError};

/// Panics if the grammar breaks one of its promises on this input.
pub(crate) fn check(bytes: &[u8]) {
    let text = text_of(bytes);
    let Ok(path) = DriverPath::parse(&text) else { return };
    check_driver_path(&path, &text);
    match RegistryPath::parse(&path) {
        Ok(registry_path) => check_registry_path(&registry_path, &path),
        Err(_) => {
            for operation in Operation::ALL {
                assert!(matches!(Request::parse(operation, &path), Err(RequestError::Path(_))), "{path}");
            }
        }
    }
}

/// The text is the path's only one, stays below the root, and is made of its parts.
fn check_driver_path(path: &DriverPath, text: &str) {
    assert_eq!(path.as_str(), text);
    assert_eq!(path.to_string(), text);
    assert!(text.len() <= DriverPath::MAX_LENGTH && path.is_within(&DriverPath::root()));
    for part in path.parts() {
        assert!(!matches!(part, "" | "." | "..") && part.len() <= DriverPath::MAX_PART_LENGTH, "{text}");
        assert!(part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'\\'), "{text}");
    }
    let rebuilt = path.parts().try_fold(DriverPath::root(), |path, part| path.child(part));
    assert_eq!(rebuilt.as_ref(), Ok(path));
    if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
        assert_eq!(parent.child(name).as_ref(), Ok(path));
        assert!(parent < *path && path.is_within(&parent) && !parent.is_within(path));
    }
}

/// The text is the value's only one, its folder is of the layout too, and its requests are those of the table.
fn check_registry_path(registry_path: &RegistryPath, path: &DriverPath) {
    assert_eq!(registry_path.to_string(), path.as_str());
    assert_eq!(&registry_path.to_driver_path(), path);
    assert_eq!(RegistryPath::parse(&registry_path.to_driver_path()).as_ref(), Ok(registry_path));
    if let Some(repository) = registry_path.repository() {
        let prefix = format!("/docker/registry/v2/repositories/{repository}");
        assert!(path.is_within(&DriverPath::parse(&prefix).expect("a repository's name is a path")));
    }
    if let Some(parent) = path.parent() {
        assert!(RegistryPath::parse(&parent).is_ok(), "{path} lies nowhere");
    }
    for operation in Operation::ALL {
        let request = Request::parse(operation, path).ok();
        assert_eq!(
            request.is_some(),
            operations_of(registry_path).contains(&operation),
            "{operation} {path}"
        );
        assert!(request.is_none_or(|request| request.into_path() == *registry_path));
    }
}

/// The text that bytes mean. The first one says how the rest is read.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    match bytes {
        [] => String::new(),
        [first, rest @ ..] if first % 4 == 0 => String::from_utf8_lossy(rest).into_owned(),
        [first, rest @ ..] => {
            let mut text = BEGINNINGS[usize::from(*first) % BEGINNINGS.len()].to_owned();
            text.extend(rest.iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]));
            text
        }
    }
}

const BEGINNINGS: [&str; 7] = [
    "",
    "/docker/registry/v2",
    "/docker/registry/v2/repositories/a",
    "/docker/registry/v2/repositories/a/_manifests/tags/t",
    "/docker/registry/v2/repositories/a/_manifests/revisions/sha256",
    "/docker/registry/v2/repositories/a/_uploads/0198c4b2-7c1e-7def-8abc-0123456789ab",
    "/docker/registry/v2/blobs/sha256",
];

const WORDS: [&str; 43] = [
    "/docker",
    "/registry",
    "/v2",
    "/repositories",
    "/blobs",
    "/_manifests",
    "/_layers",
    "/_uploads",
    "/revisions",
    "/tags",
    "/current",
    "/index",
    "/link",
    "/data",
    "/startedat",
    "/hashstates",
    "/sha256",
    "/sha512",
    "/ba",
    "/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\
     ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "/0198c4b2-7c1e-7def-8abc-0123456789ab",
    "/0",
    "/18446744073709551615",
    "/a",
    "/..",
    "/.",
    "/",
    "a",
    "A",
    "0",
    "f",
    ".",
    "_",
    "-",
    "+",
    "%2e",
    "%2f",
    "\\",
    "\0",
    "\n",
    " ",
    "\u{e9}",
];
