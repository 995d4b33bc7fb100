//! How a blob spreads where nothing goes wrong.

use std::time::Duration;

use shoal_core::Role;

use super::cluster::Cluster;
use super::{blob, pieces};
use crate::Config;

/// One origin with blob 0, and agents that all want it from the start.
fn one_origin(agents: usize, count: u64, seed: u64) -> Cluster {
    let roles: Vec<_> = std::iter::once(Role::Origin).chain(vec![Role::Agent; agents]).collect();
    let mut cluster = Cluster::new(&roles, &Config::default(), seed);
    cluster.hold(0, blob(0), pieces(count));
    for agent in 1..=agents {
        cluster.fetch(agent, blob(0));
    }
    cluster
}

fn assert_complete(cluster: &Cluster) {
    for (at, node) in cluster.nodes.iter().enumerate().skip(1) {
        assert_eq!(node.complete.get(&blob(0)), Some(&1), "agent {at}");
        assert!(node.disk[&blob(0)].is_full());
    }
}

#[test]
fn an_agent_fetches_from_an_origin_at_its_full_rate() {
    let mut cluster = one_origin(1, 64, 1);
    let took = cluster.run(Duration::from_secs(60));
    assert_complete(&cluster);
    assert_eq!(cluster.nodes[0].sent, 64);
    assert!(took < Duration::from_millis(700), "64 pieces of 10 ms took {took:?}");
}

#[test]
fn twenty_agents_take_less_than_three_copies_from_the_origin() {
    let mut cluster = one_origin(20, 200, 2);
    cluster.audited = false;
    let took = cluster.run(Duration::from_secs(120));
    assert_complete(&cluster);
    assert!(cluster.nodes[0].sent < 3 * 200, "{} pieces of 200", cluster.nodes[0].sent);
    let received: u64 = cluster.nodes.iter().map(|node| node.received).sum();
    assert!(received < 20 * 200 * 11 / 10, "{received} pieces for 20 times 200: too many twice");
    assert!(took < Duration::from_secs(6), "the origin alone needs 40 s, all together took {took:?}");
}

#[test]
fn a_late_agent_is_served_by_the_others() {
    let roles: Vec<_> = std::iter::once(Role::Origin).chain([Role::Agent; 5]).collect();
    let mut cluster = Cluster::new(&roles, &Config::default(), 3);
    for early in 0..5 {
        cluster.hold(early, blob(0), pieces(60));
    }
    cluster.fetch(5, blob(0));
    cluster.run(Duration::from_secs(60));
    assert!(cluster.nodes[5].disk[&blob(0)].is_full());
    assert!(cluster.nodes[0].sent < 20, "{} of 60 from the origin", cluster.nodes[0].sent);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut cluster = one_origin(6, 40, 9);
        let took = cluster.run(Duration::from_secs(60));
        (took, cluster.nodes.iter().map(|node| (node.sent, node.received, node.events)).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}
