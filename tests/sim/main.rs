//! Roll-outs in virtual time, small enough for every `cargo test`: the engine and the hand-out policy of production, with
//! what can go wrong. The same seed gives the same run everywhere, so none of these limits depends on the machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::time::Duration;

use shoal_simulation::{Report, Scenario, chart, run};

/// 60 hosts, 300 MB in two layers, links of 300 MB/s: the links alone take a second.
fn small() -> Scenario {
    Scenario {
        hosts: 60,
        blobs: vec![150_000_000; 2],
        start_within: Duration::from_millis(300),
        limit: Duration::from_secs(120),
        ..Scenario::default()
    }
}

fn with_fault(fault: &str) -> Report {
    rehearse(&Scenario { faults: vec![fault.parse().unwrap()], ..small() })
}

fn rehearse(scenario: &Scenario) -> Report {
    run(scenario, |_| {}).unwrap()
}

/// The median of a figure over five seeds: of how few hosts are slow, or wrong, chance decides much.
fn median(scenario: &Scenario, figure: impl Fn(&Report) -> f64) -> f64 {
    let report = |seed| {
        let report = rehearse(&Scenario { seed, ..scenario.clone() });
        assert_eq!(report.unfinished, 0, "seed {seed}");
        figure(&report)
    };
    let mut figures: Vec<_> = (1..=5).map(report).collect();
    figures.sort_by(f64::total_cmp);
    figures[2]
}

#[test]
fn every_host_takes_little_more_than_its_link_does() {
    let report = rehearse(&small());
    assert_eq!((report.unfinished, report.gave_up, report.bans), (0, 0, 0));
    assert!(report.seconds.p50 <= 1.1 * report.bound, "{:?}", report.seconds);
    assert!(report.seconds.max <= 1.2 * report.bound, "{:?}", report.seconds);
    assert!(report.duplicate_share <= 0.02, "{}", report.duplicate_share);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let times = |seed| {
        let report = rehearse(&Scenario { seed, hosts: 20, ..small() });
        report.hosts.iter().map(|host| host.complete.unwrap().to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
}

#[test]
fn slow_origins_give_out_each_piece_hardly_more_than_once() {
    let report = rehearse(&Scenario { origin_rate: 30_000_000, ..small() });
    assert_eq!(report.unfinished, 0);
    assert!(report.origin_copies <= 1.8, "{}", report.origin_copies);
    assert!(report.seconds.max <= 1.8 * report.bound, "{:?} of {}", report.seconds, report.bound);
}

#[test]
fn a_late_joiner_is_at_the_rate_of_its_link_at_once() {
    let report = rehearse(&Scenario { late_joiner: Some(Duration::from_secs(3)), ..small() });
    assert_eq!(report.unfinished, 0);
    assert!(report.late_joiner_to_cap.unwrap() <= 0.2, "{:?}", report.late_joiner_to_cap);
}

#[test]
fn what_corrupt_hosts_send_is_refused_and_sound_hosts_lose_little() {
    let scenario = Scenario { faults: vec!["corrupt:5%".parse().unwrap()], ..small() };
    let last = median(&scenario, |report| {
        assert!(report.bans > 0 && report.wasted_share > 0.0, "{} bans", report.bans);
        report.seconds.max / report.bound
    });
    assert!(last <= 1.3, "{last} times the bound");
}

#[test]
fn hosts_that_crash_for_good_or_come_back_leave_the_rest_alone() {
    for fault in ["crash:10%@500ms", "crash:10%@500ms+1s", "churn:5%@300ms"] {
        let report = with_fault(fault);
        assert_eq!(report.unfinished, 0, "{fault}");
        assert!(report.seconds.p50 <= 1.3 * report.bound, "{fault}: {:?}", report.seconds);
    }
}

#[test]
fn a_roll_out_that_has_begun_needs_no_tracker() {
    let report = with_fault("tracker:400ms..");
    assert_eq!(report.unfinished, 0);
    assert!(report.seconds.max <= 1.2 * report.bound, "{:?}", report.seconds);
}

#[test]
fn a_zone_gets_few_copies_from_the_others() {
    let report = rehearse(&Scenario { zones: 3, trunk_rate: Some(1_000_000_000), ..small() });
    assert_eq!(report.unfinished, 0);
    assert!(report.far_copies.iter().all(|&copies| copies > 0.0 && copies <= 3.0), "{:?}", report.far_copies);
}

#[test]
fn a_zone_that_is_cut_off_goes_on_with_what_it_has_and_catches_up() {
    let scenario = Scenario { zones: 3, faults: vec!["cut:1@200ms..4s".parse().unwrap()], ..small() };
    let last_elsewhere = median(&scenario, |report| {
        let elsewhere = report.hosts.iter().filter(|host| host.zone != 1);
        elsewhere.filter_map(shoal_simulation::HostReport::seconds).fold(0.0, f64::max) / report.bound
    });
    assert!(last_elsewhere <= 2.0, "{last_elsewhere} times the bound");
}

#[test]
fn slow_hosts_and_slow_disks_hold_up_nobody_else() {
    for fault in ["slow:5%/10", "slow-disk:5%/50"] {
        let scenario = Scenario { faults: vec![fault.parse().unwrap()], ..small() };
        let last = median(&scenario, |report| report.seconds.max / report.bound);
        assert!(last <= 1.3, "{fault}: {last} times the bound");
    }
}

#[test]
fn a_scenario_that_cannot_be_is_refused_by_name() {
    let error = |scenario: Scenario| run(&scenario, |_| {}).unwrap_err().to_string();
    assert!(error(Scenario { hosts: 0, ..small() }).starts_with("hosts must be at least 1"));
    assert!(error(Scenario { blobs: vec![], ..small() }).contains("length of a blob"));
    assert!(error(Scenario { zones: 1000, ..small() }).starts_with("zones must be at most"));
    assert!(
        error(Scenario { faults: vec!["cut:7@1s..2s".parse().unwrap()], ..small() }).contains("no zone 7")
    );
    assert!(error(Scenario { blobs: vec![u64::MAX], ..small() }).contains("cannot be cut"));
}

#[test]
fn the_picture_names_what_it_shows() {
    let picture = chart(&rehearse(&Scenario { hosts: 5, ..small() }));
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for text in ["5 hosts: p50", "what the links alone take: 1.00 s", "<polyline"] {
        assert!(picture.contains(text), "{text}");
    }
}
