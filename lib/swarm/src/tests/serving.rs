//! Who is given what.

use std::time::Duration;

use shoal_core::{Bitfield, Digest, PieceIndex, Role};

use super::bench::{Bench, messages};
use super::{blob, peer, some};
use crate::{Action, Config, DisconnectReason, Event, Message, Priority};

fn request(piece: u32) -> Message {
    Message::Request { digest: blob(0), piece: PieceIndex(piece), priority: Priority::Reader }
}

fn reject(number: u8, piece: u32) -> Action {
    Action::Send {
        peer: peer(number),
        message: Message::Reject { digest: blob(0), piece: PieceIndex(piece) },
    }
}

fn upload(number: u8, piece: u32) -> Action {
    upload_as(number, piece, Priority::Reader)
}

fn upload_as(number: u8, piece: u32, priority: Priority) -> Action {
    Action::Upload { peer: peer(number), digest: blob(0), piece: PieceIndex(piece), priority }
}

fn prefetched(number: u8, piece: u32) -> Action {
    upload_as(number, piece, Priority::Prefetch)
}

fn uploaded(number: u8, piece: u32) -> Event {
    Event::Uploaded { peer: peer(number), digest: blob(0), piece: PieceIndex(piece) }
}

fn seed(config: Config, have: Bitfield) -> Bench {
    let mut bench = Bench::new(config, have.len());
    bench.seed(have);
    for number in 1..=3 {
        bench.connect(number, Role::Agent);
    }
    bench
}

#[test]
fn request_beyond_queue_is_rejected() {
    let config = Config { upload_queue_per_peer: 2, max_uploads_per_peer: 1, ..Config::default() };
    let mut bench = seed(config, Bitfield::full(9));
    assert_eq!(bench.say(1, request(0)), [upload(1, 0)]);
    assert_eq!(bench.say(1, request(1)), []);
    assert_eq!(bench.say(1, request(1)), [], "asking twice is asking once");
    assert_eq!(bench.say(1, request(2)), []);
    assert_eq!(bench.say(1, request(3)), [reject(1, 3)]);
    assert_eq!(bench.say(2, request(3)), [upload(2, 3)], "another peer has its own queue");
}

#[test]
fn what_comes_another_way_is_told_and_given() {
    let mut bench = seed(Config::default(), Bitfield::empty(4));
    bench.join(1, Bitfield::empty(4));
    bench.join(2, some(4, [1]));
    let grew = |pieces: &[u32]| Event::Grew {
        digest: blob(0),
        pieces: pieces.iter().copied().map(PieceIndex).collect(),
    };
    let told = bench.event(grew(&[0, 1]));
    let have = |pieces: &[u32]| Message::Have {
        digest: blob(0),
        pieces: pieces.iter().copied().map(PieceIndex).collect(),
    };
    assert_eq!(messages(&told, 1).collect::<Vec<_>>(), [&have(&[0, 1])]);
    assert_eq!(messages(&told, 2).collect::<Vec<_>>(), [&have(&[0])]);
    assert_eq!(bench.event(grew(&[1])), [], "nothing new");
    assert_eq!(bench.say(1, request(0)), [upload(1, 0)]);
    assert_eq!(bench.say(1, request(3)), [reject(1, 3)]);
    assert!(bench.try_event(grew(&[4])).is_err());
    bench.fetch(some(4, [0, 1]), &[]);
    assert!(bench.try_event(grew(&[2])).is_err(), "it is being fetched");
}

#[test]
fn uploads_are_bounded_and_peers_take_turns() {
    let config = Config { max_uploads: 2, max_uploads_per_peer: 2, ..Config::default() };
    let mut bench = seed(config, Bitfield::full(9));
    bench.say(1, request(0));
    bench.say(1, request(1));
    for (number, piece) in [(1, 2), (1, 3), (2, 4), (2, 5), (3, 6)] {
        assert_eq!(bench.say(number, request(piece)), []);
    }
    let mut order = Vec::new();
    let mut active = vec![(1, 0), (1, 1)];
    while let Some((number, piece)) = active.pop() {
        for action in bench.event(uploaded(number, piece)) {
            let Action::Upload { peer: to, piece, .. } = action else { panic!("{action:?}") };
            let number = (1..=3).find(|&number| peer(number) == to).unwrap();
            order.push(number);
            active.insert(0, (number, piece.0));
        }
    }
    assert_eq!(order.len(), 5);
    assert_eq!(
        {
            let mut first = order[..3].to_vec();
            first.sort_unstable();
            first
        },
        [1, 2, 3],
        "{order:?}"
    );
}

