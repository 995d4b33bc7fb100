//! What a copy will move: every manifest below the root, read and proved, and every blob that they name, each once.
//!
//! Manifests come in the order in which a registry takes them: what is named before what names it. A hash cannot name itself, so
//! there are no cycles; how deep, how many and how large all is together is bounded nevertheless.

use std::collections::{HashMap, HashSet};

use shoal_core::Digest;
use shoal_upstream::{Descriptor, Manifest, Platform};

use crate::error::ImageError;
use crate::place::Source;

/// What is to be moved.
#[derive(Debug)]
pub struct Plan {
    /// The image, or the index of images.
    pub root: Manifest,
    /// What is named comes before what names it. The root is the last, but for what refers to it.
    pub manifests: Vec<Manifest>,
    /// Each once.
    pub blobs: Vec<Descriptor>,
}

struct Planner<'a> {
    source: &'a dyn Source,
    seen: HashSet<Digest>,
    manifests: Vec<Manifest>,
    blobs: HashMap<Digest, Descriptor>,
    order: Vec<Digest>,
    bytes: usize,
}

impl Plan {
    /// Reads all that there is to move. With `platform` only the image for it is moved, and it becomes the root.
    pub async fn make(
        source: &dyn Source,
        platform: Option<&Platform>,
        referrers: bool,
    ) -> Result<Self, ImageError> {
        let mut root = source.root().await?;
        if let Some(platform) = platform {
            root = choose(source, root, platform).await?;
        }
        let mut planner = Planner {
            source,
            seen: HashSet::new(),
            manifests: Vec::new(),
            blobs: HashMap::new(),
            order: Vec::new(),
            bytes: 0,
        };
        planner.add(root.clone(), 0).await?;
        if referrers {
            planner.add_referrers().await?;
        }
        let Planner { manifests, mut blobs, order, .. } = planner;
        let blobs = order.iter().filter_map(|digest| blobs.remove(digest)).collect();
        Ok(Self { root, manifests, blobs })
    }
}

/// The image for a platform.
async fn choose(source: &dyn Source, root: Manifest, platform: &Platform) -> Result<Manifest, ImageError> {
    if !root.media_type().is_index() {
        return Ok(root);
    }
    let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|offered| platform.takes(offered));
    let entry = root.manifests().iter().find(fits).ok_or_else(|| {
        let offered = root.manifests().iter().filter_map(|entry| entry.platform.as_ref());
        let mut names: Vec<_> = offered.map(ToString::to_string).collect();
        names.dedup();
        names.truncate(MAX_NAMED);
        let names = names.join(", ").replace(char::is_control, " ");
        ImageError::Asked(format!("{} has no image for {platform}: it has {names}", root.digest()))
    })?;
    let chosen = source.manifest(entry).await?;
    if chosen.media_type().is_index() {
        return Err(ImageError::Asked(format!(
            "{} is an index in an index: copy all of it, without --platform",
            entry.digest
        )));
    }
    Ok(chosen)
}

impl Planner<'_> {
    /// Adds what the manifest names, then the manifest.
    async fn add(&mut self, manifest: Manifest, depth: usize) -> Result<(), ImageError> {
        if !self.seen.insert(manifest.digest()) {
            return Ok(());
        }
        self.count(&manifest, depth)?;
        for blob in manifest.blobs() {
            self.add_blob(blob)?;
        }
        for entry in manifest.manifests() {
            if !entry.is_manifest() {
                // BuildKit lists the layers of its cache so.
                self.add_blob(entry)?;
            } else if !self.seen.contains(&entry.digest) {
                let child = self.read(entry).await?;
                Box::pin(self.add(child, depth + 1)).await?;
            }
        }
        self.manifests.push(manifest);
        Ok(())
    }

    async fn read(&self, entry: &Descriptor) -> Result<Manifest, ImageError> {
        let manifest = self.source.manifest(entry).await?;
        match manifest.bytes().len() as u64 == entry.size {
            true => Ok(manifest),
            false => Err(ImageError::invalid(entry.digest, "its length is not what its descriptor says")),
        }
    }

    fn count(&mut self, manifest: &Manifest, depth: usize) -> Result<(), ImageError> {
        self.bytes += manifest.bytes().len();
        let too_much = |what: String| Err(ImageError::invalid(manifest.digest(), what));
        match () {
            () if depth > MAX_DEPTH => too_much(format!("indexes are nested more than {MAX_DEPTH} deep")),
            () if self.seen.len() > MAX_MANIFESTS => {
                too_much(format!("there are more than {MAX_MANIFESTS} manifests"))
            }
            () if self.bytes > MAX_BYTES => {
                too_much(format!("manifests have more than {MAX_BYTES} bytes together"))
            }
            () => Ok(()),
        }
    }

    fn add_blob(&mut self, blob: &Descriptor) -> Result<(), ImageError> {
        match self.blobs.get(&blob.digest) {
            Some(known) if known.size != blob.size => Err(ImageError::invalid(
                blob.digest,
                format!("it has {} bytes or {}, as manifests say", known.size, blob.size),
            )),
            Some(_) => Ok(()),
            None if self.order.len() == MAX_BLOBS => {
                Err(ImageError::invalid(blob.digest, format!("there are more than {MAX_BLOBS} blobs")))
            }
            None => {
                self.order.push(blob.digest);
                self.blobs.insert(blob.digest, blob.clone());
                Ok(())
            }
        }
    }

    /// What refers to the manifests, and what refers to that: signatures of attestations.
    async fn add_referrers(&mut self) -> Result<(), ImageError> {
        let mut next = 0;
        while let Some(subject) = self.manifests.get(next).map(Manifest::digest) {
            next += 1;
            for entry in self.source.referrers(&subject).await? {
                if !self.seen.contains(&entry.digest) {
                    let referrer = self.read(&entry).await?;
                    if referrer.subject().is_some_and(|named| named.digest == subject) {
                        self.add(referrer, 0).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// An index of indexes of images, and room for what comes.
const MAX_DEPTH: usize = 8;
/// Some thousand referrers of some hundred platforms.
const MAX_MANIFESTS: usize = 10_000;
/// All manifests are in memory until they are put.
const MAX_BYTES: usize = 256 << 20;
/// A hundred platforms of a hundred layers are a tenth.
const MAX_BLOBS: usize = 100_000;
/// Platforms that an error names.
const MAX_NAMED: usize = 30;

#[cfg(test)]
mod tests;
