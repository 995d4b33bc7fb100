//! Which piece is asked of whom.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shoal_core::{Bitfield, PieceIndex, Role, Zone};

use super::bench::{Bench, cancels, requests};
use super::{blob, some};
use crate::{Action, Config, Event, Message, Priority, Scope};

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
fn an_origin_is_spared_while_agents_are_quick_and_helps_where_they_are_slow() {
    let mut bench = Bench::new(Config { requests_per_agent: 6, ..Config::default() }, 200);
    bench.fetch(Bitfield::empty(200), &[]);
    let mut agent = requests(&bench.member(1, Role::Agent, Bitfield::full(200)), 1);
    assert_eq!(
        requests(&bench.member(2, Role::Origin, Bitfield::full(200)), 2),
        [0; 0],
        "the agent has everything"
    );
    for _ in 0..5 {
        bench.millis(10);
        let actions = bench.good(1, agent.remove(0));
        agent.extend(requests(&actions, 1));
        assert_eq!(requests(&actions, 2), [0; 0]);
    }
    bench.millis(1_900);
    let slow = bench.good(1, agent.remove(0));
    assert_ne!(requests(&slow, 2), [0; 0], "two seconds for a piece, and the origin is idle");
}

#[test]
fn each_origin_is_asked_for_its_own_share_first() {
    let mut bench = Bench::new(Config::default(), 300);
    bench.fetch(Bitfield::empty(300), &[(2, Role::Origin), (1, Role::Origin), (3, Role::Agent)]);
    for (number, rank) in [(1, 0), (2, 1)] {
        let asked = requests(&bench.member(number, Role::Origin, Bitfield::full(300)), number);
        assert!(asked.len() == 4 && asked.iter().all(|piece| piece % 2 == rank), "{number}: {asked:?}");
    }
}

#[test]
fn what_a_near_agent_has_by_now_is_not_waited_for_at_the_origin() {
    let mut bench = Bench::new(Config { requests_per_origin: 1, ..Config::default() }, 50);
    bench.fetch(Bitfield::empty(50), &[]);
    let asked = requests(&bench.member(1, Role::Origin, Bitfield::full(50)), 1)[0];
    bench.member(2, Role::Agent, Bitfield::empty(50));
    bench.millis(1);
    let have = Message::Have { digest: blob(0), pieces: vec![PieceIndex(asked)] };
    let actions = bench.say(2, have);
    assert_eq!((cancels(&actions, 1), requests(&actions, 2)), (vec![asked], vec![asked]));
    assert!(!requests(&actions, 1).is_empty(), "the origin is asked for something else");
}

#[test]
fn a_far_agent_is_asked_for_what_no_near_one_has() {
    let mut bench = Bench::new(Config { requests_per_agent: 7, ..Config::default() }, 20);
    bench.fetch(Bitfield::empty(20), &[]);
    bench.member(1, Role::Agent, some(20, 0..18));
    bench.event(Event::Connected { peer: super::peer(2), role: Role::Agent, zone: Zone("far".into()) });
    let asked = requests(&bench.join(2, Bitfield::full(20)), 2);
    assert_eq!(asked.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([18, 19]));
}

#[test]
fn what_nobody_reads_waits_for_what_is_read() {
    let mut bench = Bench::new(Config { max_requests: 8, requests_per_agent: 8, ..Config::default() }, 50);
    let (geometry, have) = (super::pieces(50), Bitfield::empty(50));
    let prefetch = Event::Fetch {
        digest: blob(1),
        geometry,
        have: have.clone(),
        candidates: vec![],
        priority: Priority::Prefetch,
        scope: Scope::All,
    };
    bench.event(prefetch);
    bench.fetch(have, &[]);
    bench.connect(1, Role::Agent);
    let all = bench.say(1, Message::Join { digest: blob(1), have: Bitfield::full(50) });
    assert_eq!(requests(&all, 1).len(), 2, "a quarter of the budget");
    bench.connect(2, Role::Agent);
    let background = bench.say(2, Message::Join { digest: blob(1), have: Bitfield::full(50) });
    assert_eq!(requests(&background, 2), [0; 0]);
    let read = bench.say(2, Message::Join { digest: blob(0), have: Bitfield::full(50) });
    assert_eq!(requests(&read, 2).len(), 6, "the rest is for what is read");
}

#[test]
fn a_reader_s_piece_that_is_late_is_asked_of_another_too() {
    let mut bench = Bench::new(Config { requests_per_agent: 1, ..Config::default() }, 50);
    bench.fetch(Bitfield::empty(50), &[]);
    bench.event(Event::Demand { digest: blob(0), pieces: std::iter::once(0..50).collect() });
    assert_eq!(requests(&bench.member(1, Role::Agent, Bitfield::full(50)), 1), [0]);
    bench.member(2, Role::Agent, some(50, [0, 7]));
    assert_eq!(requests(&bench.millis(250), 2), [0; 0]);
    assert_eq!(requests(&bench.good(2, 7), 2), [0; 0], "it is not late yet");
    assert_eq!(requests(&bench.millis(300), 2), [0], "twice the time that the other took");
    assert_eq!(cancels(&bench.good(2, 0), 1), [0]);
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
    let have = || Message::Have { digest: blob(0), pieces: vec![PieceIndex(2)] };
    assert_eq!(requests(&bench.say(1, have()), 1), [2]);
    assert_eq!(bench.say(1, have()), []);
}

#[test]
fn several_swarms_share_one_connection_in_turn() {
    let mut bench = Bench::new(Config { requests_per_agent: 4, ..Config::default() }, 10);
    bench.fetch(Bitfield::empty(10), &[]);
    let geometry = super::pieces(10);
    bench.event(Event::Fetch {
        digest: blob(1),
        geometry,
        have: Bitfield::empty(10),
        candidates: vec![],
        priority: Priority::Reader,
        scope: Scope::All,
    });
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
