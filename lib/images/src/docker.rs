//! Archives of `docker save`, of old and new docker, podman and skopeo.
//!
//! Such an archive has no manifest that a registry takes, so one is made: configuration and layers as they are, byte for byte. A
//! layer that is not compressed has to be what the configuration says; of compressed ones the registry's clients prove that.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use shoal_core::{Algorithm, Digest, Digester, RepositoryName};
use shoal_upstream::{
    ByteStream, Descriptor, ImageReference, MAX_MANIFEST_BYTES, Manifest, MediaType, RegistryHost,
};

use crate::archive::Extent;
use crate::error::ImageError;
use crate::files::{Files, Found, blocking};
use crate::place::Source;
use crate::proof::proved;

/// An image of an archive.
#[derive(Debug)]
pub struct DockerSource {
    manifest: Manifest,
    blobs: HashMap<Digest, Found>,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl DockerSource {
    /// Opens an archive and hashes its layers, once: only their bytes say how a registry calls them.
    pub async fn open(path: &Path, name: Option<&str>) -> Result<Self, ImageError> {
        let files = Files::archive(path).await?;
        let item = chosen(&files, name).await?;
        let config = files.read(&item.config, MAX_MANIFEST_BYTES).await?;
        let invalid = |reason: String| ImageError::invalid(files.place(), reason);
        let read: Config =
            serde_json::from_slice(&config).map_err(|error| invalid(format!("{}: {error}", item.config)))?;
        let diff_ids = read.rootfs.diff_ids;
        if diff_ids.len() != item.layers.len() || diff_ids.len() > MAX_LAYERS {
            let counts = format!("{} layers, its configuration has {}", item.layers.len(), diff_ids.len());
            return Err(invalid(format!("it names {counts}; at most {MAX_LAYERS} are read")));
        }
        let mut image =
            Builder { files: &files, seen: HashMap::new(), blobs: HashMap::new(), layers: Vec::new() };
        for (layer, diff_id) in item.layers.iter().zip(diff_ids) {
            image.add(layer, diff_id).await?;
        }
        image.finish(&item.config, &config).await
    }
}

/// The image that is meant, of those in `manifest.json`.
async fn chosen(files: &Files, name: Option<&str>) -> Result<Item, ImageError> {
    let text = files.read("manifest.json", MAX_MANIFEST_BYTES).await?;
    let invalid = |reason: String| ImageError::invalid(files.place(), reason);
    let items: Vec<Item> =
        serde_json::from_slice(&text).map_err(|error| invalid(format!("manifest.json: {error}")))?;
    let count = items.len();
    let meant =
        |item: &Item| name.is_none_or(|name| item.repo_tags.iter().flatten().any(|tag| same(tag, name)));
    let mut found: Vec<_> = items.into_iter().filter(meant).collect();
    match (found.pop(), found.is_empty(), name) {
        (Some(item), true, _) => Ok(item),
        (None, _, Some(name)) => {
            Err(invalid(format!("none of its {count} images is named {}", name.escape_debug())))
        }
        (None, _, None) => Err(invalid("it has no image".into())),
        (Some(_), false, _) => {
            Err(invalid(format!("it has {count} images: say which with :NAME:TAG after the path")))
        }
    }
}

/// `app:1` of docker is `docker.io/library/app:1` of skopeo.
fn same(tag: &str, name: &str) -> bool {
    let read = |text| {
        let reference = ImageReference::parse(text).ok()?;
        Some((reference.manifest(), reference.host, reference.repository))
    };
    tag == name || read(tag).is_some_and(|tag| Some(tag) == read(name))
}

struct Builder<'a> {
    files: &'a Files,
    /// What was hashed: two layers may be one file.
    seen: HashMap<Extent, Descriptor>,
    blobs: HashMap<Digest, Found>,
    layers: Vec<Descriptor>,
}

