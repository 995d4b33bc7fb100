//! Which piece is asked of whom.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shoal_core::{Bitfield, PieceIndex, Role};

use super::bench::{Bench, cancels, requests};
use super::{blob, some};
use crate::{Action, Config, Event, Message};

#[test]
fn reader_pieces_come_first() {
    let config = Config { requests_per_agent: 4, ..Config::default() };
    let mut bench = Bench::new(config, 100);
    bench.fetch(Bitfield::empty(100), &[]);
    bench.event(Event::Demand { digest: blob(0), pieces: vec![10..100, 50..100] });
    let asked = requests(&bench.member(1, Role::Agent, Bitfield::full(100)), 1);
    assert_eq!(asked[0], 10);
    let readers: BTreeSet<_> =
        asked.iter().copied().filter(|piece| [10, 11, 50, 51].contains(piece)).collect();
    assert!(readers.is_superset(&BTreeSet::from([10, 50])), "readers take turns: {asked:?}");
    assert_eq!(asked.len(), 4);
}

#[test]
fn readers_leave_half_of_what_is_in_flight_to_rarity() {
    let mut bench = Bench::new(Config { requests_per_agent: 16, ..Config::default() }, 1000);
    bench.fetch(Bitfield::empty(1000), &[]);
    bench.event(Event::Demand { digest: blob(0), pieces: vec![0..1000, 100..1000, 200..1000] });
    let asked = requests(&bench.member(1, Role::Agent, Bitfield::full(1000)), 1);
    let windows = [0..4u32, 100..104, 200..204];
    let readers = asked.iter().filter(|&piece| windows.iter().any(|window| window.contains(piece))).count();
    assert!((6..=9).contains(&readers), "{readers} of {asked:?}");
}

#[test]
fn an_origin_that_agents_share_is_asked_for_few_pieces_of_readers() {
    let config = Config { requests_per_origin: 8, ..Config::default() };
    let readers_of = |agents: u8| {
        let mut bench = Bench::new(config.clone(), 1000);
        bench.fetch(Bitfield::empty(1000), &[]);
        bench.event(Event::Demand { digest: blob(0), pieces: std::iter::once(0..1000).collect() });
        for number in 2..2 + agents {
            bench.member(number, Role::Agent, Bitfield::empty(1000));
        }
        let asked = requests(&bench.member(1, Role::Origin, Bitfield::full(1000)), 1);
        assert_eq!(asked.len(), 8);
        asked.into_iter().filter(|&piece| piece < 4).count()
    };
    assert_eq!(readers_of(0), 4, "alone with the origin, the whole window is asked for");
    assert_eq!(readers_of(1), 1, "with another agent, only what the reader waits for");
}

#[test]
fn a_reader_waits_at_the_first_missing_piece_of_its_range() {
    let mut bench = Bench::new(Config { requests_per_agent: 1, ..Config::default() }, 50);
    bench.fetch(some(50, 20..30), &[]);
    bench.event(Event::Demand { digest: blob(0), pieces: std::iter::once(20..60).collect() });
    assert_eq!(requests(&bench.member(1, Role::Agent, Bitfield::full(50)), 1), [30]);
    assert_eq!(requests(&bench.good(1, 30), 1), [31]);
}

#[test]
fn rarest_pieces_are_asked_first() {
    let mut bench = Bench::new(Config { requests_per_agent: 2, ..Config::default() }, 40);
    bench.fetch(Bitfield::empty(40), &[]);
    bench.member(1, Role::Agent, some(40, [0, 1]));
    for number in 2..5 {
        bench.member(number, Role::Agent, some(40, 0..38));
    }
    let asked = requests(&bench.member(5, Role::Agent, Bitfield::full(40)), 5);
    assert_eq!(asked.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([38, 39]));
}

#[test]
fn an_origin_is_asked_for_what_no_agent_has() {
    let mut bench = Bench::new(Config { requests_per_agent: 1, ..Config::default() }, 12);
    bench.fetch(Bitfield::empty(12), &[]);
    bench.member(1, Role::Agent, some(12, 0..10));
    let asked = requests(&bench.member(2, Role::Origin, Bitfield::full(12)), 2);
    assert_eq!(asked[..2].iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([10, 11]));
    assert_eq!(asked.len(), 4, "once nothing else is left it helps out");
}

