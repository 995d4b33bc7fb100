//! The diagrams of `states.md`, held against what the engine does.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use shoal_core::{Bitfield, Role};

use super::bench::Bench;
use super::hostile::{event, tight};
use super::{blob, peer, some};
use crate::{Event, Scope};

type Arrow = (String, String);

/// The arrows of the diagram of that number.
fn drawn(diagram: usize) -> BTreeSet<Arrow> {
    let text = include_str!("../states.md").split("```mermaid").nth(diagram + 1).unwrap();
    let text = text.split("```").next().unwrap();
    let arrows = text.lines().filter_map(|line| line.trim().split_once(" --> "));
    arrows.map(|(from, to)| (from.to_owned(), to.split(':').next().unwrap().to_owned())).collect()
}

/// What was seen between two looks.
#[derive(Default)]
struct Seen {
    blobs: BTreeSet<Arrow>,
    pieces: BTreeSet<Arrow>,
}

impl Seen {
    /// Lets the engine take one step, and notes what became of each blob and piece.
    fn step(&mut self, bench: &mut Bench, step: impl FnOnce(&mut Bench)) {
        let look = |bench: &Bench| {
            (0..3u8)
                .map(blob)
                .map(|digest| (bench.engine.state_of(&digest), bench.engine.states_of_pieces(&digest)))
                .collect::<Vec<_>>()
        };
        let before = look(bench);
        step(bench);
        for ((was, pieces_were), (is, pieces_are)) in before.into_iter().zip(look(bench)) {
            let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
            if was != is {
                self.blobs.insert(arrow(was, is));
            }
            let pieces = pieces_were.iter().zip(&pieces_are).filter(|(was, is)| was != is);
            self.pieces.extend(pieces.map(|(was, is)| arrow(was, is)));
        }
    }
}

#[test]
fn the_diagrams_show_what_happens_and_nothing_else() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    let wait = prop_oneof![5 => Just(0u64), 3 => 1..500u64, 1 => 500..30_000u64];
    let steps = (event(), wait);
    for run in 0..400 {
        let mut bench = Bench::new(tight(), 12);
        if run % 2 == 0 {
            bench.fetch(some(12, [0]), &[]);
        }
        for _ in 0..150 {
            let (event, wait) = steps.new_tree(&mut runner).unwrap().current();
            seen.step(&mut bench, |bench| drop(bench.try_event(event)));
            seen.step(&mut bench, |bench| drop(bench.advance(Duration::from_millis(wait))));
        }
    }
    // Chance hardly ever brings the last piece.
    let mut bench = Bench::new(tight(), 12);
    bench.fetch(some(12, 0..11), &[]);
    bench.member(1, Role::Agent, Bitfield::full(12));
    seen.step(&mut bench, |bench| drop(bench.good(1, 11)));
    // Nor does it let pieces come of which the reader is gone, and the peer too.
    let mut bench = Bench::new(tight(), 12);
    bench.fetch_in(Scope::Demand, some(12, 0..10), &[]);
    bench.member(1, Role::Agent, Bitfield::full(12));
    for pieces in [std::iter::once(10..12).collect(), Vec::new()] {
        seen.step(&mut bench, |bench| drop(bench.event(Event::Demand { digest: blob(0), pieces })));
    }
    seen.step(&mut bench, |bench| drop(bench.event(Event::Disconnected { peer: peer(1) })));
    for late in [10, 11] {
        seen.step(&mut bench, |bench| drop(bench.good(1, late)));
    }
    assert_eq!(seen.blobs, drawn(0), "blobs");
    assert_eq!(seen.pieces, drawn(1), "pieces");
}
