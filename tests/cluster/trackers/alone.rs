//! Trackers that know nothing of each other.

use std::collections::BTreeSet;
use std::time::Instant;

use super::rig::{Rig, pull};
use crate::process::Process;
use crate::support::eventually;

const ALL: [usize; 3] = [0, 1, 2];
const OTHERS: [usize; 2] = [1, 2];
const BLOBS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn of_three_trackers_one_may_be_lost_and_come_back() {
    let mut rig = Rig::start(3, "").await;
    let mut layers = Vec::new();
    for seed in 0..BLOBS as u64 {
        layers.push(rig.push(700 + seed).await);
    }
    let holders = [rig.agent("first", &ALL).await, rig.agent("second", &ALL).await];
    for (holder, layer) in holders.iter().flat_map(|holder| layers.iter().map(move |layer| (holder, layer))) {
        pull(holder, layer).await;
    }
    let sum = |agents: usize| (2 * agents * BLOBS) as f64;
    eventually("two trackers know each blob", async || (rig.entries(&ALL).await == sum(2)).then_some(()))
        .await;
    let share = rig.entries(&[0]).await;
    assert!(share < sum(2) / 2.0, "none of the trackers knows all");

    rig.kill(0);
    let addresses: BTreeSet<_> = holders.iter().map(Process::peers).collect();
    for layer in &layers {
        assert_eq!(rig.handed_out(&ALL, &layer.digest).await, addresses, "its other owner knows, at once");
    }
    let late = rig.agent("late", &ALL).await;
    for layer in &layers {
        pull(&late, layer).await;
    }
    eventually("the others know all", async || (rig.entries(&OTHERS).await == sum(3)).then_some(())).await;

    rig.restart(0);
    let back = Instant::now();
    let right = share / 2.0 * 3.0;
    eventually("its share of three agents", async || (rig.entries(&[0]).await == right).then_some(())).await;
    println!("a tracker that was away knows its share after {:?}", back.elapsed());
    assert!(late.terminate().await);
    eventually("goodbye to all", async || {
        let left = rig.entries(&[0]).await == share && rig.entries(&OTHERS).await == sum(2);
        left.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_restarts_alone_knows_the_swarm_again() {
    let mut rig = Rig::start(1, "").await;
    let layer = rig.push(720).await;
    let holder = rig.agent("holder", &[0]).await;
    pull(&holder, &layer).await;
    rig.hands_out(0, &layer, &[&holder]).await;
    rig.kill(0);
    rig.restart(0);
    let back = Instant::now();
    rig.hands_out(0, &layer, &[&holder]).await;
    println!("the swarm is known again after {:?}", back.elapsed());
}