#[test]
fn resume_with_have_asks_only_for_missing() {
    let mut bench = Bench::new(Config::default(), 10);
    bench.fetch(some(10, 0..7), &[]);
    let asked = requests(&bench.member(1, Role::Agent, Bitfield::full(10)), 1);
    assert_eq!(asked.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([7, 8, 9]));
}

#[test]
fn endgame_asks_at_most_two_extra_and_cancels() {
    let mut bench = Bench::new(Config::default(), 1);
    bench.fetch(Bitfield::empty(1), &[]);
    for number in 1..=5 {
        bench.member(number, Role::Agent, Bitfield::full(1));
    }
    let delay = 310;
    let later: Vec<_> = (0..5).map(|_| bench.millis(delay)).collect();
    let extra = |step: usize| (1..=5).map(|number| requests(&later[step], number).len()).sum::<usize>();
    assert_eq!((0..5).map(extra).collect::<Vec<_>>(), [1, 1, 0, 0, 0]);
    let done = bench.good(1, 0);
    assert_eq!((1..=5).map(|number| cancels(&done, number).len()).sum::<usize>(), 2);
    assert!(done.contains(&Action::Complete { digest: blob(0) }));
}

#[test]
fn news_of_a_piece_unlocks_a_request_and_counts_once() {
    let mut bench = Bench::new(Config::default(), 3);
    bench.fetch(Bitfield::empty(3), &[]);
    bench.member(1, Role::Agent, Bitfield::empty(3));
    let have = || Message::Have { digest: blob(0), piece: PieceIndex(2) };
    assert_eq!(requests(&bench.say(1, have()), 1), [2]);
    assert_eq!(bench.say(1, have()), []);
}

#[test]
fn several_swarms_share_one_connection_in_turn() {
    let mut bench = Bench::new(Config { requests_per_agent: 4, ..Config::default() }, 10);
    bench.fetch(Bitfield::empty(10), &[]);
    let geometry = super::pieces(10);
    bench.event(Event::Fetch { digest: blob(1), geometry, have: Bitfield::empty(10), candidates: vec![] });
    bench.member(1, Role::Agent, Bitfield::full(10));
    bench.say(1, Message::Join { digest: blob(1), have: Bitfield::full(10) });
    // The first swarm had all slots; as they become free the other gets its share.
    let mut asked = Vec::new();
    for piece in 0..10 {
        let event = |piece| Event::Received {
            peer: super::peer(1),
            digest: blob(0),
            piece: PieceIndex(piece),
            outcome: crate::PieceOutcome::Good,
        };
        if let Ok(actions) = bench.try_event(event(piece)) {
            asked.extend(actions.into_iter().filter_map(|action| match action {
                Action::Send { message: Message::Request { digest, .. }, .. } => Some(digest),
                _ => None,
            }));
        }
    }
    assert!(asked.contains(&blob(1)), "{asked:?}");
}

proptest! {
    #[test]
    fn every_missing_piece_that_a_lone_peer_has_is_asked_for(
        count in 1u32..60,
        held in prop::collection::vec(0u32..60, 0..40),
        offered in prop::collection::vec(0u32..60, 0..60),
    ) {
        let mut bench = Bench::new(Config::default(), count);
        let held = some(count, held);
        let offered = some(count, offered);
        prop_assume!(!held.is_full());
        bench.fetch(held.clone(), &[]);
        let wanted: BTreeSet<_> = offered.difference(&held).map(|piece| piece.0).collect();
        let mut queue = requests(&bench.member(1, Role::Agent, offered.clone()), 1);
        let mut got = BTreeSet::new();
        while let Some(piece) = queue.pop() {
            prop_assert!(got.insert(piece));
            queue.extend(requests(&bench.good(1, piece), 1));
        }
        prop_assert_eq!(got, wanted);
    }
}
