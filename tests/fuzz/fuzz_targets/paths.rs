//! Feeds the path grammar with whatever the fuzzer thinks of.

#![no_main]

#[path = "../../../driver/tests/paths/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check(bytes));
