use super::*;

fn has_news(state: &State, asker: u8, number: u8, since: u64) -> bool {
    state.has_news(&Policy::default(), &id(asker), &blob(number), since)
}

#[test]
fn who_has_or_asks_for_the_blob_since_is_news_to_all_others() {
    let (mut state, now) = state();
    (1..4).for_each(|node| assert!(state.announce(now, announce(node, vec![])).is_ok()));
    state.join(now, &id(1), blob(1));
    let since = state.arrivals();
    assert!(!has_news(&state, 1, 1, since));
    state.join(now, &id(2), blob(1));
    assert!(has_news(&state, 1, 1, since) && has_news(&state, 3, 1, since));
    assert!(!has_news(&state, 2, 1, since), "itself is no news");
    let since = state.arrivals();
    state.announce(now, announce(3, vec![has(1, true), has(2, true)])).unwrap();
    assert!(has_news(&state, 1, 1, since) && has_news(&state, 2, 1, since));
    assert!(!has_news(&state, 1, 1, state.arrivals()));
}

#[test]
fn who_says_again_what_it_said_is_no_news() {
    let (mut state, now) = state();
    state.announce(now, announce(1, vec![has(1, false)])).unwrap();
    let since = state.arrivals();
    state.announce(now, announce(1, vec![])).unwrap();
    state.announce(now, announce(1, vec![has(1, true)])).unwrap();
    assert!(!has_news(&state, 2, 1, since));
    state.announce(now, Announce { everything: true, ..announce(1, vec![has(1, true)]) }).unwrap();
    assert!(has_news(&state, 2, 1, since), "it was restarted: connections with it are gone");
}

#[test]
fn an_origin_is_news_for_every_blob_and_so_is_one_that_is_back() {
    let (mut state, now) = state();
    let since = state.arrivals();
    state.announce(now, origin(1, "https://origin:1")).unwrap();
    assert!(has_news(&state, 2, 7, since));
    let since = state.arrivals();
    state.announce(now, origin(1, "https://origin:1")).unwrap();
    assert!(!has_news(&state, 2, 7, since), "its lease was renewed, and that is all");
    state.announce(now, Announce { everything: true, ..origin(1, "https://origin:1") }).unwrap();
    assert!(has_news(&state, 2, 7, since));
}

#[test]
fn of_more_than_an_answer_names_there_are_always_others() {
    let (mut state, now) = state();
    let policy = Policy { size: 3, ..Policy::default() };
    for node in 1..5 {
        state.announce(now, announce(node, vec![has(1, true)])).unwrap();
    }
    assert!(!state.has_news(&policy, &id(1), &blob(1), state.arrivals()), "all others were named");
    state.announce(now, announce(5, vec![has(1, true)])).unwrap();
    assert!(state.has_news(&policy, &id(1), &blob(1), state.arrivals()));
}

#[test]
fn who_was_out_and_is_back_is_news() {
    let (mut state, now) = state();
    for node in 1..5 {
        state.announce(now, announce(node, vec![has(1, true)])).unwrap();
        let met = state.meet(now, &Policy::default(), id(node), &blob(1), &mut rand::rng());
        state.handed(&id(node), &met);
    }
    for by in 2..5 {
        state.unreachable(now, &id(by), [10, 0, 0, by].into(), &id(1));
    }
    assert!(state.is_removed(now, &id(1)));
    let since = state.arrivals();
    state.announce(now, announce(1, vec![])).unwrap();
    assert!(has_news(&state, 9, 1, since));
}

proptest! {
    /// Against a list of all that ever came: the two that are kept are enough for any asker.
    #[test]
    fn news_is_exactly_what_others_did_since(
        came in prop::collection::vec((1u8..5, 1u8..3), 1..60), asker in 1u8..5, number in 1u8..3, since: prop::sample::Index,
    ) {
        let (mut state, now) = state();
        (1..5).for_each(|node| assert!(state.announce(now, announce(node, vec![])).is_ok()));
        let mut all = Vec::new();
        for (node, number) in came {
            // Gone first, or it would be no arrival.
            state.announce(now, Announce { removed: vec![blob(number)], ..announce(node, vec![]) }).unwrap();
            state.announce(now, announce(node, vec![has(number, false)])).unwrap();
            all.push((state.arrivals(), node, number));
        }
        let since = all[since.index(all.len())].0;
        let holds = |node: u8| state.nodes[state.keys[&id(node)] as usize].holdings.contains(&blob(number));
        let expected = all.iter().any(|&(at, node, of)| at > since && node != asker && of == number && holds(node));
        prop_assert_eq!(has_news(&state, asker, number, since), expected);
    }
}