#[test]
fn different_peers_are_given_different_pieces_first() {
    let mut bench = seed(Config { max_uploads: 1, held_copies: 0, ..Config::default() }, Bitfield::full(9));
    bench.say(1, request(0));
    for (number, piece) in [(2, 0), (3, 0), (3, 5), (2, 6)] {
        bench.say(number, request(piece));
    }
    let order: Vec<_> =
        [(1, 0), (2, 6), (3, 5), (2, 0), (3, 0)].windows(2).map(|pair| (pair[0], pair[1])).collect();
    for ((number, piece), (next, next_piece)) in order {
        assert_eq!(bench.event(uploaded(number, piece)), [upload(next, next_piece)]);
    }
}

#[test]
fn what_was_just_sent_is_held_from_the_next_who_ask() {
    let mut bench = seed(Config::default(), Bitfield::full(9));
    let ask = |piece, priority| Message::Request { digest: blob(0), piece: PieceIndex(piece), priority };
    assert_eq!(bench.say(1, ask(0, Priority::Prefetch)), [prefetched(1, 0)]);
    assert_eq!(bench.say(2, ask(0, Priority::Prefetch)), [], "peer 1 may pass it on");
    assert_eq!(bench.say(3, ask(0, Priority::Reader)), [], "it is not even there yet");
    assert_eq!(bench.event(uploaded(1, 0)), []);
    assert_eq!(bench.millis(40), []);
    assert_eq!(bench.millis(20), [upload(3, 0)], "a reader does not wait for long");
    bench.say(3, ask(1, Priority::Prefetch));
    assert_eq!(bench.millis(1_000), [prefetched(2, 0)], "nobody passed it on");
    bench.connect(4, Role::Agent);
    assert_eq!(
        bench.say(4, ask(0, Priority::Prefetch)),
        [prefetched(4, 0)],
        "three have it, and it is asked for again"
    );
}

#[test]
fn a_reader_waits_for_a_piece_that_is_being_sent_about_as_long_as_that_usually_takes() {
    let mut bench = seed(Config::default(), Bitfield::full(9));
    let ask =
        |piece| Message::Request { digest: blob(0), piece: PieceIndex(piece), priority: Priority::Reader };
    assert_eq!(bench.say(1, ask(1)), [upload(1, 1)]);
    bench.millis(200);
    bench.event(uploaded(1, 1));
    assert_eq!(bench.say(1, ask(0)), [upload(1, 0)]);
    assert_eq!(bench.say(2, ask(0)), []);
    assert_eq!(bench.millis(440), [], "peer 1 may be as quick as before");
    assert_eq!(bench.millis(20), [upload(2, 0)]);
}

#[test]
fn who_has_a_blob_from_others_holds_nothing_back() {
    let mut bench = Bench::new(Config::default(), 9);
    bench.fetch(some(9, [0]), &[]);
    for number in 1..=2 {
        bench.connect(number, Role::Agent);
        let ask = Message::Request { digest: blob(0), piece: PieceIndex(0), priority: Priority::Prefetch };
        assert_eq!(bench.say(number, ask), [prefetched(number, 0)]);
    }
}

#[test]
fn what_a_reader_waits_for_is_sent_first() {
    let mut bench = seed(Config { max_uploads: 1, ..Config::default() }, Bitfield::full(9));
    let ask = |piece, priority| Message::Request { digest: blob(0), piece: PieceIndex(piece), priority };
    bench.say(1, request(0));
    bench.say(1, ask(1, Priority::Repair));
    bench.say(2, ask(2, Priority::Prefetch));
    bench.say(3, ask(3, Priority::Reader));
    assert_eq!(bench.event(uploaded(1, 0)), [upload(3, 3)]);
    assert_eq!(bench.event(uploaded(3, 3)), [prefetched(2, 2)]);
    bench.millis(2_100);
    bench.say(3, ask(4, Priority::Reader));
    assert_eq!(bench.event(uploaded(2, 2)), [upload_as(1, 1, Priority::Repair)], "nobody waits for ever");
}

#[test]
fn when_too_many_wait_the_least_needed_is_refused() {
    let config = Config { max_uploads: 1, upload_queue: 2, ..Config::default() };
    let mut bench = seed(config, Bitfield::full(9));
    let ask = |piece, priority| Message::Request { digest: blob(0), piece: PieceIndex(piece), priority };
    bench.say(1, request(0));
    assert_eq!(bench.say(2, ask(0, Priority::Prefetch)), []);
    assert_eq!(bench.say(2, ask(1, Priority::Prefetch)), []);
    assert_eq!(bench.say(3, ask(0, Priority::Repair)), [reject(3, 0)], "the new one is the least needed");
    assert_eq!(
        bench.say(3, ask(2, Priority::Reader)),
        [reject(2, 0)],
        "it was sent before, and is not urgent"
    );
    assert_eq!(bench.event(uploaded(1, 0)), [upload(3, 2)]);
}

#[test]
fn a_cancelled_request_is_not_served() {
    let mut bench = seed(Config { max_uploads: 1, ..Config::default() }, Bitfield::full(9));
    bench.say(1, request(0));
    bench.say(1, request(1));
    bench.say(1, Message::Cancel { digest: blob(0), piece: PieceIndex(1) });
    assert_eq!(bench.event(uploaded(1, 0)), []);
    assert!(bench.try_event(uploaded(1, 0)).is_err(), "an upload ends once");
}

