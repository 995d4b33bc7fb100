//! Hashing that does not hold up the async threads: a little is hashed here, much on a blocking thread.

use bytes::Bytes;
use shoal_core::{Algorithm, Digest, Digester};

/// Takes the next bytes.
pub(crate) async fn absorb(mut digester: Digester, bytes: Bytes) -> Digester {
    let before = digester.clone();
    let here = bytes.clone();
    let hash = move || {
        digester.update(&bytes);
        digester
    };
    if here.len() <= MAX_INLINE {
        return hash();
    }
    // The runtime refuses blocking work only while it shuts down: then here is as good a place as any.
    tokio::task::spawn_blocking(hash).await.unwrap_or_else(|_| {
        let mut digester = before;
        digester.update(&here);
        digester
    })
}

/// The digest of bytes that are all there.
pub(crate) async fn hash(algorithm: Algorithm, bytes: Bytes) -> Digest {
    absorb(Digester::new(algorithm), bytes).await.finish()
}

/// 64 KiB take about 40 µs, a hop to another thread not much less.
const MAX_INLINE: usize = 64 << 10;
