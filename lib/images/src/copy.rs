//! The copy itself: what is named first, the name last.

use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use shoal_core::Digest;
use shoal_upstream::{Descriptor, Platform};

use crate::error::ImageError;
use crate::place::{Put, Sink, Source};
use crate::plan::Plan;

/// What to copy.
#[derive(Clone, Debug)]
pub struct Options {
    /// The image for that platform instead of all.
    pub platform: Option<Platform>,
    /// What refers to the image too: signatures, attestations.
    pub referrers: bool,
    /// How many blobs move at a time; 1 at least.
    pub parallel: usize,
}

/// Who is told how a copy goes.
pub trait Progress: Send + Sync {
    /// That is to be moved, unless it is there.
    fn planned(&self, blobs: &[Descriptor]);
    /// So many bytes of a blob are there. May go back.
    fn at(&self, digest: &Digest, bytes: u64);
    /// A blob is there.
    fn done(&self, blob: &Descriptor, put: Put);
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The image's digest, in text.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// How many manifests there are.
    pub manifests: usize,
    /// How many blobs there are.
    pub blobs: usize,
    /// How many of them were there.
    pub present: usize,
    /// How many the registry had elsewhere.
    pub mounted: usize,
    /// The bytes of those that were moved.
    pub moved_bytes: u64,
}

/// Copies an image with all that it names.
pub async fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Copied, ImageError> {
    let plan = Plan::make(source, options.platform.as_ref(), options.referrers).await?;
    sink.accept(&plan.root)?;
    progress.planned(&plan.blobs);
    let mut copied = Copied {
        digest: plan.root.digest().to_string(),
        media_type: plan.root.media_type().to_string(),
        manifests: plan.manifests.len(),
        blobs: plan.blobs.len(),
        ..Copied::default()
    };
    // Without closures: else the compiler does not see that a copy may go from thread to thread.
    let mut moving = FuturesUnordered::new();
    for blob in &plan.blobs {
        if moving.len() >= options.parallel.max(1) {
            copied.count(moving.try_next().await?);
        }
        moving.push(move_blob(blob, source, sink, progress));
    }
    while let Some(moved) = moving.try_next().await? {
        copied.count(Some(moved));
    }
    for manifest in &plan.manifests {
        sink.put_manifest(manifest).await?;
    }
    sink.finish(&plan.root).await?;
    Ok(copied)
}

/// How a blob came to be there, and its length.
async fn move_blob(
    blob: &Descriptor,
    source: &dyn Source,
    sink: &dyn Sink,
    progress: &dyn Progress,
) -> Result<(u64, Put), ImageError> {
    let put = sink.put_blob(blob, source, progress).await?;
    progress.done(blob, put);
    Ok((blob.size, put))
}

impl Copied {
    fn count(&mut self, moved: Option<(u64, Put)>) {
        match moved {
            Some((_, Put::Present)) => self.present += 1,
            Some((_, Put::Mounted)) => self.mounted += 1,
            Some((size, Put::Moved)) => self.moved_bytes += size,
            None => {}
        }
    }
}