#[test]
fn an_upload_slot_is_held_until_it_ends_even_if_the_peer_is_gone() {
    let mut bench = seed(Config { max_uploads: 1, ..Config::default() }, Bitfield::full(9));
    bench.say(1, request(0));
    bench.say(2, request(1));
    assert_eq!(bench.event(Event::Disconnected { peer: peer(1) }), []);
    assert_eq!(bench.event(uploaded(1, 0)), [upload(2, 1)]);
}

#[test]
fn what_is_not_here_is_rejected() {
    let mut bench = seed(Config::default(), some(9, [1]));
    assert_eq!(bench.say(1, request(0)), [reject(1, 0)]);
    let protocol = Action::Disconnect { peer: peer(1), reason: DisconnectReason::Protocol };
    assert_eq!(bench.say(1, request(9)), [protocol]);
}

#[test]
fn a_blob_that_is_not_open_is_loaded_once_and_those_who_wait_are_answered() {
    let mut bench = Bench::new(Config::default(), 4);
    for number in 1..=3 {
        bench.connect(number, Role::Agent);
    }
    assert_eq!(bench.join(1, Bitfield::empty(4)), [Action::Load { digest: blob(0) }]);
    assert_eq!(bench.join(2, some(4, [1])), []);
    assert_eq!(bench.say(3, request(0)), [reject(3, 0)]);
    let actions = bench.seed(Bitfield::full(4));
    let answered =
        |number| messages(&actions, number).filter(|message| matches!(message, Message::Join { .. })).count();
    assert_eq!([1, 2, 3].map(answered), [1, 1, 0]);
    assert_eq!(bench.join(1, some(4, [2])), [], "a second join is not answered");
    assert_eq!(bench.say(3, request(0)), [upload(3, 0)]);
    let again = Event::Seed { digest: blob(0), geometry: super::pieces(4), have: Bitfield::full(4) };
    assert!(bench.try_event(again).is_err());
}

#[test]
fn a_blob_that_is_not_held_is_absent() {
    let mut bench = Bench::new(Config { max_loads_per_peer: 1, ..Config::default() }, 4);
    bench.connect(1, Role::Agent);
    bench.join(1, Bitfield::empty(4));
    let absent = |digest: Digest| [Action::Send { peer: peer(1), message: Message::Absent { digest } }];
    let other = Message::Join { digest: blob(1), have: Bitfield::empty(4) };
    assert_eq!(bench.say(1, other), absent(blob(1)), "a peer makes us look for so many blobs at once");
    assert_eq!(bench.event(Event::NotHeld { digest: blob(0) }), absent(blob(0)));
    assert!(bench.try_event(Event::NotHeld { digest: blob(0) }).is_err());
}

#[test]
fn a_join_is_not_answered_if_ours_came_first() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.fetch(Bitfield::empty(4), &[(1, Role::Agent)]);
    let joins =
        |actions: &[Action]| messages(actions, 1).filter(|said| matches!(said, Message::Join { .. })).count();
    assert_eq!(joins(&bench.connect(1, Role::Agent)), 1);
    assert_eq!(joins(&bench.join(1, Bitfield::empty(4))), 0);
}

#[test]
fn idle_seed_is_closed_and_loaded_again_on_demand() {
    let mut bench = seed(Config::default(), Bitfield::full(4));
    bench.advance(Duration::from_secs(200));
    assert_eq!(bench.connect(9, Role::Agent), []);
    bench.say(9, request(0));
    bench.event(uploaded(9, 0));
    let closed = Action::Closed { digest: blob(0) };
    assert!(!bench.advance(Duration::from_secs(290)).contains(&closed), "a request keeps a seed open");
    assert!(bench.advance(Duration::from_secs(20)).contains(&closed));
    bench.connect(8, Role::Agent);
    assert_eq!(bench.join(8, Bitfield::empty(4)), [Action::Load { digest: blob(0) }]);
}

#[test]
fn idle_peers_with_nothing_to_gain_are_let_go() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.seed(Bitfield::full(4));
    bench.member(1, Role::Agent, Bitfield::full(4));
    bench.member(2, Role::Agent, some(4, [1]));
    let actions = bench.advance(Duration::from_secs(61));
    let idle = |number| Action::Disconnect { peer: peer(number), reason: DisconnectReason::Idle };
    assert!(actions.contains(&idle(1)));
    assert!(!actions.contains(&idle(2)), "it may still ask");
}

#[test]
fn fetch_of_a_partial_seed_upgrades_it() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.seed(some(4, [0]));
    bench.member(1, Role::Agent, Bitfield::full(4));
    let actions = bench.fetch(some(4, [0, 1]), &[]);
    let mut asked = super::bench::requests(&actions, 1);
    asked.sort_unstable();
    assert_eq!(asked, [2, 3]);
}
