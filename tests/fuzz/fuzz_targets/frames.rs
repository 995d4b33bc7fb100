//! The data plane: frames of a peer, one after the other, as they come from a stream.

#![no_main]

use bytes::BytesMut;
use shoal_transfer::wire::Frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(frame)) = Frame::decode(&mut input) {
        let mut again = BytesMut::new();
        frame.encode(&mut again);
        assert_eq!(Frame::decode(&mut again).unwrap(), Some(frame));
        assert!(again.is_empty());
    }
});
