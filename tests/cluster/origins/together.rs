//! What every origin of a cluster shows, with all of them, with one away, and with one left.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use shoal::image::{Image, MANIFEST_TYPE};
use shoal_control::ControlError;
use shoal_control::cluster::message::{CopyReason, MAX_LACKING};
use shoal_core::{Digest, Metainfo, PeerAddress, PeerId, Proof, Role, SignedMetainfo, Zone};

use super::rig::{COUNT, REPLICAS, Rig, blobs, in_time, pull};
use crate::process::Process;
use crate::support::REPOSITORY;

fn image(seed: u64) -> Image {
    Image::generate(3 << 20, 3, seed)
}

async fn status(origin: &Process, method: reqwest::Method, path: &str) -> reqwest::Response {
    let url = format!("http://{}/v2/{REPOSITORY}/{path}", origin.registry());
    reqwest::Client::new().request(method, url).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_to_any_origin_is_pulled_from_any_and_through_an_agent() {
    let rig = Rig::start().await;
    let agent = rig.agent("agent").await;
    for to in 0..COUNT {
        let (image, tag) = (image(to as u64), format!("tag-{to}"));
        rig.client(to).push(REPOSITORY, &tag, &image, |_| ()).await.unwrap();
        for digest in blobs(&image) {
            assert!(rig.copies(&digest) >= REPLICAS, "{digest} is acknowledged with too few copies");
        }
        for from in 0..COUNT {
            pull(&rig.client(from), REPOSITORY, &tag, &image).await.unwrap();
        }
        pull(&agent.client(), REPOSITORY, &tag, &image).await.unwrap();
    }
    for place in 0..COUNT {
        let tags = rig.client(place).get(&format!("v2/{REPOSITORY}/tags/list")).await.unwrap();
        let tags: serde_json::Value = tags.json().await.unwrap();
        assert_eq!(tags["tags"], serde_json::json!(["tag-0", "tag-1", "tag-2"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_at_one_origin_is_moved_at_all_of_them_and_a_deleted_one_is_gone() {
    let rig = Rig::start().await;
    for (number, at) in [0, 2, 1, 0].into_iter().enumerate() {
        let image = image(100 + number as u64);
        rig.client(at).push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
        for from in 0..COUNT {
            pull(&rig.client(from), REPOSITORY, "latest", &image).await.unwrap();
        }
    }
    let deleted = status(rig.origin(1), reqwest::Method::DELETE, "manifests/latest").await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    for place in 0..COUNT {
        let found = status(rig.origin(place), reqwest::Method::GET, "manifests/latest").await;
        assert_eq!(found.status(), StatusCode::NOT_FOUND, "origin {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_three_serves_what_it_has_and_refuses_pushes_until_there_are_two() {
    let mut rig = Rig::start().await;
    let image = image(200);
    rig.client(0).push(REPOSITORY, "kept", &image, |_| ()).await.unwrap();
    rig.kill(1);
    rig.all_well().await;
    rig.kill(2);
    rig.all_well().await;
    // The one to which it was pushed has all of it.
    pull(&rig.client(0), REPOSITORY, "kept", &image).await.unwrap();
    let layer = format!("blobs/{}", image.layers[0].digest);
    let refused = status(rig.origin(0), reqwest::Method::DELETE, &layer).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "the others would bring it back");
    let refused = status(rig.origin(0), reqwest::Method::POST, "blobs/uploads/").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(refused.text().await.unwrap().contains("1 of 3 origins are well"));
    let client = rig.client(0);
    let manifest = image.manifest.clone();
    let tagged = client.push_manifest(REPOSITORY, "moved", MANIFEST_TYPE, manifest).await;
    assert!(tagged.unwrap_err().to_string().contains("503"));
    let found = status(rig.origin(0), reqwest::Method::GET, "manifests/moved").await;
    assert_eq!(found.status(), StatusCode::NOT_FOUND);

    rig.restart(2);
    rig.all_well().await;
    let next = self::image(201);
    rig.client(2).push(REPOSITORY, "next", &next, |_| ()).await.unwrap();
    for from in [0, 2] {
        pull(&rig.client(from), REPOSITORY, "next", &next).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_filled_again_and_a_returned_origin_serves_no_old_tag() {
    let mut rig = Rig::start().await;
    let (old, new) = (image(300), image(301));
    rig.client(0).push(REPOSITORY, "latest", &old, |_| ()).await.unwrap();
    rig.kill(1);
    rig.all_well().await;
    rig.client(2).push(REPOSITORY, "latest", &new, |_| ()).await.unwrap();

    rig.restart(1);
    rig.all_well().await;
    pull(&rig.client(1), REPOSITORY, "latest", &new).await.unwrap();
    in_time("the returned origin takes over what it missed", async || {
        let learned = rig.origin(1).metric("shoal_origin_cluster_records_learned_total").await;
        anyhow::ensure!(learned > 0.0, "it has taken over nothing");
        Ok(())
    })
    .await;

    rig.kill(2);
    rig.delete_store(2);
    rig.restart(2);
    rig.all_well().await;
    for image in [&old, &new] {
        rig.replicated(image).await;
    }
    pull(&rig.client(2), REPOSITORY, "latest", &new).await.unwrap();
    let mut repaired = 0.0;
    for place in [0, 1] {
        repaired += rig.origin(place).metric("shoal_origin_cluster_copies_repaired_total").await;
    }
    assert!(repaired > 0.0, "the copies were not made by repair");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_hangs_holds_up_nobody_for_long_and_gets_its_copies_afterwards() {
    let rig = Rig::start().await;
    rig.origin(1).freeze();
    let started = Instant::now();
    for seed in 400..403 {
        rig.client(0).push(REPOSITORY, &format!("tag-{seed}"), &image(seed), |_| ()).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(60), "pushes took {:?}", started.elapsed());
    for seed in 400..403 {
        for from in [0, 2] {
            pull(&rig.client(from), REPOSITORY, &format!("tag-{seed}"), &image(seed)).await.unwrap();
        }
    }
    rig.origin(1).thaw();
    rig.all_well().await;
    for seed in 400..403 {
        pull(&rig.client(1), REPOSITORY, &format!("tag-{seed}"), &image(seed)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_origins_are_answered_and_only_proved_metainfo_is_fetched() {
    let rig = Rig::start().await;
    let timeout = Duration::from_secs(10);
    for role in [Role::Agent, Role::Tracker] {
        let refused = rig.asker(role).probe(0, timeout).await;
        assert!(matches!(refused, Err(ControlError::Denied { status: 403, .. })), "{role}: {refused:?}");
    }
    let origin = rig.asker(Role::Origin);
    origin.probe(0, timeout).await.unwrap();

    let content = b"nobody signed this";
    let proof =
        Proof { certificate: b"certificate".as_slice().into(), signature: b"signature".as_slice().into() };
    let metainfo = SignedMetainfo { metainfo: Metainfo::of(content).unwrap(), proof };
    let id = PeerId::from_public_key([7; 32]);
    let addresses = vec![rig.origin(1).peers()];
    let source = PeerAddress { id, role: Role::Origin, addresses, zone: Zone::default() };
    let refused = origin.copy(0, &metainfo, &source, CopyReason::Push).await;
    assert!(matches!(refused, Err(ControlError::Denied { status: 403, .. })), "{refused:?}");

    let digests = vec![Digest::sha256(content); MAX_LACKING + 1];
    assert_eq!(origin.lacking(0, &digests[1..]).await.unwrap().len(), MAX_LACKING);
    let refused = origin.lacking(0, &digests).await;
    assert!(matches!(refused, Err(ControlError::Denied { status: 400, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_added_gets_the_blobs_that_belong_to_it_and_all_links() {
    let mut rig = Rig::start_with(2).await;
    let images: Vec<_> = (500..503).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        rig.client(number % 2).push(REPOSITORY, &format!("tag-{number}"), image, |_| ()).await.unwrap();
    }
    rig.grow();
    rig.all_well().await;
    for (number, image) in images.iter().enumerate() {
        pull(&rig.client(2), REPOSITORY, &format!("tag-{number}"), image).await.unwrap();
    }
    // Of 15 blobs two thirds belong to it, on average.
    in_time("the new origin has blobs and links of its own", async || {
        let has = images.iter().flat_map(blobs).filter(|digest| rig.has(2, digest)).count();
        let learned = rig.origin(2).metric("shoal_origin_cluster_records_learned_total").await;
        anyhow::ensure!(
            has > 0 && learned >= 15.0,
            "it has {has} blobs, and took over {learned} links and tags"
        );
        Ok(())
    })
    .await;
}
