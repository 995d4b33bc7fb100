//! Metainfo, signed or not, whoever passed it on: its encoding is canonical.
//!
//! Blind bytes do not get deep: those that begin with an even byte are written over a true encoding, at a place that they name.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use shoal_core::{Metainfo, Proof, SignedMetainfo};

static TRUE_ONE: LazyLock<Bytes> = LazyLock::new(|| {
    let metainfo = Metainfo::of(&[7; 100_000]).unwrap();
    let proof = Proof { certificate: Bytes::from_static(b"certificate"), signature: Bytes::from_static(b"signature") };
    SignedMetainfo { metainfo, proof }.encode()
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = match bytes {
        [even, place, rest @ ..] if even % 2 == 0 => {
            let mut altered = TRUE_ONE.to_vec();
            let place = usize::from(*place) % altered.len();
            let end = altered.len().min(place + rest.len());
            altered.splice(place..end, rest.iter().copied());
            Bytes::from(altered)
        }
        bytes => Bytes::copy_from_slice(bytes),
    };
    if let Ok(signed) = SignedMetainfo::decode(bytes.clone()) {
        assert_eq!(signed.encode(), bytes);
    }
    if let Ok(metainfo) = Metainfo::decode(bytes.clone()) {
        assert_eq!(metainfo.encode(), bytes);
    }
    // The metainfo within.
    if bytes.len() > 4
        && let Ok(metainfo) = Metainfo::decode(bytes.slice(4..))
    {
        assert_eq!(metainfo.encode(), bytes.slice(4..));
    }
});
