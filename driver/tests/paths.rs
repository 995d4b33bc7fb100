//! The fuzz target's properties on random input, so that every change is held to them.

#[path = "paths/properties.rs"]
mod properties;

use proptest::prelude::*;
use shoal_driver::{DriverPath, RegistryPath};

#[test]
fn the_words_reach_the_whole_layout() {
    // Index entry link: beginning 3 (a tag), then index, sha256, hex, link.
    let text = properties::text_of(&[3, 11, 16, 19, 12]);
    let path = DriverPath::parse(&text).unwrap();
    assert!(matches!(RegistryPath::parse(&path), Ok(RegistryPath::TagIndexEntryLink(..))), "{text}");
    // Blob data: beginning 6 (blobs of an algorithm), then shard, hex, data.
    let path = DriverPath::parse(&properties::text_of(&[6, 18, 19, 13])).unwrap();
    assert!(matches!(RegistryPath::parse(&path), Ok(RegistryPath::BlobData(_))), "{path}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_keep_the_grammars_promises(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
        properties::check(&bytes);
    }

    #[test]
    fn long_texts_keep_the_grammars_promises(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        properties::check(&bytes);
    }
}
