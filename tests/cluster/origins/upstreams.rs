//! Upstream registries behind three origins: what is asked for comes once for all of them, what is held is given while the upstream
//! is away, and what a hostile one answers leads nowhere.

mod fake;
mod hostile;
mod names;
mod stock;
mod times;

use anyhow::ensure;
use futures_util::future::join_all;
use shoal::client::Client;
use shoal::image::Image;
use shoal_core::Digest;

use self::fake::{Behaviour, Fake};
use super::rig::{COUNT, Rig, in_time, pull};
use crate::process::{Process, free_port};
use crate::support::MIB;

/// What the upstream is called, and so what its repositories are below.
const HUB: &str = "hub.example";
const APP: &str = "hub.example/team/app";

/// More of `[cluster]`: origins on a busy machine that take each other for dead ask the upstream twice.
const PATIENT: &str = "probe_timeout = \"20s\"\nrequest_timeout = \"30s\"\n";

/// Three origins and an upstream that has an image as `team/app:1`.
async fn with_upstream(keys: &str, length: u64, seed: u64) -> (Rig, Fake, Image) {
    let fake = Fake::start().await;
    let image = Image::generate(length, 2, seed);
    fake.has("team/app", "1", &image);
    let rig = Rig::start_configured(COUNT, &(PATIENT.to_owned() + &upstream(fake.address, keys))).await;
    (rig, fake, image)
}

fn upstream(address: std::net::SocketAddr, keys: &str) -> String {
    format!("[[upstream]]\nname = {HUB:?}\nurl = \"http://{address}\"\nrepositories = [\"team/*\"]\n{keys}\n")
}

/// The sum of a metric over all origins.
async fn sum(rig: &Rig, metric: &str) -> f64 {
    join_all(rig.live().into_iter().map(|place| rig.origin(place).metric(metric))).await.into_iter().sum()
}

