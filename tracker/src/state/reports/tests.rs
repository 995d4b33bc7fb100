use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(60);

fn id(number: u16) -> PeerId {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    PeerId::from_public_key(key)
}

/// Calls from an address of its own.
fn near(number: u16) -> Reporter {
    Reporter { id: id(number), source: address(number), is_near: true }
}

fn far(number: u16) -> Reporter {
    Reporter { is_near: false, ..near(number) }
}

fn address(number: u16) -> IpAddr {
    let [a, b] = number.to_be_bytes();
    [10, 0, a, b].into()
}

fn reports() -> (Reports, Instant) {
    (Reports::new(Removal::default(), LEASE), Instant::now())
}

fn assert_whole(reports: &Reports) {
    let all: usize = reports.about.values().map(Vec::len).sum();
    assert_eq!(all, reports.ends.len());
    assert_eq!(all, reports.by.values().sum::<usize>());
    assert!(reports.about.values().all(|of_one| (1..=Reports::MAX_REPORTERS).contains(&of_one.len())));
    assert!(reports.by.values().all(|&count| (1..=Reports::MAX_OF_REPORTER).contains(&count)));
    assert!(all <= Reports::MAX_REPORTS);
}

#[test]
fn the_third_reporter_removes_and_what_led_to_it_is_used_up() {
    let (mut reports, now) = reports();
    assert_eq!(reports.report(now, id(9), near(1)), Reported::Noted);
    assert_eq!(reports.report(now, id(9), near(2)), Reported::Noted);
    assert_eq!(reports.report(now, id(9), near(3)), Reported::Removed(Scope::All));
    assert!(reports.ends.is_empty() && reports.by.is_empty() && reports.about.is_empty());
    assert_eq!(reports.report(now, id(9), near(4)), Reported::Noted);
}

#[test]
fn many_reporters_of_one_host_are_one_witness() {
    let (mut reports, now) = reports();
    for number in 1..100 {
        let of_host = Reporter { source: address(1), ..near(number) };
        assert_eq!(reports.report(now, id(999), of_host), Reported::Noted);
    }
    assert_whole(&reports);
    assert_eq!(reports.report(now, id(999), near(100)), Reported::Removed(Scope::All));
}

#[test]
fn reporters_of_other_data_centres_remove_a_node_for_their_side_only() {
    let (mut reports, now) = reports();
    reports.report(now, id(9), far(1));
    reports.report(now, id(9), far(2));
    assert_eq!(reports.report(now, id(9), near(3)), Reported::Removed(Scope::Far));
    reports.report(now, id(9), near(4));
    assert_eq!(reports.report(now, id(9), near(5)), Reported::Removed(Scope::All), "that of 3 still counts");
}

#[test]
fn a_report_counts_for_a_lease() {
    let (mut reports, now) = reports();
    reports.report(now, id(9), near(1));
    reports.report(now, id(9), near(2));
    assert_eq!(reports.report(now + LEASE, id(9), near(3)), Reported::Noted);
    reports.sweep(now + LEASE * 2);
    assert!(reports.ends.is_empty() && reports.by.is_empty() && reports.about.is_empty());
}

#[test]
fn a_node_that_is_removed_again_and_again_stays_out_for_longer_up_to_a_bound() {
    let (mut reports, now) = reports();
    let absences: Vec<_> = (0..8).map(|_| (reports.strike(now, id(1)) - now).as_secs() / 60).collect();
    assert_eq!(absences, [0, 1, 2, 4, 8, 16, 16, 16], "in leases");
    let forgiven = now + LEASE * Reports::MAX_ABSENCE * 2;
    reports.sweep(forgiven);
    assert_eq!(reports.strike(forgiven, id(1)), forgiven);
}

#[test]
fn one_node_cannot_fill_the_memory() {
    let (mut reports, now) = reports();
    for about in 0..2 * Reports::MAX_OF_REPORTER as u16 {
        let reported = reports.report(now, id(about), near(60_000));
        let expected =
            if usize::from(about) < Reports::MAX_OF_REPORTER { Reported::Noted } else { Reported::TooMany };
        assert_eq!(reported, expected);
    }
    assert_whole(&reports);
    let mut handed = Handed::default();
    (0..5_000).for_each(|number| handed.add(&id(number)));
    assert_eq!(handed.0.len(), Handed::MAX);
    assert!(handed.contains(&id(4_999)) && !handed.contains(&id(0)));
}

proptest! {
    /// Reporters 0 and 1 say what they like, from wherever they like.
    #[test]
    fn one_liar_or_two_remove_nobody(
        lies in prop::collection::vec((0u16..2, 0u16..6, 0u16..9, any::<bool>(), 0u64..30), 0..300),
    ) {
        let (mut reports, mut now) = reports();
        for (liar, about, source, is_near, seconds) in lies {
            now += Duration::from_secs(seconds);
            let liar = Reporter { id: id(liar), source: address(source), is_near };
            prop_assert_eq!(reports.report(now, id(100 + about), liar), Reported::Noted);
            assert_whole(&reports);
        }
    }

    /// Against the rule in so many words: enough distinct reporters and addresses among the reports of the last lease.
    #[test]
    fn a_node_is_removed_by_exactly_as_many_as_it_takes(
        said in prop::collection::vec((0u16..6, 0u16..3, 0u16..4, any::<bool>(), 0u64..40), 0..200),
    ) {
        let (mut reports, mut now) = reports();
        let mut model: BTreeMap<(u16, u16), (u16, bool, Instant)> = BTreeMap::new();
        for (by, about, source, is_near, seconds) in said {
            now += Duration::from_secs(seconds);
            model.retain(|_, (_, _, until)| *until > now);
            model.insert((about, by), (source, is_near, now + LEASE));
            let enough = |near_only: bool| {
                let counted: Vec<_> = model.range((about, 0)..=(about, u16::MAX))
                    .filter(|(_, (_, is_near, _))| *is_near || !near_only).map(|(_, (source, ..))| *source).collect();
                counted.len() >= 3 && counted.iter().collect::<BTreeSet<_>>().len() >= 2
            };
            let expected = match (enough(true), enough(false)) {
                (true, _) => Reported::Removed(Scope::All),
                (false, true) => Reported::Removed(Scope::Far),
                (false, false) => Reported::Noted,
            };
            match expected {
                Reported::Removed(Scope::All) => model.retain(|(of, _), _| *of != about),
                Reported::Removed(Scope::Far) => model.retain(|(of, _), (_, is_near, _)| *of != about || *is_near),
                _ => {}
            }
            let by = Reporter { id: id(by), source: address(source), is_near };
            prop_assert_eq!(reports.report(now, id(100 + about), by), expected);
            assert_whole(&reports);
        }
    }
}
