//! Garbage collection at origins that keep blobs together: what nobody needs goes everywhere, what a push needs stays, whoever
//! collects and whoever dies meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, StatusCode};
use shoal::client::Client;
use shoal::image::{Image, MANIFEST_TYPE};
use shoal_core::Digest;

use super::rig::{COUNT, REPLICAS, Rig, blobs, in_time, pull};

/// As fast as it may be.
const KEYS: &str =
    "surplus_age = \"1s\"\n[maintenance.garbage]\nenabled = true\ninterval = \"10s\"\nmin_age = \"10s\"\n";
const WRITERS: usize = 3;
const IMAGES: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn what_no_manifest_names_goes_everywhere_and_each_blob_is_left_as_often_as_it_should_be() {
    let rig = Rig::start_configured(COUNT, KEYS).await;
    let (kept, gone) = (Image::generate(300_000, 2, 1), Image::generate(300_000, 2, 2));
    for place in 0..COUNT {
        rig.client(place).push("team/kept", "latest", &kept, |_| ()).await.unwrap();
        rig.client(place).push("team/gone", "latest", &gone, |_| ()).await.unwrap();
    }
    let manifest = Digest::sha256(&gone.manifest);
    assert_eq!(
        delete(&rig.origin(0).registry().to_string(), "team/gone", &manifest).await,
        Some(StatusCode::ACCEPTED)
    );
    for digest in blobs(&gone) {
        in_time("garbage goes", async || {
            ensure!(rig.copies(&digest) == 0, "{digest} has {} copies", rig.copies(&digest));
            Ok(())
        })
        .await;
    }
    for digest in blobs(&kept) {
        in_time("surplus goes", async || {
            ensure!(rig.copies(&digest) == REPLICAS, "{digest} has {} copies", rig.copies(&digest));
            Ok(())
        })
        .await;
    }
    for place in 0..COUNT {
        pull(&rig.client(place), "team/kept", "latest", &kept).await.unwrap();
    }
    // What is gone can come back.
    rig.client(1).push("team/gone", "latest", &gone, |_| ()).await.unwrap();
    pull(&rig.client(2), "team/gone", "latest", &gone).await.unwrap();
}

