//! OCI image layouts (OCI image-spec 1.1, image-layout.md), in a folder or as an archive.
//!
//! A blob is written beside its name and renamed when its digest is proved; what a killed process left is hashed and gone on with.
//! One process writes to a layout at a time: it has a lock on `oci-layout`. `index.json` is replaced as a whole, last.

mod index;
mod pack;
mod write;

use std::io;

use async_trait::async_trait;
use futures_util::StreamExt;
use shoal_core::{Algorithm, Digest, RepositoryName};
use shoal_upstream::{ByteStream, Descriptor, MAX_MANIFEST_BYTES, Manifest, MediaType, RegistryHost};

pub use write::LayoutSink;

use crate::error::ImageError;
use crate::files::{Files, blob_name};
use crate::place::Source;
use crate::proof::proved;

/// An image in a layout.
#[derive(Debug)]
pub struct LayoutSource {
    files: Files,
    name: Option<String>,
}

impl LayoutSource {
    /// In a folder.
    pub async fn folder(path: &std::path::Path, name: Option<String>) -> Result<Self, ImageError> {
        Ok(Self { files: Files::folder(path).await?, name })
    }

    /// In an archive, which is read where it is.
    pub async fn archive(path: &std::path::Path, name: Option<String>) -> Result<Self, ImageError> {
        Ok(Self { files: Files::archive(path).await?, name })
    }

    /// What the layout's index lists.
    async fn listed(&self) -> Result<Manifest, ImageError> {
        let marker = self.files.read(MARKER, MAX_MARKER).await?;
        let version: Option<Marker> = serde_json::from_slice(&marker).ok();
        if version.is_none_or(|marker| !marker.image_layout_version.starts_with("1.")) {
            return Err(ImageError::invalid(self.files.place(), "it is no OCI layout of version 1"));
        }
        let index = self.files.read(INDEX, MAX_MANIFEST_BYTES).await?;
        Manifest::parse_new(index, Algorithm::Sha256, Some(MediaType::OciIndex.as_str()))
            .map_err(|error| ImageError::invalid(self.files.place(), format!("{INDEX}: {error}")))
    }

    /// The one entry that is meant.
    fn chosen<'a>(&self, index: &'a Manifest) -> Result<&'a Descriptor, ImageError> {
        let entries = index.manifests();
        let names: Vec<_> = entries.iter().filter_map(ref_name).collect();
        let known =
            || if names.is_empty() { "it names none".to_owned() } else { format!("it has {}", some(&names)) };
        let found: Vec<_> = match &self.name {
            Some(name) => entries.iter().filter(|entry| ref_name(entry) == Some(name)).collect(),
            // Signatures and attestations are listed beside what they are about.
            None if entries.len() > 1 => {
                entries.iter().filter(|entry| entry.artifact_type.is_none()).collect()
            }
            None => entries.iter().collect(),
        };
        match (found.as_slice(), &self.name) {
            ([one], _) => Ok(one),
            ([], Some(name)) => {
                Err(ImageError::invalid(self.files.place(), format!("there is no image {name}: {}", known())))
            }
            ([], None) => Err(ImageError::invalid(self.files.place(), "it has no image")),
            (_, Some(name)) => {
                Err(ImageError::invalid(self.files.place(), format!("it has several images {name}")))
            }
            (_, None) => {
                let reason = format!(
                    "it has {} images, say which with :NAME after the path; {}",
                    entries.len(),
                    known()
                );
                Err(ImageError::invalid(self.files.place(), reason))
            }
        }
    }
}

#[async_trait]
impl Source for LayoutSource {
    async fn root(&self) -> Result<Manifest, ImageError> {
        let index = self.listed().await?;
        self.manifest(self.chosen(&index)?).await
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        let bytes = self.files.read(&blob_name(&descriptor.digest), MAX_MANIFEST_BYTES).await?;
        Manifest::parse(bytes, &descriptor.digest, Some(&descriptor.media_type)).map_err(|error| {
            ImageError::invalid(self.files.place(), format!("{}: {error}", descriptor.digest))
        })
    }

    async fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<ByteStream> {
        open(&self.files, blob, offset).await
    }

    /// Those that the index lists, for that is where a layout keeps them (image-layout.md, "index.json").
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let mut found = Vec::new();
        for entry in self.listed().await?.manifests().iter().filter(|entry| entry.is_manifest()) {
            let manifest = self.manifest(entry).await?;
            if manifest.subject().is_some_and(|named| named.digest == *subject) {
                found.push(entry.clone());
            }
        }
        Ok(found)
    }

    fn repository(&self) -> Option<(&RegistryHost, &RepositoryName)> {
        None
    }
}

/// A blob of a layout.
async fn open(files: &Files, blob: &Descriptor, offset: u64) -> io::Result<ByteStream> {
    let name = blob_name(&blob.digest);
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{} has no {name}", files.place()));
    let found = files.find(&name).await?.ok_or_else(missing)?;
    if found.extent.length != blob.size {
        let reason = format!("{name} has {} bytes, its descriptor says {}", found.extent.length, blob.size);
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let stream = found.open(offset).await?;
    Ok(if offset == 0 { proved(stream, blob).boxed() } else { stream })
}

fn ref_name(entry: &Descriptor) -> Option<&String> {
    match entry.annotations.as_ref()?.get(REF_NAME)? {
        serde_json::Value::String(name) => Some(name),
        _ => None,
    }
}

/// The first of many names.
fn some(names: &[&String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(10)
        .map(|name| name.chars().filter(|c| !c.is_control()).take(100).collect())
        .collect();
    let more = names.len().saturating_sub(shown.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MAX_MARKER: usize = 4 << 10;
