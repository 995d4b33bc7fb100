//! The media types of manifests.

use super::ManifestParseError;

/// A kind of manifest that is accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MediaType {
    /// Docker image manifest, version 2, schema 2.
    DockerManifest,
    /// Docker manifest list.
    DockerList,
    /// OCI image manifest.
    OciManifest,
    /// OCI image index.
    OciIndex,
}

impl MediaType {
    const ALL: [Self; 4] = [Self::DockerManifest, Self::DockerList, Self::OciManifest, Self::OciIndex];

    /// Reads a media type without parameters. Types are compared without regard to case (RFC 9110, 8.3.1).
    pub(super) fn parse(text: &str) -> Result<Self, ManifestParseError> {
        let found = Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| ManifestParseError::UnknownMediaType(text.chars().take(80).collect()))
    }

    /// The type's text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
        }
    }

    pub(crate) fn is_index(self) -> bool {
        matches!(self, Self::DockerList | Self::OciIndex)
    }

    pub(super) fn is_docker(self) -> bool {
        matches!(self, Self::DockerManifest | Self::DockerList)
    }
}
