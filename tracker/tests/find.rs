//! Finds over real TLS, with origins whose API is asked for metainfo.

#![allow(clippy::unwrap_used)] // In a test it is the assertion.

mod support;

use std::time::{Duration, Instant};

use shoal_control::{ControlError, Failure, Seen};
use shoal_core::{Digest, PeerId};
use shoal_tracker::Config;
use shoal_tracker::state::Removal;
use support::{Cluster, config, eventually, repository};
use tokio::task::JoinSet;

const BLOB: &[u8] = b"a layer";

#[tokio::test]
async fn agents_that_announced_a_blob_are_found_with_its_metainfo() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let (holder, asker) = (cluster.agent("holder", &[&tracker]), cluster.agent("asker", &[&tracker]));
    let digest = Digest::sha256(BLOB);
    holder.announce(&[digest]).await;

    let found = asker.client.find(Some(&repository("app")), &digest).await.unwrap();
    asker.identity.verify(&found.metainfo).unwrap();
    assert_eq!(found.metainfo.metainfo.digest(), &digest);
    let ids: Vec<_> = found.peers.iter().map(|peer| peer.id).collect();
    assert_eq!(ids, [holder.identity.id(), origin.node.identity.id()], "agents first, then origins");
    let address = found.peers[0].addresses[0];
    assert_eq!(address.to_string(), "127.0.0.1:7000", "0.0.0.0 stands for where the holder called from");
    assert_eq!(tracker.metric("shoal_tracker_finds_total", "found"), 1.0);
    tracker.tracker.shutdown().await;
}

#[tokio::test]
async fn agents_that_ask_for_the_same_blob_learn_of_each_other() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let agents = ["one", "two", "stranger"].map(|name| cluster.agent(name, &[&tracker]));
    let [one, two, stranger] = &agents;
    let (digest, seed) = (Digest::sha256(BLOB), origin.node.identity.id());
    one.announce(&[]).await;
    two.announce(&[]).await;
    assert_eq!(one.peers(&digest).await, [seed]);
    assert_eq!(stranger.peers(&digest).await, [one.identity.id(), seed], "answered without an announce");
    assert_eq!(two.peers(&digest).await, [one.identity.id(), seed], "and not handed out");
    assert_eq!(one.peers(&digest).await, [two.identity.id(), seed]);
}

#[tokio::test]
async fn a_blob_is_found_in_its_own_repository_only() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let _origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let agent = cluster.agent("agent", &[&tracker]);
    let digest = Digest::sha256(BLOB);
    agent.client.find(Some(&repository("app")), &digest).await.unwrap();
    let elsewhere = agent.client.find(Some(&repository("secret")), &digest).await.unwrap_err();
    assert!(elsewhere.is_not_found(), "{elsewhere}");
    let unknown = agent.client.find(None, &Digest::sha256(b"unknown")).await.unwrap_err();
    assert!(unknown.is_not_found(), "{unknown}");
    assert_eq!(tracker.metric("shoal_tracker_finds_total", "not_found"), 2.0);
}

#[tokio::test]
async fn a_hundred_who_ask_at_once_cost_one_question_to_the_origin() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    origin.hold();
    let agents: Vec<_> =
        (0..4).map(|number| cluster.agent(&format!("agent-{number}"), &[&tracker])).collect();
    let mut finds = JoinSet::new();
    for number in 0..100 {
        let client = agents[number % agents.len()].client.clone();
        finds.spawn(async move { client.find(Some(&repository("app")), &Digest::sha256(BLOB)).await });
    }
    eventually("the origin is asked", || async { origin.requests() > 0 }).await;
    origin.let_through();
    for found in finds.join_all().await {
        found.unwrap();
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_is_known_is_answered_while_the_origins_are_away() {
    let cluster = Cluster::new();
    // Nothing is fresh, so that each find asks the origin.
    let config = Config { access_lifetime: Duration::ZERO, ..config() };
    let tracker = cluster.tracker(config).await;
    let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let agent = cluster.agent("agent", &[&tracker]);
    let digest = Digest::sha256(BLOB);
    agent.client.find(Some(&repository("app")), &digest).await.unwrap();
    origin.crash().await;

    agent.client.find(Some(&repository("app")), &digest).await.expect("was known to be in that repository");
    agent.client.find(None, &digest).await.expect("metainfo is known");
    for (name, digest) in [("other", digest), ("app", Digest::sha256(b"unknown"))] {
        let error = agent.client.find(Some(&repository(name)), &digest).await.unwrap_err();
        let ControlError::Unavailable { source: Failure::Answer { status, .. }, .. } = &error else {
            panic!("not the expected error: {error:?}");
        };
        assert_eq!(*status, 503);
    }
}

#[tokio::test]
async fn another_origin_answers_for_one_that_is_away() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let gone = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let _here = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    gone.crash().await;
    let agent = cluster.agent("agent", &[&tracker]);
    agent.client.find(Some(&repository("app")), &Digest::sha256(BLOB)).await.unwrap();
}

#[tokio::test]
async fn without_any_origin_nothing_is_known_to_be_missing() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let agent = cluster.agent("agent", &[&tracker]);
    let error = agent.client.find(None, &Digest::sha256(BLOB)).await.unwrap_err();
    assert!(matches!(error, ControlError::Unavailable { .. }), "{error:?}");
    assert_eq!(tracker.metric("shoal_tracker_finds_total", "unavailable"), 1.0);
}

