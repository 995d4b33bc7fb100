//! What is believed for a while, and what is kept for a while.

use std::time::Duration;

use anyhow::ensure;
use shoal::image::Image;
use shoal_core::Digest;

use super::super::rig::{COUNT, in_time, pull};
use super::fake::Behaviour;
use super::{APP, ask, sum, with_upstream};
use crate::support::MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_upstream_is_seen_after_its_time_and_one_that_goes_is_gone() {
    let (rig, fake, image) = with_upstream("tag_ttl = \"500ms\"\nabsent_ttl = \"500ms\"", MIB, 940).await;
    pull(&rig.client(0), APP, "1", &image).await.unwrap();
    let next = Image::generate(MIB, 1, 941);
    fake.has("team/app", "1", &next);
    for place in 0..COUNT {
        in_time("the tag moves", async || pull(&rig.client(place), APP, "1", &next).await).await;
    }
    // What it named is still there by its digest, and nothing was fetched twice.
    let before = Digest::sha256(&image.manifest).to_string();
    assert_eq!(ask(rig.origin(0), APP, &before).await.0, 200);
    assert_eq!(fake.count("GET", "/manifests/"), 2, "{:#?}", fake.asked());
    fake.loses("team/app", "1");
    for place in 0..COUNT {
        in_time("the tag goes", async || {
            let status = ask(rig.origin(place), APP, "1").await.0;
            ensure!(status == 404, "{status}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_slow_holds_up_nobody_who_asks_for_what_is_held() {
    let (rig, fake, image) = with_upstream("tag_ttl = \"100ms\"", MIB, 942).await;
    pull(&rig.client(0), APP, "1", &image).await.unwrap();
    fake.behave(Behaviour::Slow(Duration::from_secs(4)));
    in_time("an answer without the upstream", async || {
        let (status, stale, _) = ask(rig.origin(1), APP, "1").await;
        ensure!(status == 200 && stale, "{status}, stale: {stale}");
        Ok(())
    })
    .await;
    // And one that is not held comes all the same.
    let other = Image::generate(MIB, 1, 943);
    fake.has("team/app", "2", &other);
    in_time("a slow image", async || pull(&rig.client(2), APP, "2", &other).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_pulls_is_unlinked_in_time_and_comes_again_when_it_is_wanted() {
    let (mut rig, fake, image) = with_upstream("ttl = \"12s\"\ntag_ttl = \"200ms\"", MIB, 944).await;
    let used = Image::generate(MIB, 1, 945);
    fake.has("team/app", "used", &used);
    pull(&rig.client(0), APP, "1", &image).await.unwrap();
    pull(&rig.client(1), APP, "used", &used).await.unwrap();
    let expired = "shoal_origin_upstream_expired_total{upstream=\"hub.example\"}";
    // The times are on the disk.
    tokio::time::sleep(Duration::from_secs(11)).await;
    rig.client(1).pull_manifest(APP, "used").await.unwrap();
    rig.kill(0);
    rig.restart(0);
    rig.all_well().await;
    in_time("the image expires", async || {
        rig.client(1).pull_manifest(APP, "used").await?;
        let expired = sum(&rig, expired).await;
        ensure!(expired == 1.0, "{expired} expired");
        Ok(())
    })
    .await;
    let gets = fake.count("GET", "/manifests/");
    assert_eq!(gets, 2);
    // The bytes are still held, so the upstream is only asked whether it has them.
    fake.loses("team/app", &Digest::sha256(&image.manifest).to_string());
    let before = Digest::sha256(&image.manifest).to_string();
    assert_eq!(ask(rig.origin(2), APP, &before).await.0, 404, "it is linked no more");
    pull(&rig.client(2), APP, "used", &used).await.unwrap();
    fake.has("team/app", "1", &image);
    in_time("it comes again", async || pull(&rig.client(2), APP, "1", &image).await).await;
}
