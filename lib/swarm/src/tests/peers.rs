//! Finding peers, keeping them, and giving up.

use shoal_core::{Bitfield, Role};

use super::bench::{Bench, requests};
use super::{blob, candidate, peer, some};
use crate::{Action, Config, DisconnectReason, Event, Message};

const FIND: fn(&Action) -> bool = |action| matches!(action, Action::FindPeers { .. });
const GIVE_UP: fn(&Action) -> bool = |action| matches!(action, Action::GiveUp { .. });

fn connects(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Connect { .. })).count()
}

fn found(numbers: &[u8]) -> Event {
    let candidates = numbers.iter().map(|&number| candidate(number, Role::Agent)).collect();
    Event::Found { digest: blob(0), candidates }
}

#[test]
fn dials_and_connections_are_bounded() {
    let config = Config { max_dials: 3, max_connections: 5, max_peers_per_swarm: 4, ..Config::default() };
    let mut bench = Bench::new(config, 4);
    let candidates: Vec<_> = (1..=20).map(|number| (number, Role::Agent)).collect();
    assert_eq!(connects(&bench.fetch(Bitfield::empty(4), &candidates)), 3);
    let more: usize = (1..=3).map(|number| connects(&bench.connect(number, Role::Agent))).sum();
    assert_eq!(more, 1, "four peers are enough for a swarm");
    bench.connect(4, Role::Agent);
    assert_eq!(bench.connect(30, Role::Agent), []);
    let refused = Action::Disconnect { peer: peer(31), reason: DisconnectReason::Replaced };
    assert_eq!(bench.connect(31, Role::Agent), [refused]);
}

#[test]
fn an_origin_is_among_the_first_to_be_dialled() {
    let mut bench = Bench::new(Config { max_dials: 1, ..Config::default() }, 4);
    let actions = bench.fetch(Bitfield::empty(4), &[(1, Role::Agent), (2, Role::Agent), (3, Role::Origin)]);
    assert!(actions.contains(&Action::Connect { peer: peer(3) }), "{actions:?}");
}

#[test]
fn peers_are_looked_for_at_once_when_the_last_one_is_lost() {
    let mut bench = Bench::new(Config { wanted_peers: 0, ..Config::default() }, 4);
    bench.fetch(Bitfield::empty(4), &[(1, Role::Agent)]);
    bench.member(1, Role::Agent, Bitfield::full(4));
    bench.millis(5_000);
    let mut actions = bench.event(Event::Disconnected { peer: peer(1) });
    actions.extend(bench.millis(2));
    assert_eq!(actions.iter().filter(|action| FIND(action)).count(), 1);
    assert_eq!(connects(&bench.millis(600)), 1, "a lost peer is tried again soon");
}

#[test]
fn searches_are_answered_before_the_next_and_back_off() {
    let config = Config { stall_timeout: std::time::Duration::from_secs(1000), ..Config::default() };
    let mut bench = Bench::new(config, 4);
    assert_eq!(bench.fetch(Bitfield::empty(4), &[]).iter().filter(|action| FIND(action)).count(), 1);
    assert!(!bench.millis(9_000).iter().any(FIND), "the first is not answered yet");
    let mut searches = 0;
    for _ in 0..600 {
        let found = bench.millis(100).iter().filter(|action| FIND(action)).count();
        searches += found;
        if found > 0 {
            bench.event(self::found(&[]));
        }
    }
    assert!((5..=9).contains(&searches), "{searches} in a minute");
}

#[test]
fn give_up_only_when_nobody_is_left() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.fetch(Bitfield::empty(4), &[]);
    bench.member(1, Role::Agent, some(4, [0]));
    bench.event(found(&[]));
    // A peer that still has something is somebody to wait for.
    let answered = |bench: &mut Bench, seconds: u64| {
        (0..seconds * 10).any(|_| {
            let actions = bench.millis(100);
            if actions.iter().any(FIND) {
                bench.event(found(&[]));
            }
            actions.iter().any(GIVE_UP)
                || bench.try_event(Event::Demand { digest: blob(0), pieces: vec![] }).is_err()
        })
    };
    bench.good(1, 0);
    assert!(!answered(&mut bench, 14), "within the stall timeout");
    assert!(answered(&mut bench, 12));
}

#[test]
fn a_connected_peer_is_waited_for_though_it_let_requests_time_out() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.fetch(Bitfield::empty(4), &[]);
    bench.member(1, Role::Origin, Bitfield::full(4));
    bench.good(1, 0);
    let mut asked = 0;
    for _ in 0..6_000 {
        let mut actions = bench.millis(100);
        asked += requests(&actions, 1).len();
        if actions.iter().any(FIND) {
            actions.extend(bench.event(found(&[])));
        }
        if actions.iter().any(GIVE_UP) {
            let waited = bench.now.since(crate::Moment::default()).as_secs();
            assert!((60..180).contains(&waited) && asked >= 4, "{asked} requests in {waited} s");
            return;
        }
    }
    panic!("a peer that never answers is given up some time");
}

#[test]
fn a_candidate_that_is_dead_is_tried_a_bounded_number_of_times() {
    let mut bench = Bench::new(Config::default(), 4);
    let mut dials = connects(&bench.fetch(Bitfield::empty(4), &[(1, Role::Agent)]));
    let mut pending = dials;
    for step in 0..1000 {
        let mut actions = Vec::new();
        if pending > 0 {
            actions.extend(bench.event(Event::ConnectFailed { peer: peer(1) }));
        }
        actions.extend(bench.millis(100));
        if actions.iter().any(GIVE_UP) {
            assert!(step > 150, "it was given up before the stall timeout");
            assert!((6..=10).contains(&dials), "{dials} dials");
            return;
        }
        pending = connects(&actions);
        dials += pending;
        if actions.iter().any(FIND) {
            pending += connects(&bench.event(found(&[1])));
        }
    }
    panic!("a fetch from a dead peer goes on for ever");
}

#[test]
fn a_found_peer_that_is_connected_is_joined_without_a_dial() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.connect(1, Role::Agent);
    let actions = bench.fetch(Bitfield::empty(4), &[(1, Role::Agent)]);
    let join = Message::Join { digest: blob(0), have: Bitfield::empty(4) };
    assert!(actions.contains(&Action::Send { peer: peer(1), message: join }));
    assert_eq!(connects(&actions), 0);
    assert_eq!(requests(&bench.join(1, Bitfield::full(4)), 1).len(), 4);
}

#[test]
fn a_peer_that_does_not_answer_a_join_is_let_go() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.fetch(Bitfield::empty(4), &[(1, Role::Agent)]);
    bench.connect(1, Role::Agent);
    let joins = |actions: Vec<Action>| {
        let join = |action: &&Action| matches!(action, Action::Send { message: Message::Join { .. }, .. });
        actions.iter().filter(join).count()
    };
    assert_eq!(joins(bench.millis(7_900)), 0);
    assert_eq!(joins(bench.millis(1_000)), 1, "it is asked again after a pause");
}
