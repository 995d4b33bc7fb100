//! Kills and cuts in the middle, and what finds what was missed.

use shoal::image::Image;
use shoal_core::Digest;

use super::relay::{Relay, idle, rule};
use crate::process::{Process, Processes};
use crate::support::{MIB, REPOSITORY, eventually};

async fn digest_at(origin: &Process, repository: &str, tag: &str) -> Option<Digest> {
    let manifest = origin.client().pull_manifest(repository, tag).await.ok()?;
    Some(Digest::sha256(&manifest))
}

async fn arrives(origin: &Process, repository: &str, tag: &str, image: &Image) {
    let expected = Digest::sha256(&image.manifest);
    eventually("the tag", async || (digest_at(origin, repository, tag).await? == expected).then_some(()))
        .await;
    for layer in &image.layers {
        origin.client().pull_blob(repository, &layer.digest, |_| ()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_killed_in_a_copy_goes_on_where_it_was() {
    let (from, to, relay) = (Processes::start().await, Processes::start().await, Relay::start().await);
    relay.lead_to(&to.origin);
    let rule = rule(&relay, "");
    let origin = from.another_origin_with("killed", &rule);
    let size = 80 * MIB;
    let image = Image::generate(size, 1, 5);
    relay.hold_at(48 * MIB);
    origin.client().push(REPOSITORY, "v1", &image, |_| ()).await.unwrap();
    eventually("half of it", async || (relay.bytes() > 40 * MIB).then_some(())).await;
    origin.kill();
    assert_eq!(digest_at(&to.origin, REPOSITORY, "v1").await, None);
    relay.hold_at(0);
    let origin = from.another_origin_with("killed", &rule);
    arrives(&to.origin, REPOSITORY, "v1", &image).await;
    idle(&origin).await;
    assert!(relay.bytes() < size + 40 * MIB, "{} bytes went, of {size}", relay.bytes());
    assert_eq!(relay.puts(), [format!("{REPOSITORY}:v1")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_gets_the_latest_when_it_is_back() {
    let (to, relay) = (Processes::start().await, Relay::start().await);
    let from = Processes::start_with(&rule(&relay, "prefix = \"mirror/\"")).await;
    relay.lead_to(&to.origin);
    relay.away(true);
    let mut image = Image::generate(100_000, 2, 30);
    for seed in 30..35 {
        image = Image::generate(100_000, 2, seed);
        from.origin.client().push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
    }
    relay.away(false);
    let there = format!("mirror/{REPOSITORY}");
    arrives(&to.origin, &there, "latest", &image).await;
    idle(&from.origin).await;
    assert!(relay.puts().len() <= 2, "pushes of one tag are one job: {:?}", relay.puts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_adds_what_is_missing_and_leaves_what_was_moved() {
    let (from, to, relay) = (Processes::start().await, Processes::start().await, Relay::start().await);
    relay.lead_to(&to.origin);
    let origin = from.another_origin_with("late", "");
    let images = [40, 41].map(|seed| Image::generate(100_000, 1, seed));
    for (image, tag) in images.iter().zip(["missing", "moved"]) {
        origin.client().push(REPOSITORY, tag, image, |_| ()).await.unwrap();
    }
    let own = Image::generate(100_000, 1, 42);
    to.origin.client().push(REPOSITORY, "moved", &own, |_| ()).await.unwrap();
    assert!(origin.terminate().await);

    let origin = from.another_origin_with("late", &rule(&relay, "reconcile = \"1s\""));
    arrives(&to.origin, REPOSITORY, "missing", &images[0]).await;
    let moved = "shoal_replication_reconciled_tags{rule=\"other\",state=\"moved\"}";
    eventually("a tag that is seen to have moved", async || {
        (origin.metric(moved).await == 1.0).then_some(())
    })
    .await;
    arrives(&to.origin, REPOSITORY, "moved", &own).await;
    assert!(origin.terminate().await);

    // A mirror is made what it should be.
    let more = "reconcile = \"1s\"\nreconcile_moved = \"overwrite\"";
    let _origin = from.another_origin_with("late", &rule(&relay, more));
    arrives(&to.origin, REPOSITORY, "moved", &images[1]).await;
}
