//! Two trackers that share their state.

use super::redis::Redis;
use super::rig::{Rig, pull};
use crate::support::eventually;

const CONNECTED: &str = "shoal_tracker_redis_connected";
const REFUSED: &str = "shoal_tracker_redis_refused_total";

async fn both_are_connected(rig: &Rig, connected: f64) {
    for number in [0, 1] {
        eventually("the connection", async || {
            (rig.tracker(number).metric(CONNECTED).await == connected).then_some(())
        })
        .await;
    }
}

/// How many values of that kind were refused.
async fn refused(rig: &Rig, number: usize, what: &str) -> f64 {
    rig.tracker(number).metric(&format!("{REFUSED}{{what=\"{what}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_tells_one_tracker_the_other_hands_out() {
    let Some(redis) = Redis::start().await else { return };
    let mut rig = Rig::start(2, &redis.table()).await;
    both_are_connected(&rig, 1.0).await;
    let (layer, other) = (rig.push(730).await, rig.push(731).await);
    let (here, there) = (rig.agent("here", &[0]).await, rig.agent("there", &[1]).await);
    pull(&here, &layer).await;
    rig.hands_out(1, &layer, &[&here]).await;
    pull(&there, &layer).await;
    pull(&there, &other).await;
    rig.hands_out(0, &layer, &[&here, &there]).await;
    rig.hands_out(0, &other, &[&there]).await;

    // A tracker that restarts has read all before the nodes that it never hears of say anything.
    rig.kill(1);
    rig.restart(1);
    rig.hands_out(1, &layer, &[&here, &there]).await;

    assert!(there.terminate().await);
    rig.hands_out(0, &layer, &[&here]).await;
    rig.hands_out(0, &other, &[]).await;
    // The same node again, with what is on its disk, and at the other tracker.
    let there = rig.agent("there", &[0]).await;
    rig.hands_out(1, &other, &[&there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_tls_and_a_password_is_used() {
    let Some(redis) = Redis::start_closed().await else { return };
    let rig = Rig::start(2, &redis.table()).await;
    both_are_connected(&rig, 1.0).await;
    let layer = rig.push(770).await;
    let here = rig.agent("here", &[0]).await;
    pull(&here, &layer).await;
    rig.hands_out(1, &layer, &[&here]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_to_the_server_does_no_harm() {
    let Some(redis) = Redis::start().await else { return };
    let mut rig = Rig::start(2, &redis.table()).await;
    both_are_connected(&rig, 1.0).await;
    let layer = rig.push(740).await;
    let holder = rig.agent("holder", &[0]).await;
    pull(&holder, &layer).await;
    rig.hands_out(1, &layer, &[&holder]).await;

    redis.command(&["PUBLISH", "shoal:changes", "nonsense"]);
    redis.command(&["PUBLISH", "shoal:changes", &"x".repeat(100_000)]);
    for number in [0, 1] {
        eventually("both refused", async || (refused(&rig, number, "message").await >= 2.0).then_some(()))
            .await;
    }
    let stranger = shoal_core::PeerId::from_public_key([7; 32]).to_string();
    let stranger_key = format!("shoal:node:{stranger}");
    redis.command(&["HSET", &stranger_key, "version", "9", "head", "{}", "sha256:abc", "yes"]);
    redis.command(&["PEXPIRE", &stranger_key, "60000"]);
    redis.command(&["ZADD", "shoal:nodes", "99999999999999", &stranger, "99999999999999", "no id"]);
    // What is there of the holder is nonsense now, too.
    let ids = redis.command(&["ZRANGE", "shoal:nodes", "0", "-1"]);
    for id in ids.lines().filter(|id| *id != stranger && *id != "no id") {
        redis.command(&["DEL", &format!("shoal:node:{id}")]);
        redis.command(&["SET", &format!("shoal:node:{id}"), "nonsense"]);
    }
    rig.kill(1);
    rig.restart(1);
    eventually("refused records", async || (refused(&rig, 1, "record").await >= 1.0).then_some(())).await;
    rig.hands_out(1, &layer, &[&holder]).await;
    rig.hands_out(0, &layer, &[&holder]).await;
    redis.command(&["DEL", "shoal:nodes"]);
    redis.command(&["SET", "shoal:nodes", "nonsense"]);
    let other = rig.push(741).await;
    pull(&holder, &other).await;
    rig.hands_out(1, &other, &[&holder]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_is_gone_holds_nobody_up_and_both_trackers_converge_after_it() {
    let Some(mut redis) = Redis::start().await else { return };
    let rig = Rig::start(2, &redis.table()).await;
    both_are_connected(&rig, 1.0).await;
    let layers = [rig.push(750).await, rig.push(751).await];
    let (here, there) = (rig.agent("here", &[0]).await, rig.agent("there", &[1]).await);
    for (layer, gone) in layers.iter().zip([false, true]) {
        if gone {
            redis.kill();
        } else {
            redis.signal("-STOP");
        }
        both_are_connected(&rig, 0.0).await;
        pull(&here, layer).await;
        pull(&there, layer).await;
        // What each is told itself it hands out, to whoever waits no longer than ever.
        rig.hands_out(0, layer, &[&here]).await;
        rig.hands_out(1, layer, &[&there]).await;
        if gone {
            redis.restart().await;
        } else {
            redis.signal("-CONT");
        }
        both_are_connected(&rig, 1.0).await;
        rig.hands_out(0, layer, &[&here, &there]).await;
        rig.hands_out(1, layer, &[&here, &there]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_wait_everything_is_compared_and_nothing_is_lost() {
    let Some(redis) = Redis::start().await else { return };
    let rig = Rig::start(2, &format!("{}max_waiting = 1\n", redis.table())).await;
    both_are_connected(&rig, 1.0).await;
    let comparisons = async || rig.tracker(0).metric("shoal_tracker_redis_comparisons_total").await;
    let before = comparisons().await;
    let layers = [rig.push(780).await, rig.push(781).await];
    let here = rig.agent("here", &[0]).await;
    for layer in &layers {
        pull(&here, layer).await;
        rig.hands_out(1, layer, &[&here]).await;
    }
    assert!(comparisons().await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_both_goes_on_with_the_other_when_its_own_is_gone() {
    let Some(mut redis) = Redis::start().await else { return };
    let mut rig = Rig::start(2, &redis.table()).await;
    both_are_connected(&rig, 1.0).await;
    let (first, second) = (rig.push(760).await, rig.push(761).await);
    let agent = rig.agent("agent", &[0, 1]).await;
    pull(&agent, &first).await;
    for number in [0, 1] {
        rig.hands_out(number, &first, &[&agent]).await;
    }
    for gone in [0, 1] {
        let left = 1 - gone;
        rig.kill(gone);
        pull(&agent, [&first, &second][gone]).await;
        rig.hands_out(left, [&first, &second][gone], &[&agent]).await;
        rig.restart(gone);
        rig.hands_out(gone, &first, &[&agent]).await;
        rig.hands_out(gone, [&first, &second][gone], &[&agent]).await;
    }

    // Without the server each tracker is told by the node itself.
    redis.kill();
    both_are_connected(&rig, 0.0).await;
    let third = rig.push(762).await;
    pull(&agent, &third).await;
    for number in [0, 1] {
        rig.hands_out(number, &third, &[&agent]).await;
    }
}
