//! The record of a node, as `shoal replay` reads it: a file that may be cut, altered or none at all.

#![no_main]

use shoal_swarm::record::Line;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(line) = Line::decode(text) {
        assert_eq!(Line::decode(&line.encode()).unwrap(), line);
    }
});
