//! What is fetched where only what is read is wanted.

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;
use shoal_core::{Bitfield, PieceIndex, Role};

use super::bench::{Bench, messages, requests};
use super::cluster::{Cluster, Faults, Node};
use super::{MIB, blob, peer, pieces, some};
use crate::{Action, Config, Event, Message, Priority, Scope};

/// Two pieces beyond each reader.
fn narrow() -> Config {
    Config { read_ahead: 2 * MIB, ..Config::default() }
}

fn read(bench: &mut Bench, ranges: impl IntoIterator<Item = Range<u32>>) -> Vec<Action> {
    bench.event(Event::Demand { digest: blob(0), pieces: ranges.into_iter().collect() })
}

fn raise(bench: &mut Bench) -> Vec<Action> {
    bench.event(Event::Raise { digest: blob(0), priority: Priority::Reader })
}

fn sorted(mut pieces: Vec<u32>) -> Vec<u32> {
    pieces.sort_unstable();
    pieces
}

fn finds(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::FindPeers { .. })).count()
}

#[test]
fn a_small_range_costs_its_pieces_and_a_long_one_what_is_read_ahead() {
    let mut bench = Bench::new(narrow(), 100);
    bench.fetch_in(Scope::Demand, Bitfield::empty(100), &[]);
    assert_eq!(requests(&bench.member(1, Role::Agent, Bitfield::full(100)), 1), [0; 0]);
    assert_eq!(requests(&read(&mut bench, Some(40..41)), 1), [40]);
    assert_eq!(sorted(requests(&read(&mut bench, [40..41, 60..100]), 1)), [60, 61]);
    // Nothing more until the reader has moved.
    assert_eq!(requests(&bench.good(1, 60), 1), [0; 0]);
    assert_eq!(requests(&read(&mut bench, Some(61..100)), 1), [62]);
}

#[test]
fn readers_beyond_those_whose_place_counts_are_served_too() {
    let mut bench = Bench::new(Config { max_readers: 1, ..narrow() }, 100);
    bench.fetch_in(Scope::Demand, Bitfield::empty(100), &[]);
    bench.member(1, Role::Agent, Bitfield::full(100));
    assert_eq!(sorted(requests(&read(&mut bench, [10..11, 30..31, 50..51]), 1)), [10, 30, 50]);
}

#[test]
fn what_was_asked_for_comes_though_its_reader_is_gone_and_is_not_asked_for_again() {
    let mut bench = Bench::new(narrow(), 100);
    bench.fetch_in(Scope::Demand, Bitfield::empty(100), &[]);
    bench.member(1, Role::Agent, Bitfield::full(100));
    bench.member(2, Role::Agent, Bitfield::full(100));
    let mut actions = read(&mut bench, Some(10..12));
    actions.extend(read(&mut bench, []));
    assert!(
        !actions.iter().any(|action| matches!(action, Action::Send { message: Message::Cancel { .. }, .. }))
    );
    let (one, other) = if requests(&actions, 1).contains(&10) { (1, 2) } else { (2, 1) };
    assert_eq!(sorted([requests(&actions, 1), requests(&actions, 2)].concat()), [10, 11]);
    bench.good(one, 10);
    // Not by the endgame either, nor when a peer that was asked is gone or takes too long.
    let mut later = bench.millis(1000);
    later.extend(bench.event(Event::Disconnected { peer: peer(one) }));
    later.extend(bench.event(Event::Disconnected { peer: peer(other) }));
    later.extend(bench.member(3, Role::Agent, Bitfield::full(100)));
    later.extend(bench.millis(60_000));
    assert!((1..=3).all(|number| requests(&later, number).is_empty()), "{later:?}");
    let states = bench.engine.states_of_pieces(&blob(0));
    assert_eq!((states[10], states[11]), ("held", "unwanted"));
}

