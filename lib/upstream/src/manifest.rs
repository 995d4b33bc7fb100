//! Manifests and indexes, and what they name. The bytes are kept as they came; only what a copy needs is read.
//!
//! Sources: OCI image-spec 1.1 (manifest, image-index, descriptor), Docker image manifest v2 schema 2. What one reader could take
//! for an image and another for an index is refused (CVE-2021-41190).

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_core::{Algorithm, Digest};

/// A manifest or an index that its digest proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    digest: Digest,
    bytes: Bytes,
    media_type: MediaType,
    blobs: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    config_type: Option<String>,
    artifact_type: Option<String>,
}

/// A kind of manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// OCI image manifest.
    OciManifest,
    /// OCI image index.
    OciIndex,
    /// Docker image manifest, version 2, schema 2.
    DockerManifest,
    /// Docker manifest list.
    DockerList,
    /// The artifact manifest of the release candidates of OCI 1.1, which some registries still hold.
    OciArtifact,
}

/// How a document names content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What an image of an index runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What its maker says of it, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<serde_json::Map<String, serde_json::Value>>,
    /// All else, so that a list that is written anew loses nothing.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// What an image runs on: `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, as Go names it.
    pub os: String,
    /// The processor, as Go names it.
    pub architecture: String,
    /// Which kind of that processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Other bytes than were named.
    #[error("its bytes have digest {0}")]
    WrongDigest(Digest),
    /// Not JSON, or not of the shape of a manifest.
    #[error("it is no manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A type that is not known; schema 1 is not.
    #[error("its media type {0:?} is none of a docker schema 2 or OCI manifest, list or index")]
    UnknownMediaType(String),
    /// The document says it is something else than its answer's header.
    #[error("it says that it is {document}, and came as {header}")]
    MediaTypeMismatch {
        /// What the document says.
        document: MediaType,
        /// What came with it.
        header: MediaType,
    },
    /// An image and an index, or neither.
    #[error("it is not clearly an image manifest or an index")]
    Confused,
    /// More than anybody needs.
    #[error("it names {0} things, {MAX_DESCRIPTORS} are allowed")]
    TooMany(usize),
    /// A platform that is none.
    #[error("{0:?} is no platform: expected os/architecture or os/architecture/variant, such as linux/amd64")]
    Platform(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
}

impl Manifest {
    /// Reads a document. `digest`: what its bytes must have; `content_type`: what it came as, if anybody said.
    pub fn parse(bytes: Bytes, digest: &Digest, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let found = Digest::of(digest.algorithm(), &bytes);
        if found != *digest {
            return Err(ManifestError::WrongDigest(found));
        }
        let document: Document = serde_json::from_slice(&bytes)?;
        let media_type = document.media_type(content_type)?;
        if media_type.is_index() != document.is_index()? {
            return Err(ManifestError::Confused);
        }
        let count = document.lists().map(Vec::len).sum();
        if count > MAX_DESCRIPTORS {
            return Err(ManifestError::TooMany(count));
        }
        let config_type = document.config.as_ref().map(|config| config.media_type.clone());
        let blobs = document.config.into_iter().chain(document.layers.into_iter().flatten());
        let blobs =
            blobs.chain(document.blobs.into_iter().flatten()).filter(|blob| !blob.is_foreign()).collect();
        let manifests = document.manifests.unwrap_or_default();
        let (subject, artifact_type) = (document.subject, document.artifact_type);
        Ok(Self { digest: *digest, bytes, media_type, blobs, manifests, subject, config_type, artifact_type })
    }

    /// Reads a document that is named by nothing: its digest is what its bytes have.
    pub fn parse_new(
        bytes: Bytes,
        algorithm: Algorithm,
        content_type: Option<&str>,
    ) -> Result<Self, ManifestError> {
        let digest = Digest::of(algorithm, &bytes);
        Self::parse(bytes, &digest, content_type)
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The document, byte for byte.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its kind.
    #[must_use]
    pub fn media_type(&self) -> MediaType {
        self.media_type
    }

    /// Configuration and layers; those are left out that are to be fetched elsewhere.
    #[must_use]
    pub fn blobs(&self) -> &[Descriptor] {
        &self.blobs
    }

    /// What an index lists.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// The manifest that it says something about.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// How others name it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.as_str(), self.digest, self.bytes.len() as u64)
    }

    /// What a list of referrers says of it (distribution-spec, "Pushing Manifests with Subject").
    #[must_use]
    pub fn referrer_descriptor(&self) -> Descriptor {
        #[derive(Deserialize)]
        struct Annotated {
            annotations: Option<serde_json::Map<String, serde_json::Value>>,
        }
        let annotations =
            serde_json::from_slice::<Annotated>(&self.bytes).ok().and_then(|read| read.annotations);
        let artifact_type = self.artifact_type.clone().or_else(|| self.config_type.clone());
        Descriptor { artifact_type, annotations, ..self.descriptor() }
    }
}

impl Document {
    fn lists(&self) -> impl Iterator<Item = &Vec<Descriptor>> {
        self.layers.iter().chain(&self.blobs).chain(&self.manifests)
    }

