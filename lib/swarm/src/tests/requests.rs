//! What becomes of a request.

use std::time::Duration;

use shoal_core::{Bitfield, PieceIndex, Role, Zone};

use super::bench::{Bench, cancels, messages, requests};
use super::{blob, peer, some};
use crate::{Action, Config, DisconnectReason, Event, Message, PieceOutcome, Priority, Scope};

fn reject(piece: u32) -> Message {
    Message::Reject { digest: blob(0), piece: PieceIndex(piece) }
}

#[test]
fn an_empty_or_whole_blob_is_complete_at_once() {
    for (count, have) in [(0, Bitfield::empty(0)), (3, Bitfield::full(3))] {
        let mut bench = Bench::new(Config::default(), count);
        assert_eq!(bench.fetch(have, &[]), [Action::Complete { digest: blob(0) }]);
    }
}

#[test]
fn requests_are_bounded_by_count_and_by_bytes() {
    let mut bench = Bench::new(Config::default(), 100);
    bench.fetch(Bitfield::empty(100), &[]);
    assert_eq!(requests(&bench.member(2, Role::Origin, Bitfield::full(100)), 2).len(), 4);
    assert_eq!(requests(&bench.member(1, Role::Agent, Bitfield::full(100)), 1).len(), 8);

    let config =
        Config { request_bytes_per_peer: 3 << 20, max_bytes_in_flight: 5 << 20, ..Config::default() };
    let mut bench = Bench::new(config, 100);
    bench.fetch(Bitfield::empty(100), &[]);
    let first = requests(&bench.member(1, Role::Agent, Bitfield::full(100)), 1);
    assert_eq!(first.len(), 3);
    assert_eq!(requests(&bench.member(2, Role::Agent, Bitfield::full(100)), 2).len(), 2);
    assert_eq!(requests(&bench.member(3, Role::Agent, Bitfield::full(100)), 3).len(), 0);
    let next = bench.good(1, first[0]);
    let asked: usize = (1..=3).map(|number| requests(&next, number).len()).sum();
    assert_eq!(asked, 1, "what is free goes on being used");
}

#[test]
fn one_piece_is_always_allowed() {
    let config =
        Config { request_bytes_per_peer: 0, max_bytes_in_flight: 0, max_requests: 0, ..Config::default() };
    let mut bench =
        Bench { engine: crate::Engine::new(config, Zone::default(), 0), ..Bench::new(Config::default(), 2) };
    let geometry = super::pieces(2);
    let fetch = Event::Fetch {
        digest: blob(0),
        geometry,
        have: Bitfield::empty(2),
        candidates: vec![],
        priority: Priority::Reader,
        scope: Scope::All,
    };
    let handle = |bench: &mut Bench, event| {
        bench.engine.handle(bench.now, event).unwrap();
        bench.actions()
    };
    handle(&mut bench, fetch);
    handle(&mut bench, Event::Connected { peer: peer(1), role: Role::Agent, zone: Zone::default() });
    let join = Message::Join { digest: blob(0), have: Bitfield::full(2) };
    let actions = handle(&mut bench, Event::Message { peer: peer(1), message: join });
    assert_eq!(requests(&actions, 1).len(), 1);
}

#[test]
fn timed_out_piece_is_asked_elsewhere() {
    let mut bench = Bench::new(Config { endgame_extra: 0, ..Config::default() }, 1);
    bench.fetch(Bitfield::empty(1), &[]);
    assert_eq!(requests(&bench.member(1, Role::Agent, Bitfield::full(1)), 1), [0]);
    assert_eq!(requests(&bench.member(2, Role::Agent, Bitfield::full(1)), 2), [0; 0]);
    let actions = bench.millis(8_001);
    assert_eq!(cancels(&actions, 1), [0]);
    assert_eq!(requests(&actions, 2), [0]);
    assert!(bench.good(1, 0).contains(&Action::Complete { digest: blob(0) }), "a late answer is good too");
}

#[test]
fn progress_moves_the_deadline_of_the_whole_queue() {
    let mut bench = Bench::new(Config::default(), 8);
    bench.fetch(Bitfield::empty(8), &[]);
    bench.member(1, Role::Agent, Bitfield::full(8));
    for piece in 0..7 {
        assert_eq!(cancels(&bench.millis(7_000), 1), [0; 0], "piece {piece}");
        bench.good(1, piece);
    }
}

#[test]
fn a_slow_peer_gives_its_place_to_a_candidate() {
    let mut bench = Bench::new(Config { max_peers_per_swarm: 1, ..Config::default() }, 50);
    bench.fetch(Bitfield::empty(50), &[(1, Role::Agent), (2, Role::Agent)]);
    bench.member(1, Role::Agent, Bitfield::full(50));
    let actions = bench.millis(70_000);
    let replaced = Action::Disconnect { peer: peer(1), reason: DisconnectReason::Replaced };
    assert!(actions.contains(&replaced));
    assert!(actions.contains(&Action::Connect { peer: peer(2) }));
}

#[test]
fn a_rejected_piece_is_asked_elsewhere_and_the_peer_left_alone_for_a_while() {
    let mut bench = Bench::new(Config::default(), 1);
    bench.fetch(Bitfield::empty(1), &[]);
    bench.member(1, Role::Agent, Bitfield::full(1));
    bench.member(2, Role::Agent, Bitfield::full(1));
    let actions = bench.say(1, reject(0));
    assert_eq!((requests(&actions, 1).len(), requests(&actions, 2)), (0, vec![0]));
    let actions = bench.say(2, reject(0));
    assert_eq!((requests(&actions, 1).len(), requests(&actions, 2).len()), (0, 0));
    let actions = bench.millis(260);
    assert_eq!(requests(&actions, 1).len() + requests(&actions, 2).len(), 1);
}

