//! What trackers and origins are asked, and what they answer: the first byte says which of it.

#![no_main]

use serde_json::from_slice;
use shoal_control::fuzzing;
use shoal_control::message::{
    AnnounceRequest, Announced, EnrolRequest, ErrorReply, FindRequest, TagQuery, TagsReply,
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 8 {
        0 => fuzzing::find_reply(bytes),
        1 => drop(from_slice::<AnnounceRequest<'_>>(bytes)),
        2 => drop(from_slice::<Announced>(bytes)),
        3 => drop(from_slice::<EnrolRequest>(bytes)),
        4 => drop(from_slice::<ErrorReply>(bytes)),
        5 => drop(from_slice::<FindRequest>(bytes)),
        6 => drop(from_slice::<TagQuery>(bytes)),
        _ => drop(from_slice::<TagsReply>(bytes)),
    }
});
