//! Referrers: manifests that name a subject, as an index lists them (distribution-spec, "Listing Referrers").
//!
//! The index is at once the answer of the API and what the fallback tag of a subject names. It is an ordinary index, so it
//! has a manifest's limits. An entry is rebuilt from what is read of it: nothing else that clients wrote is passed on.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_core::Digest;

use super::{MAX_DESCRIPTORS, MAX_MANIFEST_SIZE, Manifest, ManifestParseError, MediaType};

/// A referrer, as its descriptor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

/// The referrers of one subject, each once, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReferrerList(Vec<Referrer>);

/// What of a manifest its descriptor repeats.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: String,
}

#[derive(Deserialize)]
struct Entries {
    #[serde(default)]
    manifests: Vec<serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Referrer],
}

impl Listing {
    pub(super) fn of(manifest: &Manifest) -> Result<Self, ManifestParseError> {
        Ok(serde_json::from_slice(manifest.bytes())?)
    }
}

impl Referrer {
    /// A manifest with that digest, as its subject's list has it. An image that does not say what kind of artifact it is
    /// is of its configuration's type; an index is then of none.
    pub(crate) fn of(manifest: &Manifest, digest: Digest) -> Result<Self, ManifestParseError> {
        let listing = Listing::of(manifest)?;
        let own = listing.artifact_type.filter(|artifact_type| !artifact_type.is_empty());
        Ok(Self {
            media_type: manifest.media_type().as_str().to_owned(),
            digest,
            size: manifest.bytes().len() as u64,
            artifact_type: own.or(listing.config.map(|config| config.media_type)),
            annotations: listing.annotations,
        })
    }
}

impl ReferrerList {
    /// The entries of an index. What is no index, or no entry that a client could read, lists nothing.
    pub(crate) fn parse(index: &[u8]) -> Self {
        let Ok(Entries { manifests }) = serde_json::from_slice(index) else { return Self::default() };
        Self(manifests.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds it, in place of one with the same digest.
    pub(crate) fn add(&mut self, referrer: Referrer) {
        match self.0.iter_mut().find(|known| known.digest == referrer.digest) {
            Some(known) => *known = referrer,
            None => self.0.push(referrer),
        }
    }

    pub(crate) fn remove(&mut self, digest: &Digest) {
        self.0.retain(|referrer| referrer.digest != *digest);
    }

    /// Only those of that type.
    pub(crate) fn keep(&mut self, artifact_type: &str) {
        self.0.retain(|referrer| referrer.artifact_type.as_deref() == Some(artifact_type));
    }

    /// Whether it can be kept as a manifest.
    pub(crate) fn fits(&self) -> bool {
        self.0.len() <= MAX_DESCRIPTORS && self.to_index().len() <= MAX_MANIFEST_SIZE
    }

    /// As an index: the same list is always the same bytes.
    pub(crate) fn to_index(&self) -> Bytes {
        let index = Index { schema_version: 2, media_type: MediaType::OciIndex.as_str(), manifests: &self.0 };
        serde_json::to_vec(&index).expect("texts and numbers are JSON").into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn referrer(content: &str, artifact_type: &str) -> Referrer {
        let document = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": artifact_type,
            "config": {"mediaType": "a/config", "digest": Digest::sha256(b"{}"), "size": 2},
            "annotations": {"content": content},
        });
        let manifest = Manifest::parse(Bytes::from(document.to_string()), None).unwrap();
        Referrer::of(&manifest, Digest::sha256(content.as_bytes())).unwrap()
    }

    fn list(contents: &[&str]) -> ReferrerList {
        let mut list = ReferrerList::default();
        contents.iter().for_each(|content| list.add(referrer(content, "a/b")));
        list
    }

    #[test]
    fn an_index_and_its_list_are_the_same() {
        let list = list(&["one", "two"]);
        assert_eq!(ReferrerList::parse(&list.to_index()), list);
        let manifest = Manifest::parse(list.to_index(), None).unwrap();
        assert_eq!((manifest.media_type(), manifest.children().len()), (MediaType::OciIndex, 2));
        let empty: Value = serde_json::from_slice(&ReferrerList::default().to_index()).unwrap();
        assert_eq!(empty["manifests"], json!([]));
    }

    #[test]
    fn a_referrer_is_listed_once() {
        let mut list = list(&["one", "two", "one"]);
        assert_eq!(list.0.len(), 2);
        list.remove(&Digest::sha256(b"one"));
        list.remove(&Digest::sha256(b"two"));
        assert!(list.is_empty());
    }

    #[test]
    fn an_artifact_is_of_its_own_type_or_of_its_configurations() {
        assert_eq!(referrer("x", "a/b").artifact_type.as_deref(), Some("a/b"));
        assert_eq!(referrer("x", "").artifact_type.as_deref(), Some("a/config"));
        let mut list = list(&["one"]);
        list.add(referrer("two", "c/d"));
        list.keep("c/d");
        assert_eq!(list.0, [referrer("two", "c/d")]);
    }

    #[test]
    fn entries_that_clients_could_not_read_are_left_out() {
        let good = referrer("good", "a/b");
        let bad =
            json!({"mediaType": "a/b", "digest": Digest::sha256(b""), "size": 0, "annotations": {"a": 1}});
        let index = json!({"manifests": [bad, good, 7, {"digest": "sha256:x"}]}).to_string();
        assert_eq!(ReferrerList::parse(index.as_bytes()).0, [good]);
        for broken in ["", "[]", "{}", r#"{"manifests":7}"#, "layer"] {
            assert!(ReferrerList::parse(broken.as_bytes()).is_empty(), "{broken}");
        }
    }

    #[test]
    fn a_list_is_as_long_as_a_manifest_may_be() {
        let mut list = list(&["x"]);
        assert!(list.fits());
        list.0 = vec![list.0[0].clone(); MAX_DESCRIPTORS + 1];
        assert!(!list.fits());
        let mut list = ReferrerList::default();
        list.add(referrer(&"x".repeat(MAX_MANIFEST_SIZE - 1000), "a/b"));
        assert!(list.fits());
        list.add(referrer(&"y".repeat(1000), "a/b"));
        assert!(!list.fits());
    }
}