#[tokio::test]
async fn metainfo_that_an_origin_did_not_sign_is_not_handed_on() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let (foreign, agent) = (Cluster::new(), cluster.agent("agent", &[&tracker]));
    let strange = foreign.identity(shoal_core::Role::Origin, "strange");
    let _origin = cluster.origin_signed_by(&[&tracker], "app", &[BLOB], &strange).await;
    let error = agent.client.find(None, &Digest::sha256(BLOB)).await.unwrap_err();
    assert!(matches!(error, ControlError::Unavailable { .. }), "{error:?}");
    assert_eq!(tracker.metric("shoal_tracker_metainfo_cache_bytes", ""), 0.0);
}

/// A find that says what it knows and waits up to that long; what it brings, and how long it took.
async fn wait_for_news(node: &support::Node, seen: Seen, wait: Duration) -> (Vec<PeerId>, Duration) {
    let asked = Instant::now();
    let found = node.client.find_news(None, &Digest::sha256(BLOB), seen, wait).await.unwrap();
    (found.peers.iter().map(|peer| peer.id).collect(), asked.elapsed())
}

#[tokio::test]
async fn a_find_waits_for_somebody_new_and_no_longer_than_it_says() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let (asker, holder) = (cluster.agent("asker", &[&tracker]), cluster.agent("holder", &[&tracker]));
    asker.announce(&[]).await;
    let seed = origin.node.identity.id();
    let seen = asker.client.find(None, &Digest::sha256(BLOB)).await.unwrap().seen.unwrap();

    let (peers, took) = wait_for_news(&asker, seen, Duration::from_millis(300)).await;
    assert_eq!(peers, [seed], "nobody came");
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let (news, ()) = tokio::join!(wait_for_news(&asker, seen, LONG), async {
        eventually("a find waits", async || tracker.tracker.view().waiting() == 1).await;
        origin.announce().await;
        holder.announce(&[Digest::sha256(b"another")]).await;
        assert_eq!(tracker.tracker.view().waiting(), 1, "neither is news");
        holder.announce(&[Digest::sha256(BLOB)]).await;
    });
    assert_eq!(news.0, [holder.identity.id(), seed]);
    assert!(news.1 < LONG / 2);
    let (_, took) = wait_for_news(&asker, seen, LONG).await;
    assert!(took < LONG / 2, "of what came before it was told at once");
    let elsewhere = Seen { tracker: seen.tracker ^ 1, arrivals: u64::MAX };
    let (_, took) = wait_for_news(&asker, elsewhere, LONG).await;
    assert!(took < LONG / 2, "what another tracker knew says nothing here");
}

#[tokio::test]
async fn a_find_that_waits_ends_with_its_client_and_with_its_tracker() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let _origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let asker = cluster.agent("asker", &[&tracker]);
    asker.announce(&[]).await;
    let seen = asker.client.find(None, &Digest::sha256(BLOB)).await.unwrap().seen.unwrap();
    let view = tracker.tracker.view();
    let waiting = async |count: usize| eventually("so many wait", async || view.waiting() == count).await;
    tokio::select! {
        _ = wait_for_news(&asker, seen, LONG) => panic!("nobody came"),
        () = waiting(1) => {}
    }
    waiting(0).await;
    let (_, ()) = tokio::join!(wait_for_news(&asker, seen, LONG), async {
        waiting(1).await;
        tracker.tracker.shutdown().await;
    });
}

#[tokio::test]
async fn a_node_that_enough_others_report_is_found_no_more() {
    let cluster = Cluster::new();
    let removal = Removal { reporters: 3, addresses: 1 };
    for (config, is_removed) in [(config(), false), (Config { removal, ..config() }, true)] {
        let tracker = cluster.tracker(config).await;
        let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
        let (dead, digest) = (cluster.agent("dead", &[&tracker]), Digest::sha256(BLOB));
        dead.announce(&[digest]).await;
        for name in ["one", "two", "three"] {
            let agent = cluster.agent(name, &[&tracker]);
            agent.announce(&[]).await;
            assert!(agent.peers(&digest).await.contains(&dead.identity.id()));
            agent.client.report_unreachable(vec![dead.identity.id()]).await.unwrap();
        }
        let asker = cluster.agent("asker", &[&tracker]);
        let found = asker.peers(&digest).await;
        assert!(found.contains(&origin.node.identity.id()));
        assert_eq!(found.contains(&dead.identity.id()), !is_removed, "all call from one address");
        let result = if is_removed { "removed" } else { "noted" };
        assert!(tracker.metric("shoal_tracker_reports_total", result) >= 1.0);
    }
}

/// Other questions are given up after 3 s by those who ask, and after 10 s by the tracker.
#[tokio::test]
async fn a_find_may_wait_longer_than_any_other_question() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker(config()).await;
    let origin = cluster.origin(&[&tracker], "app", &[BLOB]).await;
    let asker = cluster.agent("asker", &[&tracker]);
    asker.announce(&[]).await;
    let seen = asker.client.find(None, &Digest::sha256(BLOB)).await.unwrap().seen.unwrap();
    let (peers, took) = wait_for_news(&asker, seen, Duration::from_secs(11)).await;
    assert_eq!(peers, [origin.node.identity.id()]);
    assert!(took >= Duration::from_secs(11), "{took:?}");
}

/// Longer than any test waits for what is to come at once.
const LONG: Duration = Duration::from_secs(30);
