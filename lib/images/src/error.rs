//! What goes wrong with images.

use std::path::PathBuf;

use shoal_core::Digest;
use shoal_upstream::UpstreamError;

/// Why an image was not copied.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A registry did not do.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A file could not be read or written.
    #[error("{path}: {doing}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A layout or an archive is not what it should be.
    #[error("{place}: {reason}")]
    Invalid {
        /// Which.
        place: String,
        /// In what.
        reason: String,
    },
    /// A blob could not be read, or its bytes are not what its digest says.
    #[error("blob {digest}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was asked for does not fit together.
    #[error("{0}")]
    Asked(String),
}

impl ImageError {
    pub(crate) fn invalid(place: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Invalid { place: place.to_string(), reason: reason.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, doing, source }
    }
}