#[test]
fn a_fetch_that_rests_asks_nobody_for_anything_and_is_not_given_up() {
    let mut bench = Bench::new(narrow(), 100);
    let candidates = [(1, Role::Agent)];
    assert_eq!(bench.fetch_in(Scope::Demand, Bitfield::empty(100), &candidates), []);
    assert_eq!(bench.millis(3_600_000), []);
    // It wakes, and is given up as any other that nobody helps: not before it had its time.
    let woken = read(&mut bench, Some(5..6));
    assert!(woken.contains(&Action::Connect { peer: peer(1) }), "{woken:?}");
    bench.event(Event::ConnectFailed { peer: peer(1) });
    let patience = Config::default().stall_timeout - Duration::from_millis(1);
    let mut actions = bench.advance(patience);
    assert!(!actions.contains(&Action::GiveUp { digest: blob(0) }));
    for _ in 0..60 {
        if finds(&actions) > 0 {
            // Refused if it has been given up by now.
            let _ = bench.try_event(Event::Found { digest: blob(0), candidates: Vec::new() });
        }
        for _ in actions.iter().filter(|action| matches!(action, Action::Connect { .. })) {
            let _ = bench.try_event(Event::ConnectFailed { peer: peer(1) });
        }
        actions = bench.millis(1000);
        if actions.contains(&Action::GiveUp { digest: blob(0) }) {
            return;
        }
    }
    panic!("a fetch that nobody helps was not given up");
}

#[test]
fn peers_are_looked_for_where_those_who_are_here_lack_what_is_read() {
    let mut bench = Bench::new(narrow(), 100);
    bench.fetch_in(Scope::Demand, Bitfield::empty(100), &[(1, Role::Agent)]);
    bench.connect(1, Role::Agent);
    bench.join(1, some(100, 0..50));
    read(&mut bench, Some(0..1));
    bench.good(1, 0);
    bench.millis(10_000);
    let mut actions = read(&mut bench, Some(70..71));
    actions.extend(bench.millis(5));
    assert_eq!(finds(&actions), 1, "{actions:?}");
}

#[test]
fn a_full_swarm_takes_in_whoever_may_have_what_is_read() {
    let mut bench = Bench::new(Config { max_peers_per_swarm: 2, ..narrow() }, 100);
    bench.fetch_in(
        Scope::Demand,
        Bitfield::empty(100),
        &[(1, Role::Agent), (2, Role::Agent), (3, Role::Agent)],
    );
    let dials = |actions: &[Action]| actions.contains(&Action::Connect { peer: peer(3) });
    assert!(!dials(&read(&mut bench, Some(0..1))));
    let mut actions = bench.member(1, Role::Agent, some(100, 0..50));
    actions.extend(bench.member(2, Role::Agent, some(100, 0..50)));
    actions.extend(bench.millis(2500));
    assert!(!dials(&actions), "both have what is read: {actions:?}");
    assert!(dials(&read(&mut bench, Some(70..71))));
}

#[test]
fn a_fetch_that_is_raised_fetches_all_and_that_stays_so() {
    let mut bench = Bench::new(narrow(), 20);
    bench.fetch_in(Scope::Demand, some(20, [3]), &[]);
    bench.member(1, Role::Agent, Bitfield::full(20));
    let mut queue = requests(&read(&mut bench, Some(10..11)), 1);
    queue.extend(requests(&raise(&mut bench), 1));
    assert_eq!(requests(&raise(&mut bench), 1), [0; 0], "a second time nothing changes");
    queue.extend(requests(&read(&mut bench, []), 1));
    let mut got = Vec::new();
    while let Some(piece) = queue.pop() {
        got.push(piece);
        queue.extend(requests(&bench.good(1, piece), 1));
    }
    assert_eq!(sorted(got), (0..20).filter(|&piece| piece != 3).collect::<Vec<_>>());
    assert!(bench.try_event(Event::Raise { digest: blob(0), priority: Priority::Repair }).is_ok());
    assert!(bench.try_event(Event::Raise { digest: blob(1), priority: Priority::Repair }).is_err());
}

