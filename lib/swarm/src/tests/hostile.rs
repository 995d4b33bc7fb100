//! Whatever is said in whatever order: no panic, no broken invariant, no driver that spins.

use std::time::Duration;

use proptest::prelude::*;
use shoal_core::{Bitfield, PieceIndex, Role, Zone};

use super::bench::Bench;
use super::{blob, candidate, peer, pieces, some};
use crate::{Action, Config, DisconnectReason, Event, Message, PieceOutcome, Priority, Scope};

const COUNT: u32 = 12;

fn piece() -> impl Strategy<Value = PieceIndex> {
    prop_oneof![20 => 0..COUNT, 1 => Just(COUNT), 1 => any::<u32>()].prop_map(PieceIndex)
}

fn bitfield() -> impl Strategy<Value = Bitfield> {
    let length = prop_oneof![30 => Just(COUNT), 1 => 0..100u32, 1 => Just(65_536)];
    (length, prop::collection::vec(0..COUNT, 0..20), any::<bool>())
        .prop_map(|(length, set, full)| if full { Bitfield::full(length) } else { some(length, set) })
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::Reader), Just(Priority::Prefetch), Just(Priority::Repair)]
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::All), Just(Scope::Demand)]
}

fn zone() -> impl Strategy<Value = Zone> {
    prop_oneof![Just(Zone::default()), Just(Zone("far".into()))]
}

fn message() -> impl Strategy<Value = Message> {
    let digest = || (0..3u8).prop_map(blob);
    prop_oneof![
        (digest(), bitfield()).prop_map(|(digest, have)| Message::Join { digest, have }),
        digest().prop_map(|digest| Message::Absent { digest }),
        (digest(), prop::collection::vec(piece(), 0..4))
            .prop_map(|(digest, pieces)| Message::Have { digest, pieces }),
        (digest(), piece(), priority()).prop_map(|(digest, piece, priority)| Message::Request {
            digest,
            piece,
            priority
        }),
        (digest(), piece()).prop_map(|(digest, piece)| Message::Cancel { digest, piece }),
        (digest(), piece()).prop_map(|(digest, piece)| Message::Reject { digest, piece }),
    ]
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let digest = || (0..3u8).prop_map(blob);
    let who = || (1..8u8).prop_map(peer);
    let role = || prop_oneof![3 => Just(Role::Agent), 1 => Just(Role::Origin), 1 => Just(Role::Tracker)];
    let candidates = || {
        prop::collection::vec((1..12u8, role()), 0..6).prop_map(|list| {
            list.into_iter().map(|(number, role)| candidate(number, role)).collect::<Vec<_>>()
        })
    };
    let geometry = || pieces(u64::from(COUNT));
    let outcome = prop_oneof![
        6 => Just(PieceOutcome::Good),
        1 => Just(PieceOutcome::Corrupt),
        1 => Just(PieceOutcome::NotStored)
    ];
    let grown = || prop::collection::vec(piece(), 0..4);
    prop_oneof![
        1 => (digest(), grown()).prop_map(|(digest, pieces)| Event::Grew { digest, pieces }),
        2 => (digest(), bitfield(), candidates(), priority(), scope())
            .prop_map(move |(digest, have, candidates, priority, scope)| Event::Fetch { digest, geometry: geometry(), have, candidates, priority, scope }),
        1 => (digest(), priority()).prop_map(|(digest, priority)| Event::Raise { digest, priority }),
        2 => (digest(), bitfield()).prop_map(move |(digest, have)| Event::Seed { digest, geometry: geometry(), have }),
        1 => digest().prop_map(|digest| Event::NotHeld { digest }),
        1 => digest().prop_map(|digest| Event::Close { digest }),
        1 => (digest(), candidates()).prop_map(|(digest, candidates)| Event::Found { digest, candidates }),
        1 => (digest(), prop::collection::vec(any::<(u32, u32)>(), 0..4)).prop_map(|(digest, ranges)| {
            Event::Demand { digest, pieces: ranges.into_iter().map(|(from, to)| from % 20..to % 20).collect() }
        }),
        4 => (who(), role(), zone()).prop_map(|(peer, role, zone)| Event::Connected { peer, role, zone }),
        1 => who().prop_map(|peer| Event::ConnectFailed { peer }),
        1 => who().prop_map(|peer| Event::Disconnected { peer }),
        20 => (who(), message()).prop_map(|(peer, message)| Event::Message { peer, message }),
        15 => (who(), digest(), piece(), outcome)
            .prop_map(|(peer, digest, piece, outcome)| Event::Received { peer, digest, piece, outcome }),
        3 => (who(), digest(), piece()).prop_map(|(peer, digest, piece)| Event::Uploaded { peer, digest, piece }),
    ]
}

pub(super) fn tight() -> Config {
    Config {
        max_connections: 5,
        max_dials: 2,
        max_peers_per_swarm: 3,
        max_members_per_swarm: 4,
        max_candidates: 6,
        requests_per_agent: 3,
        requests_per_origin: 2,
        max_requests: 7,
        max_bytes_in_flight: 5 << 20,
        request_bytes_per_peer: 2 << 20,
        max_uploads: 2,
        max_uploads_per_peer: 1,
        upload_queue_per_peer: 2,
        max_loads: 1,
        max_bans: 2,
        max_late: 4,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The audit recounts rarities from the bitfields, and checks every budget, after each event.
    #[test]
    fn no_sequence_of_events_breaks_an_invariant(
        steps in prop::collection::vec((event(), prop_oneof![5 => Just(0u64), 3 => 1..500u64, 1 => 500..30_000u64]), 0..150),
        small: bool,
    ) {
        let mut bench = Bench::new(if small { tight() } else { Config::default() }, COUNT);
        for (event, wait) in steps {
            let _ = bench.try_event(event);
            bench.advance(Duration::from_millis(wait));
        }
    }

    /// The same from one peer that is connected and asked for pieces: it hurts only itself.
    #[test]
    fn hostile_messages_never_panic(messages in prop::collection::vec(message(), 0..100)) {
        let mut bench = Bench::new(tight(), COUNT);
        bench.fetch(Bitfield::empty(COUNT), &[]);
        bench.member(2, Role::Agent, Bitfield::full(COUNT));
        bench.connect(1, Role::Agent);
        for message in messages {
            let event = Event::Message { peer: peer(1), message };
            let Ok(actions) = bench.try_event(event) else { break };
            let others = actions.iter().filter(|action| matches!(action, Action::Disconnect { peer: who, .. } if *who != peer(1)));
            prop_assert_eq!(others.count(), 0);
        }
    }
}

#[test]
fn a_bitfield_of_the_wrong_length_is_a_violation() {
    let mut bench = Bench::new(Config::default(), 4);
    bench.fetch(Bitfield::empty(4), &[]);
    bench.connect(1, Role::Agent);
    let violation = Action::Disconnect { peer: peer(1), reason: DisconnectReason::Protocol };
    assert_eq!(bench.join(1, Bitfield::full(5)), std::slice::from_ref(&violation));
    // Also if it was said before the blob's length was known.
    bench.connect(1, Role::Agent);
    bench.say(1, Message::Join { digest: blob(1), have: Bitfield::full(5) });
    let seed = Event::Seed { digest: blob(1), geometry: pieces(4), have: Bitfield::full(4) };
    assert_eq!(bench.event(seed), [violation]);
}
