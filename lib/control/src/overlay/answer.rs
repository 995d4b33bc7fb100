//! What a node can say of its own blobs to whoever asks by the overlay.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Digest, RepositoryName, SignedMetainfo};

/// A blob that the node has, some of it at least, and that the repository may see.
#[derive(Clone, Debug)]
pub struct Holder {
    /// With the proof that came with it.
    pub metainfo: SignedMetainfo,
    /// For how long the asking node may let that repository see the blob on this word alone.
    pub lent: Duration,
}

/// Looks a blob up for a repository (`None`: any). The same answers that the node acts on itself.
pub type Library = Arc<dyn Fn(Option<RepositoryName>, Digest) -> Looked + Send + Sync>;

/// What [`Library`] gives.
pub type Looked = Pin<Box<dyn Future<Output = Option<Holder>> + Send>>;
