//! What is pushed is written to the store behind the origins, whatever dies or is away meanwhile; and all of it is served again
//! when nothing is left of the origins' disks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::Value;
use shoal::image::Image;
use shoal_core::Digest;

use super::rig::{COUNT, Rig, blobs, in_time, pull};
use crate::support::{MIB, REPOSITORY, blob_path};

const QUICK: &str =
    "[write_back]\nretry = \"100ms\"\nlongest_retry = \"500ms\"\ntakeover = \"1s\"\ntimeout = \"2s\"\n";

fn share(folder: &Path) -> PathBuf {
    folder.join("share")
}

fn backend(folder: &Path, keys: &str) -> String {
    std::fs::create_dir_all(share(folder)).unwrap();
    format!("[[backend]]\nkind = \"directory\"\nname = \"share\"\npath = {:?}\n{keys}{QUICK}", share(folder))
}

async fn start() -> Rig {
    Rig::configured(COUNT, |folder| backend(folder, "")).await
}

/// All files below a folder, by their paths in it.
fn files(root: &Path) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn blob_key(digest: &Digest) -> String {
    format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex())
}

/// All that has to be there of an image.
fn expected(repository: &str, tags: &[&str], image: &Image) -> BTreeSet<String> {
    let manifest = Digest::sha256(&image.manifest);
    let link = |digest: &Digest| {
        let folder = if *digest == manifest { "_revisions" } else { "_layers" };
        format!("repositories/{repository}/{folder}/sha256/{}", digest.hex())
    };
    let blobs = blobs(image);
    let tags = tags.iter().map(|tag| format!("repositories/{repository}/_tags/{tag}"));
    blobs.iter().map(blob_key).chain(blobs.iter().map(link)).chain(tags).collect()
}

/// Waits until nothing waits to be written at any origin that runs.
async fn written(rig: &Rig) {
    in_time("everything written", async || {
        for place in rig.live() {
            for state in ["waiting", "taken", "dead"] {
                let metric = format!("shoal_queue_jobs{{queue=\"write-back\",state={state:?}}}");
                let jobs = rig.origin(place).metric(&metric).await;
                ensure!(jobs == 0.0, "origin {place}: {jobs} jobs {state}");
            }
        }
        Ok(())
    })
    .await;
}

async fn sum(rig: &Rig, metric: &str) -> f64 {
    join_all(rig.live().into_iter().map(|place| rig.origin(place).metric(metric))).await.into_iter().sum()
}

async fn push(rig: &Rig, place: usize, tag: &str, length: u64, seed: u64) -> Image {
    let image = Image::generate(length, 2, seed);
    rig.client(place).push(REPOSITORY, tag, &image, |_| ()).await.unwrap();
    image
}

