use super::*;

#[test]
fn all_nodes_are_named_once_page_by_page() {
    let (mut state, now) = state();
    for node in 1..30 {
        state.announce(now, announce(node, vec![has(1, true)])).unwrap();
    }
    (3..9).for_each(|node| state.leave(&id(node)));
    let (mut named, mut after, mut pages) = (Vec::new(), Some(0), 0);
    while let Some(from) = after {
        let (page, next) = state.nodes(now, from, 5);
        assert!(page.len() == 5 || next.is_none());
        named.extend(page.into_iter().map(|node| node.address.id));
        (after, pages) = (next, pages + 1);
    }
    named.sort();
    let expected: Vec<_> = (1..30).filter(|node| !(3..9).contains(node)).map(id).collect();
    assert_eq!((named, pages), (expected, 5));
    assert!(state.nodes(now, u64::MAX, 5).0.is_empty());
    assert!(state.nodes(now + LEASE, 0, 5).0.is_empty(), "their leases are over");
}

#[test]
fn holders_are_shown_with_what_they_have_and_since_when() {
    let (mut state, now) = state();
    state.announce(now, announce(1, vec![has(1, false)])).unwrap();
    state.announce(now, announce(2, vec![])).unwrap();
    state.join(now + seconds(5), &id(2), blob(1));
    state.announce(now + seconds(9), announce(1, vec![has(1, true)])).unwrap();
    let (holders, total) = state.holders(now + seconds(10), &blob(1), 9);
    let shown: Vec<_> =
        holders.iter().map(|holder| (holder.address.id, holder.share, holder.since.as_secs())).collect();
    assert_eq!(shown, [(id(1), Share::Complete, 10), (id(2), Share::Asked, 5)]);
    assert_eq!(total, 2);
    assert_eq!(state.holders(now, &blob(1), 1).0.len(), 1);
    assert_eq!(state.holders(now, &blob(7), 1).1, 0);
}