/// Which image a repository is known to have; `None`: it has none, or nobody knows.
type Shown = BTreeMap<String, Option<u64>>;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_image_has_a_hole_while_garbage_is_collected_and_origins_die() {
    let rounds = std::env::var("ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed} ROUNDS={rounds}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut rig = Rig::start_configured(COUNT, KEYS).await;
    let images: Arc<Vec<_>> = Arc::new((0..IMAGES).map(|seed| Image::generate(100_000, 3, seed)).collect());
    let (mut shown, mut collected): (Vec<Shown>, _) = (vec![Shown::new(); WRITERS], 0.0);
    let mut looked_at = 0;
    for round in 0..rounds {
        let addresses: Vec<_> = (0..COUNT).map(|place| rig.origin(place).registry().to_string()).collect();
        let until = tokio::time::Instant::now() + Duration::from_secs(18);
        let writers: Vec<_> = shown
            .drain(..)
            .enumerate()
            .map(|(writer, shown)| {
                let random = SmallRng::seed_from_u64(random.random());
                tokio::spawn(write(writer, addresses.clone(), images.clone(), shown, random, until))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(9_000..16_000))).await;
        let victim = random.random_range(0..COUNT);
        collected += collected_by(&rig, victim).await;
        rig.kill(victim);
        for writer in writers {
            shown.push(writer.await.unwrap());
        }
        let known: Vec<_> =
            shown.iter().flatten().filter_map(|(name, image)| Some((name, (*image)?))).collect();
        looked_at += known.len();
        eprintln!("round {round}: origin {victim} died, {} repositories have an image", known.len());
        rig.all_well().await;
        audit(&rig, &images, &known).await;
        rig.restart(victim);
        rig.all_well().await;
        audit(&rig, &images, &known).await;
    }
    // Writers delete as well: after a round there may be none.
    assert!(looked_at > 0, "nothing was acknowledged");
    for place in 0..COUNT {
        collected += collected_by(&rig, place).await;
    }
    eprintln!("{looked_at} images were looked at, {collected} links and blobs were collected");
    assert!(collected > 0.0, "nothing was collected");
}

async fn collected_by(rig: &Rig, place: usize) -> f64 {
    let mut collected = 0.0;
    for kind in ["layer_link", "blob"] {
        let name = format!("shoal_registry_maintenance_deleted_total{{kind=\"{kind}\"}}");
        collected += rig.origin(place).metric(&name).await;
    }
    collected
}

async fn audit(rig: &Rig, images: &[Image], known: &[(&String, u64)]) {
    for place in rig.live() {
        for &(repository, image) in known {
            let what = format!("{repository} with image {image} at origin {place}");
            let image = &images[usize::try_from(image).unwrap()];
            in_time(&what, async || pull(&rig.client(place), repository, "latest", image).await).await;
        }
    }
}

/// Pushes, and deletes, in each way that a client has: whole, by what the repository has already, by mounts.
async fn write(
    writer: usize,
    addresses: Vec<String>,
    images: Arc<Vec<Image>>,
    mut shown: Shown,
    mut random: SmallRng,
    until: tokio::time::Instant,
) -> Shown {
    while tokio::time::Instant::now() < until {
        let repository = format!("team/writer-{writer}-{}", random.random_range(0..2));
        let (seed, address) = (random.random_range(0..IMAGES), addresses.choose(&mut random).unwrap());
        let image = &images[usize::try_from(seed).unwrap()];
        let client = Client::new(address).unwrap();
        let way = random.random_range(0..6);
        if way < 2 {
            let Some(Some(old)) = shown.insert(repository.clone(), None) else { continue };
            let manifest = Digest::sha256(&images[usize::try_from(old).unwrap()].manifest);
            delete(address, &repository, &manifest).await;
            // Sometimes it is long until the next push.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..4_000))).await;
            continue;
        }
        let ready = match way {
            2 | 3 => push_blobs(&client, &repository, image).await,
            4 => {
                mount_blobs(address, &repository, &format!("team/writer-{}-0", (writer + 1) % WRITERS), image)
                    .await
            }
            _ => true,
        };
        let manifest = image.manifest.clone();
        let before = shown.get(&repository).copied().flatten();
        let pushed = client.push_manifest(&repository, "latest", MANIFEST_TYPE, manifest).await;
        // What was refused because of a blob that is not there has changed nothing.
        let refused = pushed.as_ref().is_err_and(|error| error.to_string().contains("MANIFEST_BLOB_UNKNOWN"));
        let now = if refused { before } else { pushed.is_ok().then_some(seed) };
        shown.insert(repository, now);
        tokio::time::sleep(Duration::from_millis(if ready { random.random_range(0..1_500) } else { 200 }))
            .await;
    }
    shown
}

async fn push_blobs(client: &Client, repository: &str, image: &Image) -> bool {
    for layer in &image.layers {
        if client.push_layer(repository, *layer, |_| ()).await.is_err() {
            return false;
        }
    }
    let config = futures_util::stream::iter([Ok(image.config.clone())]);
    client.push_blob(repository, &Digest::sha256(&image.config), config).await.is_ok()
}

async fn mount_blobs(address: &str, repository: &str, from: &str, image: &Image) -> bool {
    let digests = image.layers.iter().map(|layer| layer.digest).chain([Digest::sha256(&image.config)]);
    for digest in digests {
        let url = format!("http://{address}/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        let answer = reqwest::Client::new().post(url).send().await;
        if !answer.is_ok_and(|answer| answer.status() == StatusCode::CREATED) {
            return false;
        }
    }
    true
}

async fn delete(address: &str, repository: &str, manifest: &Digest) -> Option<StatusCode> {
    let url = format!("http://{address}/v2/{repository}/manifests/{manifest}");
    let answer = reqwest::Client::new().request(Method::DELETE, url).send().await;
    Some(answer.ok()?.status())
}