impl Builder<'_> {
    async fn add(&mut self, name: &str, diff_id: Digest) -> Result<(), ImageError> {
        let invalid = |reason: String| ImageError::invalid(self.files.place(), reason);
        let excerpt: String = name.chars().take(80).collect();
        let found = self.files.find(name).await.map_err(|error| invalid(error.to_string()))?;
        let found = found.ok_or_else(|| invalid(format!("there is no layer {excerpt:?}")))?;
        let layer = match self.seen.get(&found.extent) {
            Some(layer) => layer.clone(),
            None => {
                let (file, extent) = (found.file.clone(), found.extent);
                blocking(move || hash(&file, extent)).await.map_err(|error| invalid(error.to_string()))?
            }
        };
        if layer.media_type == PLAIN && layer.digest != diff_id {
            return Err(invalid(format!(
                "layer {excerpt:?} has digest {}, its configuration says {diff_id}",
                layer.digest
            )));
        }
        self.seen.insert(found.extent, layer.clone());
        self.blobs.insert(layer.digest, found);
        self.layers.push(layer);
        Ok(())
    }

    async fn finish(mut self, name: &str, config: &Bytes) -> Result<DockerSource, ImageError> {
        let invalid = |reason: String| ImageError::invalid(self.files.place(), reason);
        let digest = Digest::sha256(config);
        let found = self.files.find(name).await.map_err(|error| invalid(error.to_string()))?;
        self.blobs.extend(found.map(|found| (digest, found)));
        let kind = MediaType::OciManifest.as_str();
        let document = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": { "mediaType": CONFIG, "digest": digest, "size": config.len() },
            "layers": self.layers,
        });
        let manifest = Manifest::parse_new(Bytes::from(document.to_string()), Algorithm::Sha256, Some(kind))
            .map_err(|error| invalid(error.to_string()))?;
        Ok(DockerSource { manifest, blobs: self.blobs })
    }
}

#[async_trait]
impl Source for DockerSource {
    async fn root(&self) -> Result<Manifest, ImageError> {
        Ok(self.manifest.clone())
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        Err(ImageError::Asked(format!("a docker archive has no manifest {}", descriptor.digest)))
    }

    async fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<ByteStream> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the archive does not have it");
        let stream = self.blobs.get(&blob.digest).ok_or_else(missing)?.open(offset).await?;
        // The file may have changed since it was hashed.
        Ok(if offset == 0 { proved(stream, blob).boxed() } else { stream })
    }

    async fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        Ok(Vec::new())
    }

    fn repository(&self) -> Option<(&RegistryHost, &RepositoryName)> {
        None
    }
}

/// How a registry calls a layer. Blocks.
fn hash(path: &Path, extent: Extent) -> io::Result<Descriptor> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = file.take(extent.length);
    let (mut digester, mut buffer, mut media_type) =
        (Digester::new(Algorithm::Sha256), vec![0; BUFFER], None);
    loop {
        let count = bytes.read(&mut buffer)?;
        media_type.get_or_insert_with(|| layer_type(&buffer[..count]));
        if count == 0 {
            break;
        }
        digester.update(&buffer[..count]);
    }
    Ok(Descriptor::new(media_type.unwrap_or(PLAIN), digester.finish(), extent.length))
}

/// By the first bytes, as docker does.
fn layer_type(head: &[u8]) -> &'static str {
    match head {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => PLAIN,
    }
}

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker itself stops at 127.
const MAX_LAYERS: usize = 1000;
const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.finish().unwrap();
        file
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": ids } }).to_string().into_bytes()
    }

    #[tokio::test]
    async fn an_image_is_found_by_its_name() {
        let list = br#"[{"Config":"a.json","RepoTags":["x:1"],"Layers":["l"]},{"Config":"a.json","RepoTags":null,"Layers":["l"]}]"#;
        let config = config(&[b"layer"]);
        let file = archive(&[("manifest.json", list), ("a.json", &config), ("l", b"layer")]);
        let source = DockerSource::open(file.path(), Some("x:1")).await.unwrap();
        let root = source.root().await.unwrap();
        assert_eq!(root.blobs()[0].digest, Digest::sha256(&config));
        assert_eq!(root.blobs()[1].digest, Digest::sha256(b"layer"));
        assert!(DockerSource::open(file.path(), Some("docker.io/library/x:1")).await.is_ok());
        for (name, reason) in [(None, "2 images"), (Some("y"), "none of its 2")] {
            let error = DockerSource::open(file.path(), name).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[tokio::test]
    async fn an_archive_that_does_not_agree_with_itself_is_refused() {
        let list = br#"[{"Config":"a.json","RepoTags":null,"Layers":["l"]}]"#.as_slice();
        let traversal = br#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#.as_slice();
        let (right, two) = (config(&[b"layer"]), config(&[b"layer", b"more"]));
        for (entries, reason) in [
            (
                vec![("manifest.json", list), ("a.json", &right[..]), ("l", b"other".as_slice())],
                "its configuration says",
            ),
            (vec![("manifest.json", list), ("a.json", &right[..])], "no layer"),
            (vec![("manifest.json", list), ("a.json", &two[..]), ("l", b"layer")], "its configuration has 2"),
            (vec![("manifest.json", list)], "no a.json"),
            (vec![("manifest.json", traversal)], "there is no"),
            (vec![("manifest.json", b"[]")], "no image"),
            (vec![("manifest.json", b"{")], "manifest.json"),
            (vec![], "no manifest.json"),
        ] {
            let error = DockerSource::open(archive(&entries).path(), None).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
