//! What a stored manifest names, read leniently: whatever was once accepted, and what later versions may accept.
//!
//! A push is checked strictly elsewhere. Here one name too many costs some disk, one too few costs an image: foreign
//! layers that somebody pushed all the same count, and what cannot be read is said to be unreadable, not empty.

use serde::Deserialize;
use shoal_core::Digest;

/// What a manifest names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    /// Configuration and layers.
    pub(super) blobs: Vec<Digest>,
    /// The entries of an index: manifests, or blobs where a build cache is kept so.
    pub(super) entries: Vec<Digest>,
    /// The manifest to which it was attached.
    pub(super) subject: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    config: Option<Named>,
    layers: Option<Vec<Named>>,
    /// The artifact manifest of the first drafts of OCI 1.1.
    blobs: Option<Vec<Named>>,
    manifests: Option<Vec<Named>>,
    subject: Option<Named>,
    /// Docker's schema 1.
    fs_layers: Option<Vec<SchemaOneLayer>>,
}

#[derive(Deserialize)]
struct Named {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaOneLayer {
    blob_sum: Digest,
}

impl References {
    pub(super) fn parse(manifest: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(manifest)?;
        let blobs = document.config.iter().chain(document.layers.iter().chain(&document.blobs).flatten());
        let schema_one = document.fs_layers.iter().flatten().map(|layer| layer.blob_sum);
        Ok(Self {
            blobs: blobs.map(|blob| blob.digest).chain(schema_one).collect(),
            entries: document.manifests.iter().flatten().map(|entry| entry.digest).collect(),
            subject: document.subject.map(|subject| subject.digest),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_manifest_names_is_found() {
        let [config, layer, foreign, entry, subject] =
            [&b"c"[..], b"l", b"f", b"e", b"s"].map(Digest::sha256);
        let foreign_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let document = json!({
            "schemaVersion": 2,
            "config": {"digest": config},
            "layers": [{"digest": layer}, {"digest": foreign, "mediaType": foreign_type}],
            "manifests": [{"digest": entry}],
            "subject": {"digest": subject},
        });
        let references = References::parse(document.to_string().as_bytes()).unwrap();
        assert_eq!(references.blobs, [config, layer, foreign]);
        assert_eq!((references.entries, references.subject), (vec![entry], Some(subject)));
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_empty() {
        for document in
            ["", "[]", r#"{"layers": [{"digest": "sha256:ab"}]}"#, r#"{"config": {}, "config": {}}"#]
        {
            assert!(References::parse(document.as_bytes()).is_err(), "{document}");
        }
    }
}
