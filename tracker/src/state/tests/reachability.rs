use super::*;

/// Nodes 1 to 9 have the blob, and were all named to agents 11 to 19 of the same zone.
fn cluster() -> (State, Instant) {
    let (mut state, now) = state();
    for node in 1..10 {
        state.announce(now, announce(node, vec![has(1, true)])).unwrap();
    }
    for node in 11..20 {
        state.announce(now, announce(node, vec![])).unwrap();
        hand(&mut state, now, node);
    }
    (state, now)
}

fn hand(state: &mut State, now: Instant, node: u8) {
    let met = state.meet(now, &Policy::default(), id(node), &blob(1), &mut rand::rng());
    state.handed(&id(node), &met);
}

fn report(state: &mut State, now: Instant, by: u8, about: u8) -> Reported {
    state.unreachable(now, &id(by), [10, 0, 0, by].into(), &id(about))
}

fn is_named(state: &State, now: Instant, node: u8) -> bool {
    holders(state, now, 1).contains(&(id(node), true))
}

#[test]
fn a_node_that_three_cannot_reach_is_out_until_it_announces_itself() {
    let (mut state, now) = cluster();
    assert_eq!(report(&mut state, now, 11, 5), Reported::Noted);
    assert_eq!(report(&mut state, now, 12, 5), Reported::Noted);
    assert!(is_named(&state, now, 5));
    assert_eq!(report(&mut state, now, 13, 5), Reported::Removed(Scope::All));
    assert!(!is_named(&state, now, 5) && state.is_removed(now, &id(5)));
    assert_eq!(report(&mut state, now, 14, 5), Reported::Ignored);
    assert!(is_named(&state, now, 6), "the others stay");
    let later = now + seconds(20);
    assert_eq!(state.announce(later, announce(5, vec![])), Ok(Memory::Known));
    assert!(is_named(&state, later, 5), "with what it had");
}

#[test]
fn one_that_comes_back_and_cannot_be_reached_again_stays_out_for_longer() {
    let (mut state, mut now) = cluster();
    for minutes in [0, 1, 2] {
        for by in 11..14 {
            report(&mut state, now, by, 5);
        }
        assert!(!is_named(&state, now, 5));
        let back = now + seconds(minutes * 60);
        while now < back {
            // The whole cluster goes on announcing.
            (1..20).for_each(|node| assert!(state.announce(now, announce(node, vec![])).is_ok()));
            assert!(!is_named(&state, now, 5));
            now += seconds(20);
        }
        (1..20).for_each(|node| assert!(state.announce(now, announce(node, vec![])).is_ok()));
        assert!(is_named(&state, now, 5), "back after {minutes} minutes");
    }
}

#[test]
fn only_who_was_handed_a_node_and_has_a_lease_may_report_it() {
    let (mut state, now) = cluster();
    state.announce(now, announce(21, vec![])).unwrap();
    assert_eq!(report(&mut state, now, 21, 5), Reported::Ignored, "it was handed to nobody of that name");
    hand(&mut state, now, 21);
    assert_eq!(report(&mut state, now, 21, 5), Reported::Noted);
    assert_eq!(report(&mut state, now, 22, 5), Reported::Ignored, "nobody knows the reporter");
    assert_eq!(report(&mut state, now, 11, 11), Reported::Ignored, "itself");
    assert_eq!(report(&mut state, now, 11, 77), Reported::Ignored, "nobody");
    assert_eq!(report(&mut state, now + LEASE, 11, 5), Reported::Ignored, "its lease is over");
}

#[test]
fn a_restarted_node_is_not_held_to_what_was_said_of_its_life_before() {
    let (mut state, now) = cluster();
    report(&mut state, now, 11, 5);
    report(&mut state, now, 12, 5);
    state.announce(now, Announce { everything: true, ..announce(5, vec![has(1, true)]) }).unwrap();
    assert_eq!(report(&mut state, now, 13, 5), Reported::Noted);
    assert!(is_named(&state, now, 5));
}

#[test]
fn what_other_data_centres_cannot_reach_is_still_named_at_home() {
    let (mut state, now) = cluster();
    let of = |node: u8, centre: &str| {
        let mut announce = announce(node, vec![has(1, true)]);
        announce.address.zone = Zone(centre.into());
        announce
    };
    state.announce(now, of(5, "oslo/rack-1")).unwrap();
    state.announce(now, of(31, "oslo/rack-2")).unwrap();
    for by in 11..14 {
        report(&mut state, now, by, 5);
    }
    assert!(!is_named(&state, now, 5), "those elsewhere do not meet it");
    let met = state.meet(now, &Policy::default(), id(31), &blob(1), &mut rand::rng());
    assert!(met.iter().any(|met| met.id == id(5)), "its own data centre does");
}

#[test]
fn the_last_origins_stay() {
    let (mut state, now) = cluster();
    state.announce(now, origin(41, "https://origin:1")).unwrap();
    state.announce(now, origin(42, "https://origin:2")).unwrap();
    (11..20).for_each(|node| hand(&mut state, now, node));
    let named = |state: &State| {
        let met = holders(state, now, 9);
        met.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    for by in 11..14 {
        report(&mut state, now, by, 41);
    }
    assert_eq!(named(&state), [id(42)]);
    for by in 11..14 {
        report(&mut state, now, by, 42);
    }
    assert_eq!(named(&state), [id(41), id(42)], "none is better than the others now");
}

proptest! {
    /// Whatever two nodes report, and whoever comes and goes meanwhile, nobody is out.
    #[test]
    fn one_liar_or_two_never_remove_anybody(
        steps in prop::collection::vec((any::<bool>(), 1u8..10, 0u8..255, 0u64..15), 1..200),
    ) {
        let (mut state, mut now) = cluster();
        for (is_first, node, source, pause) in steps {
            let liar = if is_first { 11 } else { 12 };
            now += seconds(pause);
            for liar in [11, 12] {
                state.announce(now, announce(liar, vec![])).unwrap();
                hand(&mut state, now, liar);
            }
            state.announce(now, announce(node, vec![has(1, true)])).unwrap();
            state.unreachable(now, &id(liar), [10, 0, 0, source].into(), &id(node));
            state.sweep(now);
            prop_assert!(is_named(&state, now, node));
        }
    }
}
