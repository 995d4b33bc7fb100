//! The copy itself: what is named first, the name last.

use futures_util::{StreamExt, TryStreamExt, stream};
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
    let moves = plan.blobs.iter().map(|blob| async move {
        let put = sink.put_blob(blob, source, progress).await?;
        progress.done(blob, put);
        Ok::<_, ImageError>((blob.size, put))
    });
    let outcomes: Vec<_> =
        stream::iter(moves).buffer_unordered(options.parallel.max(1)).try_collect().await?;
    for (size, put) in outcomes {
        match put {
            Put::Present => copied.present += 1,
            Put::Mounted => copied.mounted += 1,
            Put::Moved => copied.moved_bytes += size,
        }
    }
    for manifest in &plan.manifests {
        sink.put_manifest(manifest).await?;
    }
    sink.finish(&plan.root).await?;
    Ok(copied)
}
