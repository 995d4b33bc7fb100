//! A layout as one archive: as it is, or as `docker load` reads it. The same image gives the same bytes.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Deserialize;
use shoal_core::Digest;
use shoal_upstream::{Descriptor, Manifest};
use tar::{Builder, EntryType, Header};

use super::{INDEX, MARKER};
use crate::error::ImageError;
use crate::files::blob_name;

/// What an archive shall be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pack {
    Oci,
    Docker,
}

/// An entry of the archive to be.
pub(super) enum Content {
    Bytes(String, Vec<u8>),
    /// A blob, under that name.
    Blob(String, Digest),
}

/// The entries of an OCI archive.
pub(super) fn oci(index: Vec<u8>, blobs: &[Digest]) -> Vec<Content> {
    let marker = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
    let head = [Content::Bytes(MARKER.into(), marker), Content::Bytes(INDEX.into(), index)];
    head.into_iter().chain(blobs.iter().map(|digest| Content::Blob(blob_name(digest), *digest))).collect()
}

/// Configuration and layers of what docker can load.
pub(super) fn image(root: &Manifest) -> Result<(&Descriptor, &[Descriptor]), ImageError> {
    match root.blobs() {
        [config, layers @ ..] if !root.media_type().is_index() => Ok((config, layers)),
        _ => Err(ImageError::Asked(
            "a docker archive holds images of one platform: choose one with --platform, such as --platform linux/amd64"
                .into(),
        )),
    }
}

/// The entries of a docker archive (docker image-spec 1.2, "Combined Image JSON + Filesystem Changeset Format"). Layers stay as
/// they are: `docker load` unpacks what is compressed.
pub(super) async fn docker(
    folder: &Path,
    root: &Manifest,
    name: Option<&str>,
) -> Result<Vec<Content>, ImageError> {
    let (config, layers) = image(root)?;
    let path = folder.join(blob_name(&config.digest));
    let bytes = tokio::fs::read(&path).await.map_err(ImageError::file(&path, "cannot be read"))?;
    let read: Option<Config> = serde_json::from_slice(&bytes).ok();
    if read.is_none_or(|config| config.rootfs.diff_ids.len() != layers.len()) {
        return Err(ImageError::Asked(format!("{} is no image that docker could load", root.digest())));
    }
    let file = |digest: &Digest| format!("{}.tar", digest.hex());
    let config_name = format!("{}.json", config.digest.hex());
    let list = serde_json::json!([{
        "Config": config_name,
        "RepoTags": name.into_iter().collect::<Vec<_>>(),
        "Layers": layers.iter().map(|layer| file(&layer.digest)).collect::<Vec<_>>(),
    }]);
    let mut contents = vec![Content::Bytes("manifest.json".into(), list.to_string().into_bytes())];
    contents.push(Content::Blob(config_name, config.digest));
    let mut unique: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    unique.sort_unstable();
    unique.dedup();
    contents.extend(unique.into_iter().map(|digest| Content::Blob(file(&digest), digest)));
    Ok(contents)
}

#[derive(Deserialize)]
struct Config {
    rootfs: Layers,
}

#[derive(Deserialize)]
struct Layers {
    diff_ids: Vec<String>,
}

/// Writes an archive beside its name, and renames it when it is on disk. Blocks.
pub(super) fn write(folder: &Path, target: &Path, contents: &[Content]) -> io::Result<()> {
    let partial = folder.join("archive.partial");
    let mut builder = Builder::new(io::BufWriter::with_capacity(1 << 20, File::create(&partial)?));
    for content in contents {
        match content {
            Content::Bytes(name, bytes) => {
                builder.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice())?;
            }
            Content::Blob(name, digest) => {
                let file = File::open(folder.join(blob_name(digest)))?;
                builder.append_data(&mut header(file.metadata()?.len()), name, file)?;
            }
        }
    }
    builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(partial, target)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