#[test]
fn corrupt_piece_bans_peer() {
    let mut bench = Bench::new(Config::default(), 1);
    bench.fetch(Bitfield::empty(1), &[(1, Role::Agent)]);
    bench.member(1, Role::Agent, Bitfield::full(1));
    bench.member(2, Role::Agent, Bitfield::full(1));
    let actions = bench.receive(1, 0, PieceOutcome::Corrupt);
    let banned = Action::Banned { peer: peer(1), digest: blob(0), piece: PieceIndex(0) };
    let corrupt = Action::Disconnect { peer: peer(1), reason: DisconnectReason::Corrupt };
    assert_eq!(actions[..2], [banned, corrupt.clone()]);
    assert_eq!(requests(&actions, 2), [0]);
    assert_eq!(bench.join(1, Bitfield::full(1)), [], "what a banned peer says is ignored");
    assert_eq!(bench.connect(1, Role::Agent), [corrupt]);
    let later = bench.advance(Duration::from_secs(601));
    assert!(!later.contains(&Action::Connect { peer: peer(1) }));
    assert_eq!(bench.connect(1, Role::Agent), [], "a ban ends");
}

#[test]
fn what_could_not_be_stored_is_tried_again_and_then_given_up() {
    let mut bench = Bench::new(Config::default(), 1);
    bench.fetch(Bitfield::empty(1), &[]);
    bench.member(1, Role::Agent, Bitfield::full(1));
    for _ in 0..4 {
        assert_eq!(requests(&bench.receive(1, 0, PieceOutcome::NotStored), 1), [0; 0]);
        assert_eq!(requests(&bench.millis(1_010), 1), [0]);
    }
    let actions = bench.receive(1, 0, PieceOutcome::NotStored);
    assert!(actions.contains(&Action::GiveUp { digest: blob(0) }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Disconnect { .. })));
}

#[test]
fn a_new_piece_is_told_to_those_who_lack_it() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.fetch(Bitfield::empty(4), &[]);
    bench.member(1, Role::Agent, some(4, [2]));
    bench.member(2, Role::Agent, some(4, []));
    bench.member(3, Role::Agent, some(4, [2]));
    let actions = bench.good(1, 2);
    let told = |number| messages(&actions, number).any(|message| matches!(message, Message::Have { .. }));
    assert_eq!([1, 2, 3].map(told), [false, true, false]);
}

#[test]
fn news_are_told_at_once_and_then_together() {
    let mut bench = Bench::new(Config { max_requests: 1, ..Config::default() }, 50);
    bench.fetch(Bitfield::empty(50), &[]);
    let mut next = requests(&bench.member(1, Role::Agent, Bitfield::full(50)), 1);
    bench.member(2, Role::Agent, some(50, []));
    let news = |actions: &[Action]| {
        messages(actions, 2)
            .filter_map(|said| match said {
                Message::Have { pieces, .. } => Some(pieces.len()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let mut told = Vec::new();
    for _ in 0..6 {
        let actions = bench.good(1, next[0]);
        told.push(news(&actions));
        next = requests(&actions, 1);
        assert_eq!(news(&bench.millis(1)), [0; 0]);
    }
    assert_eq!(told, [vec![1], vec![], vec![], vec![], vec![], vec![]]);
    assert_eq!(news(&bench.millis(30)), [5]);
}

#[test]
fn a_piece_that_was_never_asked_for_is_an_error_that_changes_nothing() {
    let mut bench = Bench::new(Config::default(), 100);
    bench.fetch(Bitfield::empty(100), &[]);
    let asked = requests(&bench.member(1, Role::Agent, Bitfield::full(100)), 1);
    let never = (0..100).find(|piece| !asked.contains(piece)).unwrap();
    for (number, piece, digest) in
        [(1, never, blob(0)), (2, asked[0], blob(0)), (1, asked[0], blob(1)), (1, 100, blob(0))]
    {
        let event = Event::Received {
            peer: peer(number),
            digest,
            piece: PieceIndex(piece),
            outcome: PieceOutcome::Good,
        };
        assert!(bench.try_event(event).is_err());
        assert_eq!(bench.actions(), []);
    }
    bench.good(1, asked[0]);
}

#[test]
fn close_cancels_and_says_absent() {
    let mut bench = Bench::new(Config::default(), 2);
    bench.fetch(Bitfield::empty(2), &[]);
    bench.member(1, Role::Agent, Bitfield::full(2));
    let actions = bench.event(Event::Close { digest: blob(0) });
    assert_eq!(cancels(&actions, 1).len(), 2);
    assert_eq!(messages(&actions, 1).last(), Some(&Message::Absent { digest: blob(0) }));
    assert!(bench.try_event(Event::Close { digest: blob(0) }).is_err());
}

#[test]
fn a_reject_of_what_was_not_asked_changes_nothing() {
    let mut bench = Bench::new(Config { requests_per_agent: 1, ..Config::default() }, 9);
    bench.fetch(Bitfield::empty(9), &[]);
    let asked = requests(&bench.member(1, Role::Agent, Bitfield::full(9)), 1);
    let other = (0..9).find(|piece| !asked.contains(piece)).unwrap();
    assert_eq!(bench.say(1, reject(other)), []);
    assert_eq!(requests(&bench.good(1, asked[0]), 1).len(), 1, "it is asked on without a pause");
}