    fn media_type(&self, content_type: Option<&str>) -> Result<MediaType, ManifestError> {
        // Servers that know no better call everything JSON or text.
        let header = content_type.and_then(|text| text.split(';').next()?.trim().parse().ok());
        match (&self.media_type, header) {
            (Some(text), header) => {
                let document: MediaType = text.parse()?;
                match header {
                    Some(header) if header != document => {
                        Err(ManifestError::MediaTypeMismatch { document, header })
                    }
                    _ => Ok(document),
                }
            }
            (None, Some(header)) => Ok(header),
            (None, None) if self.is_index()? => Ok(MediaType::OciIndex),
            (None, None) => Ok(MediaType::OciManifest),
        }
    }

    fn is_index(&self) -> Result<bool, ManifestError> {
        match (&self.manifests, &self.config, &self.layers, &self.blobs) {
            (Some(_), None, None, None) => Ok(true),
            (None, Some(_), _, None) | (None, None, None, _) if self.names_content() => Ok(false),
            _ => Err(ManifestError::Confused),
        }
    }

    /// An artifact manifest may have no blobs at all, but then says what it is.
    fn names_content(&self) -> bool {
        self.config.is_some() || self.blobs.is_some() || self.artifact_type.is_some()
    }
}

impl Descriptor {
    /// One that says nothing but what has to be said.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let (media_type, other) = (media_type.into(), serde_json::Map::new());
        Self { media_type, digest, size, platform: None, artifact_type: None, annotations: None, other }
    }

    /// Whether it is a manifest that can be read here.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        self.media_type.parse::<MediaType>().is_ok()
    }

    /// A layer that is to be fetched elsewhere, which nobody does.
    fn is_foreign(&self) -> bool {
        self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
            || self.media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    }
}

impl MediaType {
    /// All of them, those first that are the most common.
    pub const ALL: [Self; 5] =
        [Self::OciIndex, Self::DockerList, Self::OciManifest, Self::DockerManifest, Self::OciArtifact];

    /// The type's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::OciArtifact => "application/vnd.oci.artifact.manifest.v1+json",
        }
    }

    /// Whether it lists manifests.
    #[must_use]
    pub fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MediaType {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let found = Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| ManifestError::UnknownMediaType(text.chars().take(80).collect()))
    }
}

impl Platform {
    /// Whether an image for `other` is one for this: the variant counts where it is asked for.
    #[must_use]
    pub fn takes(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let parts: Vec<_> = text.split('/').collect();
        let valid = |part: &str| {
            !part.is_empty() && part.len() <= 64 && part.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let (2 | 3, true) = (parts.len(), parts.iter().all(|part| valid(part))) else {
            return Err(ManifestError::Platform(text.chars().take(80).collect()));
        };
        let variant = parts.get(2).map(|&variant| variant.to_owned());
        Ok(Self { os: parts[0].to_owned(), architecture: parts[1].to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// Images have at most 127 layers, the largest indexes a few hundred entries.
const MAX_DESCRIPTORS: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    fn parse(json: &str, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse_new(Bytes::from(json.replace("$D", D)), Algorithm::Sha256, content_type)
    }

    #[test]
    fn documents_are_told_apart_by_what_they_hold() {
        let oci = MediaType::OciManifest.as_str();
        for (json, content_type, kind) in [
            (r#"{"config":$D,"layers":[$D]}"#, Some(oci), Some(MediaType::OciManifest)),
            (r#"{"config":$D,"layers":[$D]}"#, Some("text/plain"), Some(MediaType::OciManifest)),
            (r#"{"manifests":[$D]}"#, None, Some(MediaType::OciIndex)),
            (r#"{"manifests":[]}"#, Some(oci), None),
            (r#"{"manifests":[],"layers":[$D]}"#, None, None),
            (r#"{"manifests":[],"config":$D}"#, None, None),
            (r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#, Some(oci), None),
            (r#"{"manifests":[],"manifests":[$D]}"#, None, None),
            (r#"{"fsLayers":[]}"#, None, None),
            ("{}", None, None),
            ("[]", None, None),
        ] {
            assert_eq!(parse(json, content_type).ok().map(|manifest| manifest.media_type()), kind, "{json}");
        }
    }

    #[test]
    fn foreign_layers_are_nobodys() {
        let foreign = D.replace("\"x\"", "\"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\"");
        let manifest = parse(&format!(r#"{{"config":$D,"layers":[$D,{foreign}]}}"#), None).unwrap();
        assert_eq!(manifest.blobs().len(), 2);
    }

    #[test]
    fn bytes_are_believed_when_the_digest_says_so() {
        let error = Manifest::parse(Bytes::from_static(b"{}"), &Digest::sha256(b"x"), None).unwrap_err();
        assert!(matches!(error, ManifestError::WrongDigest(_)));
    }

    #[test]
    fn a_platform_takes_its_own_and_any_variant_unless_one_is_asked_for() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/arm").takes(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm/v6").takes(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").takes(&platform("windows/amd64")));
        for bad in ["", "linux", "linux/", "a/b/c/d", "/amd64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes: Vec<u8>) {
            let _ = Manifest::parse_new(bytes.into(), Algorithm::Sha256, None);
        }
    }
}
