//! How a blob spreads where much goes wrong.

use std::time::Duration;

use proptest::prelude::*;
use shoal_core::Role;

use super::cluster::{Cluster, Faults};
use super::{blob, pieces};
use crate::Config;

fn faults() -> impl Strategy<Value = Faults> {
    (0..15u32, 0..10u32, 0..30u32, 0..30u32, 1..400u64).prop_map(
        |(lost_pieces, not_stored, failed_dials, disconnects, delay)| Faults {
            lost_pieces,
            corrupt: 0,
            not_stored,
            failed_dials,
            disconnects,
            delay,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every event is audited: no budget exceeded, no piece lost, no count that drifts.
    #[test]
    fn every_fetch_ends_while_a_complete_peer_can_be_reached(
        faults in faults(), agents in 1..6usize, count in 1..40u64, seed: u64,
    ) {
        let roles: Vec<_> = std::iter::once(Role::Origin).chain(vec![Role::Agent; agents]).collect();
        let config = Config { max_bytes_in_flight: 10 << 20, max_uploads: 6, max_store_failures: 50, ..Config::default() };
        let mut cluster = Cluster::new(&roles, &config, seed);
        cluster.faults = faults;
        for number in 0..2 {
            cluster.hold(0, blob(number), pieces(count));
            for agent in 1..=agents {
                cluster.fetch(agent, blob(number));
            }
        }
        let took = cluster.run(Duration::from_secs(3600));
        for node in &cluster.nodes[1..] {
            for number in 0..2 {
                prop_assert_eq!(node.complete.get(&blob(number)), Some(&1), "after {:?}", took);
            }
        }
    }
}

#[test]
fn corrupt_peers_do_not_stop_a_fetch_while_others_are_sound() {
    let mut cluster = Cluster::new(&[Role::Origin; 8], &Config::default(), 5);
    for origin in 0..7 {
        cluster.hold(origin, blob(0), pieces(100));
    }
    cluster.faults.corrupt = 1;
    cluster.fetch(7, blob(0));
    cluster.run(Duration::from_secs(600));
    assert_eq!(cluster.nodes[7].complete.get(&blob(0)), Some(&1));
}

#[test]
fn a_fetch_is_given_up_when_its_only_peer_is_gone_for_good() {
    let mut cluster = Cluster::new(&[Role::Origin, Role::Agent], &Config::default(), 5);
    cluster.hold(0, blob(0), pieces(10));
    cluster.faults.failed_dials = 100;
    cluster.fetch(1, blob(0));
    let took = cluster.run(Duration::from_secs(600));
    assert!(cluster.nodes[1].gave_up.contains(&blob(0)));
    assert!((15..60).contains(&took.as_secs()), "{took:?}");
}
