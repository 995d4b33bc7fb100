//! What people name as the place of an image: a reference, or a file with its form in front, as skopeo has it.

use std::fmt;
use std::path::PathBuf;

use shoal_upstream::{ImageReference, ReferenceError};

/// Where an image is, or shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// At a registry.
    Registry(ImageReference),
    /// In a folder (OCI image-spec, image-layout.md), under that name if there are several.
    Layout {
        /// The folder.
        directory: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image.
        name: Option<String>,
    },
    /// The same as one tar archive.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image.
        name: Option<String>,
    },
    /// What `docker save` writes and `docker load` reads.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// `name:tag` of the image.
        name: Option<String>,
    },
}

/// Why a text names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A form without a path.
    #[error("{0:?} names no file: expected {0}PATH or {0}PATH:NAME")]
    NoPath(String),
    /// A name that would have to be quoted everywhere.
    #[error("{0:?} is no name of an image: at most 255 visible characters without spaces")]
    Name(String),
}

impl Location {
    /// Reads `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`, or a reference, with or without `docker://`.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        for form in [OCI, OCI_ARCHIVE, DOCKER_ARCHIVE] {
            let Some(rest) = text.strip_prefix(form) else { continue };
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() {
                return Err(LocationError::NoPath(form.to_owned()));
            }
            let name = name.filter(|name| !name.is_empty()).map(checked).transpose()?;
            let path = PathBuf::from(path);
            return Ok(match form {
                OCI => Self::Layout { directory: path, name },
                OCI_ARCHIVE => Self::OciArchive { file: path, name },
                _ => Self::DockerArchive { file: path, name },
            });
        }
        Ok(Self::Registry(ImageReference::parse(text.strip_prefix("docker://").unwrap_or(text))?))
    }
}

fn checked(name: &str) -> Result<String, LocationError> {
    match name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(name.to_owned()),
        false => Err(LocationError::Name(name.chars().take(80).collect())),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (form, path, name) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout { directory, name } => (OCI, directory, name),
            Self::OciArchive { file, name } => (OCI_ARCHIVE, file, name),
            Self::DockerArchive { file, name } => (DOCKER_ARCHIVE, file, name),
        };
        write!(f, "{form}{}", path.display())?;
        name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

const OCI: &str = "oci:";
const OCI_ARCHIVE: &str = "oci-archive:";
const DOCKER_ARCHIVE: &str = "docker-archive:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_printed() {
        for text in [
            "oci:folder",
            "oci:/a/folder:1.0",
            "oci-archive:image.tar:x/y:1",
            "docker-archive:image.tar",
            "registry.example/team/app:1",
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Location::parse("docker://alpine:3").unwrap().to_string(), "docker.io/library/alpine:3");
        for bad in ["oci:", "docker-archive::name", "oci:x:a b", "", "dir:x/Y"] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
    }
}
