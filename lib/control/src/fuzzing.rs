//! What the fuzz targets call of what is read here.

use bytes::Bytes;
use shoal_core::Digest;

use crate::message::{AnnounceRequest, FindReply};

/// What a tracker answers to a find.
pub fn find_reply(bytes: &[u8]) {
    let digest = Digest::sha256(b"");
    if let Ok(found) = crate::tracker::read_found(&Bytes::copy_from_slice(bytes), &digest) {
        assert!(found.peers.len() <= FindReply::MAX_PEERS);
        let most = found.peers.iter().map(|peer| peer.addresses.len()).max();
        assert!(most <= Some(AnnounceRequest::MAX_ADDRESSES));
    }
}