#[test]
fn the_last_piece_that_is_read_completes_the_blob() {
    let mut bench = Bench::new(narrow(), 4);
    bench.fetch_in(Scope::Demand, some(4, [0, 1, 3]), &[]);
    bench.member(1, Role::Agent, Bitfield::full(4));
    assert_eq!(requests(&read(&mut bench, Some(2..3)), 1), [2]);
    assert!(bench.good(1, 2).contains(&Action::Complete { digest: blob(0) }));
}

#[test]
fn what_is_read_of_a_prefetch_is_as_urgent_as_any_reader() {
    let mut bench = Bench::new(Config::default(), 100);
    bench.event(Event::Fetch {
        digest: blob(0),
        geometry: pieces(100),
        have: Bitfield::empty(100),
        candidates: Vec::new(),
        priority: Priority::Prefetch,
        scope: Scope::All,
    });
    let asked = requests(&bench.member(1, Role::Agent, Bitfield::full(100)), 1);
    let reader = (0..100).find(|piece| !asked.contains(piece)).unwrap();
    read(&mut bench, Some(reader..reader + 1));
    let actions = bench.good(1, asked[0]);
    let request = Message::Request { digest: blob(0), piece: PieceIndex(reader), priority: Priority::Reader };
    assert!(messages(&actions, 1).any(|message| *message == request), "{actions:?}");
}

fn ranges(count: u32) -> impl Strategy<Value = Vec<Range<u32>>> {
    prop::collection::vec((0..count, 0..count), 0..4).prop_map(|ranges| {
        ranges.into_iter().map(|(one, other)| one.min(other)..one.max(other) + 1).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The cluster checks of each request that it is near a reader, and reads on as pieces come.
    #[test]
    fn every_piece_that_is_read_comes_while_a_complete_peer_can_be_reached_and_no_other(
        agents in 1..5usize,
        rounds in prop::collection::vec(prop::collection::vec(ranges(40), 4), 1..4),
        lost_pieces in 0..15u32, failed_dials in 0..30u32, disconnects in 0..30u32, delay in 1..200u64,
        rest in 0..200u64,
        seed: u64,
    ) {
        const COUNT: u64 = 40;
        let roles: Vec<_> = std::iter::once(Role::Origin).chain(vec![Role::Agent; agents]).collect();
        let config = Config { read_ahead: u64::from(Node::AHEAD) * MIB, ..Config::default() };
        let mut cluster = Cluster::new(&roles, &config, seed);
        cluster.faults = Faults { lost_pieces, failed_dials, disconnects, delay, ..Faults::default() };
        cluster.hold(0, blob(0), pieces(COUNT));
        (1..=agents).for_each(|agent| cluster.fetch_on_demand(agent, blob(0)));
        let mut read = vec![Bitfield::empty(40); agents + 1];
        for round in rounds {
            for (agent, ranges) in (1..=agents).zip(round) {
                for piece in ranges.iter().cloned().flatten() {
                    read[agent].insert(PieceIndex(piece));
                }
                if !cluster.nodes[agent].disk[&blob(0)].is_full() {
                    cluster.read(agent, blob(0), ranges);
                }
            }
            cluster.run(Duration::from_secs(3600));
            for (node, read) in cluster.nodes.iter().zip(&read).skip(1) {
                prop_assert!(!node.gave_up.contains(&blob(0)));
                prop_assert!(read.difference(&node.disk[&blob(0)]).next().is_none(), "what is read is here");
                prop_assert!(node.disk[&blob(0)].difference(read).next().is_none(), "and nothing else");
            }
            cluster.idle(Duration::from_secs(rest));
        }
        for agent in (1..=agents).filter(|&agent| agent % 2 == 1) {
            if !cluster.nodes[agent].disk[&blob(0)].is_full() {
                cluster.raise(agent, blob(0));
            }
        }
        cluster.run(Duration::from_secs(3600));
        for node in cluster.nodes.iter().skip(1).step_by(2) {
            prop_assert_eq!(node.complete.get(&blob(0)), Some(&1));
        }
    }
}