/// The answer to a manifest by tag: status, whether it is marked as stale, and its text.
async fn ask(process: &Process, repository: &str, reference: &str) -> (u16, bool, String) {
    let response = process.client().get(&format!("v2/{repository}/manifests/{reference}")).await.unwrap();
    let stale = response.headers().contains_key("warning");
    (response.status().as_u16(), stale, response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_hosts_pull_at_every_origin_is_asked_for_once() {
    let (rig, fake, image) = with_upstream("", MIB, 900).await;
    let clients: Vec<_> = (0..200).map(|number| rig.client(number % COUNT)).collect();
    let pulls = clients.iter().map(|client| pull(client, APP, "1", &image));
    for pulled in join_all(pulls).await {
        pulled.unwrap();
    }
    let digest = Digest::sha256(&image.manifest).to_string();
    assert_eq!(fake.count("GET", "/manifests/"), 1, "{:#?}", fake.asked());
    assert_eq!(fake.count("HEAD", "/manifests/1"), 1);
    for layer in &image.layers {
        assert_eq!(fake.count("GET", &format!("/blobs/{}", layer.digest)), 1);
    }
    assert_eq!(fake.count("GET", &format!("/manifests/{digest}")), 1);
    rig.replicated(&image).await;
    assert!(
        join_all((0..COUNT).map(|place| {
            rig.origin(place).metric("shoal_origin_upstream_ratelimit_remaining{upstream=\"hub.example\"}")
        }))
        .await
        .contains(&76.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_pull_an_image_of_an_upstream_by_each_of_its_names() {
    let (rig, fake, image) = with_upstream("", 6 * MIB, 901).await;
    let names = format!("[registry.namespaces]\n{HUB:?} = {HUB:?}\n");
    let port = free_port();
    let listen = format!("mirror_listen = {{ {HUB:?} = \"127.0.0.1:{port}\" }}\n");
    let agents = [rig.agent_by("agent-0", &listen, &names).await, rig.agent_by("agent-1", "", &names).await];
    for agent in &agents {
        in_time("the image", async || pull(&agent.client(), APP, "1", &image).await).await;
        // As containerd asks.
        let tag = format!("v2/team/app/manifests/1?ns={HUB}");
        let blob = format!("v2/team/app/blobs/{}?ns={HUB}", image.layers[0].digest);
        for path in [tag, blob] {
            let response = agent.client().get(&path).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()["oci-namespace"], HUB);
        }
    }
    // As docker asks a mirror.
    let mirror = Client::new(format!("127.0.0.1:{port}")).unwrap();
    pull(&mirror, "team/app", "1", &image).await.unwrap();
    assert_eq!(fake.count("GET", "/manifests/"), 1, "{:#?}", fake.asked());
    for layer in &image.layers {
        assert_eq!(fake.count("GET", &format!("/blobs/{}", layer.digest)), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_left_alone_still_pulls_through() {
    let (mut rig, fake, image) = with_upstream("", 3 * MIB, 907).await;
    rig.kill(0);
    rig.kill(1);
    in_time("the image", async || pull(&rig.client(2), APP, "1", &image).await).await;
    assert_eq!(fake.count("GET", "/manifests/"), 1, "{:#?}", fake.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn children_of_an_index_come_when_somebody_wants_them() {
    let (rig, fake, image) = with_upstream("", MIB, 902).await;
    let other = Image::generate(MIB, 1, 903);
    fake.has("team/app", "other", &other);
    let entry = |image: &Image| {
        let (digest, size) = (Digest::sha256(&image.manifest), image.manifest.len());
        serde_json::json!({ "mediaType": shoal::image::MANIFEST_TYPE, "digest": digest, "size": size })
    };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&image), entry(&other)],
    });
    let index = index.to_string();
    for reference in ["all".to_owned(), Digest::sha256(index.as_bytes()).to_string()] {
        fake.has_manifest("team/app", &reference, index.as_bytes());
    }
    let client = rig.client(0);
    assert_eq!(client.pull_manifest(APP, "all").await.unwrap(), index);
    assert_eq!(fake.count("GET", "/manifests/"), 1, "the index alone: {:#?}", fake.asked());
    let child = Digest::sha256(&image.manifest).to_string();
    for place in 0..COUNT {
        assert_eq!(rig.client(place).pull_manifest(APP, &child).await.unwrap(), image.manifest);
        rig.client(place).pull_blob(APP, &image.layers[0].digest, |_| ()).await.unwrap();
    }
    assert_eq!(fake.count("GET", "/manifests/"), 2);
    assert_eq!(fake.count("GET", &other.layers[0].digest.to_string()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_flow_while_the_upstream_still_sends() {
    let (rig, fake, image) = with_upstream("", 12 * MIB, 904).await;
    fake.hold(true);
    let layer = image.layers[0];
    let client = rig.client(1);
    client.pull_manifest(APP, "1").await.unwrap();
    let mut answer = client.get(&format!("v2/{APP}/blobs/{}", layer.digest)).await.unwrap();
    let mut read = answer.chunk().await.unwrap().unwrap().to_vec();
    assert_eq!(rig.copies(&layer.digest), 0, "the upstream has sent no more than a half");
    fake.hold(false);
    while let Some(part) = answer.chunk().await.unwrap() {
        read.extend_from_slice(&part);
    }
    assert_eq!(Digest::sha256(&read), layer.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_upstream_is_away_what_is_held_is_given_and_the_rest_is_unknown() {
    let (rig, fake, image) = with_upstream("tag_ttl = \"300ms\"", 3 * MIB, 905).await;
    pull(&rig.client(0), APP, "1", &image).await.unwrap();
    rig.replicated(&image).await;
    fake.stop().await;
    in_time("the upstream is missed", async || {
        let (status, stale, _) = ask(rig.origin(2), APP, "1").await;
        ensure!(status == 200 && stale, "{status}, stale: {stale}");
        Ok(())
    })
    .await;
    for place in 0..COUNT {
        pull(&rig.client(place), APP, "1", &image).await.unwrap();
        let (status, _, text) = ask(rig.origin(place), APP, "unheard-of").await;
        assert_eq!(status, 404);
        assert!(text.contains("unavailable") && text.contains("team/app"), "{text}");
    }
    assert!(sum(&rig, "shoal_origin_upstream_stale_tags_total{upstream=\"hub.example\"}").await > 0.0);
    fake.again().await;
    in_time("the upstream is back", async || {
        let (status, stale, _) = ask(rig.origin(1), APP, "1").await;
        ensure!(status == 200 && !stale, "{status}, stale: {stale}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_too_many_is_left_alone_by_all_origins() {
    let (rig, fake, image) = with_upstream("tag_ttl = \"100ms\"", 3 * MIB, 906).await;
    pull(&rig.client(0), APP, "1", &image).await.unwrap();
    fake.behave(Behaviour::Limited(120));
    let before = fake.asked().len();
    in_time("the limit is met", async || {
        let (status, stale, _) = ask(rig.origin(1), APP, "1").await;
        ensure!(status == 200 && stale, "{status}, stale: {stale}");
        Ok(())
    })
    .await;
    let storm = (0..90).map(|number| {
        let (origin, tag) = (rig.origin(number % COUNT), format!("new-{number}"));
        async move { ask(origin, APP, &tag).await }
    });
    for (status, _, text) in join_all(storm).await {
        assert_eq!(status, 404);
        assert!(text.contains("unavailable"), "{text}");
    }
    for place in 0..COUNT {
        pull(&rig.client(place), APP, "1", &image).await.unwrap();
    }
    let asked = fake.asked().len() - before;
    assert!(asked <= COUNT, "asked {asked} times after it said too many");
}
