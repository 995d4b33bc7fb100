//! What nodes of the overlay say: gossip, questions and their answers, addresses in records.

#![no_main]

use shoal_control::overlay::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 4 {
        0 => fuzzing::notice(bytes),
        1 => fuzzing::question(bytes),
        2 => fuzzing::answer(bytes),
        _ => fuzzing::address(bytes),
    }
});