async fn names(rig: &Rig, place: usize, path: &str, key: &str) -> anyhow::Result<Vec<String>> {
    let url = format!("http://{}/v2/{path}", rig.origin(place).registry());
    let answer = reqwest::get(url).await?.error_for_status()?;
    let answer: Value = answer.json().await?;
    let names = answer[key].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

async fn delete(rig: &Rig, place: usize, reference: &str) {
    let url = format!("http://{}/v2/{REPOSITORY}/manifests/{reference}", rig.origin(place).registry());
    in_time("the delete", async || {
        let answer = reqwest::Client::new().delete(&url).send().await?;
        ensure!(answer.status() == 202, "{}", answer.status());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_written_with_links_and_tags_each_blob_once() {
    let rig = start().await;
    let image = push(&rig, 0, "one", 20 * MIB, 800).await;
    rig.client(1).push(REPOSITORY, "two", &image, |_| ()).await.unwrap();
    written(&rig).await;
    let share = share(&rig.folder("."));
    assert_eq!(files(&share), expected(REPOSITORY, &["one", "two"], &image));
    for digest in blobs(&image) {
        assert_eq!(Digest::sha256(&std::fs::read(share.join(blob_key(&digest))).unwrap()), digest);
    }
    let length: u64 = image.layers.iter().map(shoal::image::Layer::length).sum::<u64>()
        + (image.config.len() + image.manifest.len()) as u64;
    let bytes = sum(&rig, "shoal_backend_written_bytes_total{backend=\"share\"}").await;
    assert_eq!(bytes, length as f64, "each blob is written once, by one of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_go_on_while_it_is_away_and_all_of_them_arrive() {
    let rig = start().await;
    let before = push(&rig, 0, "before", 2 * MIB, 810).await;
    written(&rig).await;
    let (share, away) = (share(&rig.folder(".")), rig.folder("away"));
    std::fs::rename(&share, &away).unwrap();
    let mut all = expected(REPOSITORY, &["before"], &before);
    for number in 0..6 {
        let tag = format!("tag-{number}");
        let image = push(&rig, number % COUNT, &tag, MIB, 811 + number as u64).await;
        all.extend(expected(REPOSITORY, &[&tag], &image));
    }
    in_time("failures are seen", async || {
        let failed = sum(&rig, "shoal_queue_tries_total{queue=\"write-back\",result=\"failed\"}").await;
        ensure!(failed > 10.0, "{failed} tries failed");
        Ok(())
    })
    .await;
    assert!(!share.exists(), "it was made anew");
    std::fs::rename(&away, &share).unwrap();
    written(&rig).await;
    assert_eq!(files(&share), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_the_disk_of_the_origin_that_took_the_push() {
    let mut rig = start().await;
    let (share, away) = (share(&rig.folder(".")), rig.folder("away"));
    std::fs::rename(&share, &away).unwrap();
    let mut all = BTreeSet::new();
    for number in 0..4 {
        let tag = format!("tag-{number}");
        let image = push(&rig, 0, &tag, 2 * MIB, 820 + number).await;
        all.extend(expected(REPOSITORY, &[&tag], &image));
    }
    rig.kill(0);
    rig.delete_store(0);
    std::fs::rename(&away, &share).unwrap();
    written(&rig).await;
    assert_eq!(files(&share), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_all_origins_being_killed_at_once() {
    let mut rig = start().await;
    let (share, away) = (share(&rig.folder(".")), rig.folder("away"));
    std::fs::rename(&share, &away).unwrap();
    let image = push(&rig, 1, "tag", 3 * MIB, 830).await;
    for place in 0..COUNT {
        rig.kill(place);
    }
    std::fs::rename(&away, &share).unwrap();
    for place in 0..COUNT {
        rig.restart(place);
    }
    rig.all_well().await;
    written(&rig).await;
    assert_eq!(files(&share), expected(REPOSITORY, &["tag"], &image));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_disks_are_lost_every_tag_is_pulled_again_from_everywhere() {
    let mut rig = start().await;
    let mut images = Vec::new();
    for number in 0..4 {
        let tag = format!("tag-{number}");
        let image = push(&rig, number % COUNT, &tag, 3 * MIB, 840 + number as u64).await;
        images.push((tag, image));
    }
    // One that moved, and one that is gone.
    let moved = push(&rig, 1, "tag-0", MIB, 849).await;
    images[0].1 = moved;
    push(&rig, 2, "gone", MIB, 850).await;
    delete(&rig, 0, "gone").await;
    let other = Image::generate(MIB, 1, 851);
    rig.client(1).push("team/other", "v1", &other, |_| ()).await.unwrap();
    written(&rig).await;
    rig.wipe().await;
    // At once, while all of it is read in the background, and at each origin another first.
    for place in 0..COUNT {
        for number in 0..images.len() {
            let (tag, image) = &images[(number + place) % images.len()];
            in_time("a pull", async || pull(&rig.client(place), REPOSITORY, tag, image).await).await;
        }
        in_time("the other", async || pull(&rig.client(place), "team/other", "v1", &other).await).await;
        let gone = rig.client(place).pull_manifest(REPOSITORY, "gone").await;
        assert!(gone.is_err(), "a deleted tag came back at origin {place}");
    }
    for place in 0..COUNT {
        let tags =
            in_time("tags", async || names(&rig, place, &format!("{REPOSITORY}/tags/list"), "tags").await)
                .await;
        assert_eq!(tags, ["tag-0", "tag-1", "tag-2", "tag-3"]);
        let catalog = in_time("catalog", async || names(&rig, place, "_catalog", "repositories").await).await;
        let all: BTreeSet<_> = [REPOSITORY, "team/other"].map(str::to_owned).into();
        assert_eq!(catalog.into_iter().collect::<BTreeSet<_>>(), all);
    }
    let agent = rig.agent("agent").await;
    for (tag, image) in &images {
        in_time("a pull by the agent", async || pull(&agent.client(), REPOSITORY, tag, image).await).await;
    }
    // It is a registry as before.
    let again = push(&rig, 2, "tag-1", MIB, 852).await;
    pull(&rig.client(0), REPOSITORY, "tag-1", &again).await.unwrap();
    written(&rig).await;
    rig.wipe().await;
    in_time("a pull", async || pull(&rig.client(1), REPOSITORY, "tag-1", &again).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_disks_and_without_the_backend_nothing_is_said_not_to_be_there() {
    let mut rig = start().await;
    let image = push(&rig, 0, "tag", MIB, 860).await;
    written(&rig).await;
    let (share, away) = (share(&rig.folder(".")), rig.folder("away"));
    // Origins begin only with it; it may go then.
    let mut tries = 0;
    rig.wipe_with(|| {
        tries += 1;
        if tries == COUNT {
            std::fs::rename(&share, &away).unwrap();
        }
    });
    for place in 0..COUNT {
        // One of them may have read all of it before.
        if let Ok(catalog) = names(&rig, place, "_catalog", "repositories").await {
            assert_eq!(catalog, [REPOSITORY], "origin {place} says that there is nothing");
        }
    }
    std::fs::rename(&away, &share).unwrap();
    rig.all_well().await;
    for place in 0..COUNT {
        in_time("a pull", async || pull(&rig.client(place), REPOSITORY, "tag", &image).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_safe_is_given_up_and_comes_back_and_what_is_not_stays() {
    let eviction = "[eviction]\ncapacity = \"1MiB\"\nmin_free = 0\nmin_idle = \"0s\"\ninterval = \"200ms\"\n";
    let tables = |folder: &Path| backend(folder, "repositories = [\"team/*\"]\n") + eviction;
    let rig = Rig::configured(COUNT, tables).await;
    let safe = Image::generate(6 * MIB, 2, 870);
    let kept = Image::generate(6 * MIB, 2, 871);
    rig.client(0).push("team/safe", "tag", &safe, |_| ()).await.unwrap();
    rig.client(1).push("kept", "tag", &kept, |_| ()).await.unwrap();
    written(&rig).await;
    for layer in &safe.layers {
        in_time("it is given up", async || {
            ensure!(rig.copies(&layer.digest) == 0, "{} has copies", layer.digest);
            Ok(())
        })
        .await;
    }
    for _ in 0..5 {
        for digest in blobs(&kept) {
            assert!(rig.copies(&digest) >= 2, "{digest} is nowhere else");
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    for place in 0..COUNT {
        in_time("a pull", async || pull(&rig.client(place), "team/safe", "tag", &safe).await).await;
        pull(&rig.client(place), "kept", "tag", &kept).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_up_while_the_backend_is_away_or_lacks_it() {
    let eviction = "[eviction]\ncapacity = \"1MiB\"\nmin_free = 0\nmin_idle = \"0s\"\ninterval = \"100ms\"\n";
    let rig = Rig::configured(COUNT, |folder| backend(folder, "") + eviction).await;
    let (share, away) = (share(&rig.folder(".")), rig.folder("away"));
    std::fs::rename(&share, &away).unwrap();
    let image = push(&rig, 0, "tag", 6 * MIB, 880).await;
    in_time("it was looked", async || {
        let kept = sum(&rig, "shoal_origin_eviction_unsafe_blobs").await;
        ensure!(kept >= 4.0, "{kept} blobs are known to be unsafe");
        Ok(())
    })
    .await;
    for digest in blobs(&image) {
        assert!(rig.copies(&digest) >= 2);
    }
    pull(&rig.client(2), REPOSITORY, "tag", &image).await.unwrap();
    std::fs::rename(&away, &share).unwrap();
    written(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_ask_for_a_cold_blob_cost_one_fetch() {
    let mut rig = start().await;
    let image = push(&rig, 0, "tag", MIB / 2, 890).await;
    written(&rig).await;
    rig.wipe().await;
    let layer = image.layers[0].digest;
    let clients: Vec<_> = (0..COUNT).map(|place| rig.client(place)).collect();
    in_time("links", async || {
        for client in &clients {
            client.pull_manifest(REPOSITORY, "tag").await?;
        }
        Ok(())
    })
    .await;
    let opened = "shoal_origin_refill_opened_total{source=\"share\"}";
    let before = sum(&rig, opened).await;
    let asks = (0..1000).map(|number| clients[number % COUNT].pull_blob(REPOSITORY, &layer, |_| ()));
    for asked in join_all(asks).await {
        asked.unwrap();
    }
    assert_eq!(sum(&rig, opened).await - before, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_in_the_backend_are_never_whole() {
    let mut rig = start().await;
    let image = push(&rig, 0, "tag", 4 * MIB, 895).await;
    written(&rig).await;
    let layer = image.layers[0].digest;
    let path = share(&rig.folder(".")).join(blob_key(&layer));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    rig.wipe().await;
    for place in 0..COUNT {
        in_time("the manifest", async || rig.client(place).pull_manifest(REPOSITORY, "tag").await).await;
        let answer = rig.client(place).get(&blob_path(&layer)).await.unwrap();
        assert!(
            !answer.status().is_success() || answer.bytes().await.is_err(),
            "origin {place} gave all of it"
        );
    }
    let wrong = sum(&rig, "shoal_origin_refill_wrong_total{source=\"share\"}").await;
    assert!(wrong >= 1.0, "nobody has seen the wrong bytes");
    assert_eq!(rig.copies(&layer), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_before_there_was_a_backend_is_written_too() {
    let mut rig = Rig::start().await;
    let image = push(&rig, 0, "tag", 3 * MIB, 898).await;
    let tables = backend(&rig.folder("."), "");
    rig.reconfigure(tables).await;
    let all = expected(REPOSITORY, &["tag"], &image);
    in_time("it is written", async || {
        let there = files(&share(&rig.folder(".")));
        ensure!(there == all, "{} of {} objects", there.len(), all.len());
        Ok(())
    })
    .await;
}
