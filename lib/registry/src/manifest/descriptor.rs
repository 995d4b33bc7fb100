//! Descriptors: how a manifest names a blob (OCI image-spec 1.1, descriptor.md).

use data_encoding::BASE64;
use serde::Deserialize;
use shoal_core::Digest;

use super::{ChildKind, ManifestParseError, MediaType};

/// What is read of a descriptor.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: Digest,
    size: u64,
    /// The blob itself, in base64.
    data: Option<String>,
}

impl Descriptor {
    /// Whether the descriptor agrees with itself.
    pub(super) fn check(&self) -> Result<(), ManifestParseError> {
        let wrong = |reason| Err(ManifestParseError::Descriptor { digest: self.digest, reason });
        if i64::try_from(self.size).is_err() {
            return wrong("its size does not fit 63 bits");
        }
        let Some(data) = &self.data else { return Ok(()) };
        let Ok(data) = BASE64.decode(data.as_bytes()) else {
            return wrong("its data is not base64");
        };
        if data.len() as u64 != self.size || Digest::of(self.digest.algorithm(), &data) != self.digest {
            return wrong("its data is not what its size and digest say");
        }
        Ok(())
    }

    /// A layer that is to be fetched elsewhere, and so need not be here.
    pub(super) fn is_foreign(&self) -> bool {
        self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
            || self.media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    }

    /// As what an index's entry has to be there.
    pub(super) fn index_entry_kind(&self) -> ChildKind {
        if MediaType::parse(&self.media_type).is_ok() { ChildKind::Manifest } else { ChildKind::Either }
    }
}
