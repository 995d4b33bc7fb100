//! Metainfo, signed or not, whoever passed it on: its encoding is canonical.

#![no_main]

use bytes::Bytes;
use shoal_core::{Metainfo, SignedMetainfo};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(metainfo) = Metainfo::decode(bytes.clone()) {
        assert_eq!(metainfo.encode(), bytes);
    }
    if let Ok(signed) = SignedMetainfo::decode(bytes.clone()) {
        assert_eq!(signed.encode(), bytes);
    }
});
