//! Blobs that no origin holds any more and a directory behind the cluster has: they come once, are read while they come, and
//! wrong ones are never whole.

use std::path::Path;

use anyhow::ensure;
use futures_util::future::join_all;
use shoal::image::{Image, Layer};
use shoal_core::Digest;

use super::rig::{COUNT, REPLICAS, Rig, in_time, pull};
use crate::process::Process;
use crate::support::{MIB, REPOSITORY, blob_path};

const TAG: &str = "cold";

/// A cluster that knows an image by its links alone, and the directory that has its blobs.
async fn cold(length: u64, seed: u64, sources: impl FnOnce(&Rig) -> String) -> (Rig, Image) {
    let mut rig = Rig::start().await;
    let image = Image::generate(length, 1, seed);
    rig.client(0).push(REPOSITORY, TAG, &image, |_| ()).await.unwrap();
    archive(&rig.folder("archive"), &image);
    let sources = sources(&rig);
    rig.start_without_blobs(sources).await;
    (rig, image)
}

fn source(rig: &Rig, name: &str, keys: &str) -> String {
    format!("[[source]]\nkind = \"directory\"\nname = {name:?}\npath = {:?}\n{keys}", rig.folder(name))
}

/// Writes the blobs of an image as an OCI layout has them.
fn archive(folder: &Path, image: &Image) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let put = |digest: &Digest, content: &[u8]| std::fs::write(file(folder, digest), content).unwrap();
    for layer in &image.layers {
        put(&layer.digest, &content(layer));
    }
    for small in [&image.config, &image.manifest] {
        put(&Digest::sha256(small), small);
    }
}

fn file(folder: &Path, digest: &Digest) -> std::path::PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

fn content(layer: &Layer) -> Vec<u8> {
    layer.chunks().flatten().collect()
}

/// The sum of a metric over all origins that run.
async fn sum(rig: &Rig, metric: &str) -> f64 {
    join_all(rig.live().into_iter().map(|place| rig.origin(place).metric(metric))).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_blob_that_many_ask_for_at_every_origin_comes_once_and_is_kept() {
    let (rig, image) = cold(9 * MIB, 700, |rig| source(rig, "archive", "rate = \"4MiB\"\n")).await;
    let layer = image.layers[0].digest;
    let clients: Vec<_> = (0..COUNT * 6).map(|number| rig.client(number % COUNT)).collect();
    let pulls = clients.iter().map(|client| client.pull_blob(REPOSITORY, &layer, |_| ()));
    for pulled in join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(sum(&rig, "shoal_origin_refill_opened_total{source=\"archive\"}").await, 1.0);
    for place in 0..COUNT {
        pull(&rig.client(place), REPOSITORY, TAG, &image).await.unwrap();
    }
    // Like one that was pushed.
    rig.replicated(&image).await;
    let opened = sum(&rig, "shoal_origin_refill_opened_total{source=\"archive\"}").await;
    assert_eq!(opened, 3.0, "layer, configuration and manifest once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_are_there_long_before_the_last_and_a_length_costs_no_fetch() {
    let (rig, image) = cold(12 * MIB, 701, |rig| source(rig, "archive", "rate = \"2MiB\"\n")).await;
    let layer = image.layers[0];
    for place in 0..COUNT {
        let url = format!("http://{}/{}", rig.origin(place).registry(), blob_path(&layer.digest));
        let head = reqwest::Client::new().head(url).send().await.unwrap();
        assert_eq!(head.headers()["content-length"], layer.length().to_string());
    }
    assert_eq!(sum(&rig, "shoal_origin_refill_opened_total{source=\"archive\"}").await, 0.0);
    for place in 0..COUNT {
        let mut answer = rig.client(place).get(&blob_path(&layer.digest)).await.unwrap();
        let first = answer.chunk().await.unwrap().unwrap();
        assert_eq!(first, content(&layer)[..first.len()]);
        assert_eq!(
            rig.copies(&layer.digest),
            0,
            "origin {place} sent its first byte after the last had come"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_whole_at_any_origin_and_are_not_kept() {
    let (rig, image) = cold(5 * MIB, 702, |rig| source(rig, "archive", "")).await;
    let layer = image.layers[0];
    let path = file(&rig.folder("archive"), &layer.digest);
    let mut spoiled = content(&layer);
    *spoiled.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &spoiled).unwrap();
    for place in 0..COUNT {
        let answer = rig.client(place).get(&blob_path(&layer.digest)).await.unwrap();
        if answer.status().is_success() {
            assert!(answer.bytes().await.is_err(), "origin {place} gave all of it");
        }
        let part = rig.client(place).get_range(&blob_path(&layer.digest), "bytes=0-99").await.unwrap();
        assert!(!part.status().is_success() || part.bytes().await.is_err(), "origin {place} gave a part");
    }
    assert_eq!(rig.copies(&layer.digest), 0);
    let wrong = sum(&rig, "shoal_origin_refill_wrong_total{source=\"archive\"}").await;
    assert!(wrong >= 1.0);
    let said = (0..COUNT).flat_map(|place| rig.origin(place).complaints());
    assert!(said.into_iter().any(|line| line.contains("another blob: thrown away")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_source_breaks_off_another_goes_on_with() {
    let (rig, image) =
        cold(12 * MIB, 703, |rig| source(rig, "archive", "rate = \"2MiB\"\n") + &source(rig, "other", ""))
            .await;
    archive(&rig.folder("other"), &image);
    let layer = image.layers[0];
    let mut answer = rig.client(1).get(&blob_path(&layer.digest)).await.unwrap();
    let mut read = answer.chunk().await.unwrap().unwrap().to_vec();
    let path = file(&rig.folder("archive"), &layer.digest);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB).unwrap();
    std::fs::remove_file(&path).unwrap();
    while let Some(part) = answer.chunk().await.unwrap() {
        read.extend_from_slice(&part);
    }
    assert_eq!(Digest::sha256(&read), layer.digest);
    let rest = sum(&rig, "shoal_origin_refill_bytes_total{source=\"other\"}").await;
    assert!(rest > 0.0 && rest < layer.length() as f64, "the other source sent {rest} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_origin_takes_over_from_one_that_dies_while_it_fetches() {
    let (mut rig, image) = cold(16 * MIB, 704, |rig| source(rig, "archive", "rate = \"2MiB\"\n")).await;
    let layer = image.layers[0];
    let opened = "shoal_origin_refill_opened_total{source=\"archive\"}";
    // Whoever fetches it is found by the first who asks; the others read from there.
    let mut answers = Vec::new();
    for place in 0..COUNT {
        let mut answer = rig.client(place).get(&blob_path(&layer.digest)).await.unwrap();
        let first = answer.chunk().await.unwrap().unwrap().to_vec();
        answers.push((place, answer, first));
    }
    let mut fetcher = None;
    for place in 0..COUNT {
        if rig.origin(place).metric(opened).await > 0.0 {
            assert!(fetcher.replace(place).is_none(), "two origins fetch the same blob");
        }
    }
    let fetcher = fetcher.unwrap();
    rig.kill(fetcher);
    for (place, mut answer, mut read) in answers {
        if place == fetcher {
            continue;
        }
        while let Some(part) = answer.chunk().await.unwrap() {
            read.extend_from_slice(&part);
        }
        assert_eq!(Digest::sha256(&read), layer.digest, "through origin {place}");
    }
    assert_eq!(sum(&rig, opened).await, 1.0, "one of those that are left has fetched it");
    in_time("enough copies", async || {
        let copies = rig.live().into_iter().filter(|&place| rig.has(place, &layer.digest)).count();
        ensure!(copies >= REPLICAS, "{copies} copies");
        Ok(())
    })
    .await;
    rig.restart(fetcher);
    rig.all_well().await;
    pull(&rig.client(fetcher), REPOSITORY, TAG, &image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_exchange_a_cold_blob_while_it_comes_from_behind_the_cluster() {
    let (rig, image) = cold(14 * MIB, 705, |rig| source(rig, "archive", "rate = \"3MiB\"\n")).await;
    let layer = image.layers[0];
    let mut agents = Vec::new();
    for number in 0..3 {
        agents.push(rig.agent(&format!("agent-{number}")).await);
    }
    let clients: Vec<_> = agents.iter().map(Process::client).collect();
    let answers = clients.iter().map(|client| {
        in_time("the layer", async || {
            let mut answer = client.get(&blob_path(&layer.digest)).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            let first = answer.chunk().await?.unwrap().to_vec();
            Ok((answer, first))
        })
    });
    let answers = join_all(answers).await;
    assert_eq!(rig.copies(&layer.digest), 0, "the first bytes came after the last");
    for (mut answer, mut read) in answers {
        while let Some(part) = answer.chunk().await.unwrap() {
            read.extend_from_slice(&part);
        }
        assert_eq!(Digest::sha256(&read), layer.digest);
    }
    let received =
        agents.iter().map(|agent| agent.metric("shoal_piece_bytes_received_total{source=\"peer\"}"));
    let exchanged: f64 = join_all(received).await.into_iter().sum();
    assert!(exchanged > layer.length() as f64 / 2.0, "agents had only {exchanged} bytes from each other");
    assert_eq!(sum(&rig, "shoal_origin_refill_opened_total{source=\"archive\"}").await, 1.0);
    for agent in &agents {
        pull(&agent.client(), REPOSITORY, TAG, &image).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gives_no_wrong_blob_and_gets_the_right_one_afterwards() {
    let sources = |rig: &Rig| {
        source(rig, "archive", "rate = \"3MiB\"\n") + "[refill]\nbar = \"1s\"\nremember = \"100ms\"\n"
    };
    let (rig, image) = cold(6 * MIB, 706, sources).await;
    let layer = image.layers[0];
    let path = file(&rig.folder("archive"), &layer.digest);
    let mut spoiled = content(&layer);
    spoiled[5] ^= 1;
    std::fs::write(&path, &spoiled).unwrap();
    let agent = rig.agent("agent").await;
    let answer = agent.client().get(&blob_path(&layer.digest)).await.unwrap();
    assert!(!answer.status().is_success() || answer.bytes().await.is_err(), "the agent gave all of it");
    assert_eq!(rig.copies(&layer.digest), 0);
    std::fs::write(&path, content(&layer)).unwrap();
    in_time("the right blob", async || agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_a_cold_blob_whose_origin_dies_while_it_fetches() {
    let (mut rig, image) = cold(14 * MIB, 707, |rig| source(rig, "archive", "rate = \"3MiB\"\n")).await;
    let layer = image.layers[0];
    let agent = rig.agent("agent").await;
    let client = agent.client();
    let mut answer = in_time("the layer", async || {
        let answer = client.get(&blob_path(&layer.digest)).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(answer)
    })
    .await;
    let mut read = answer.chunk().await.unwrap().unwrap().to_vec();
    let fetcher = in_time("who fetches", async || {
        for place in 0..COUNT {
            if rig.origin(place).metric("shoal_origin_refill_opened_total{source=\"archive\"}").await > 0.0 {
                return Ok(place);
            }
        }
        anyhow::bail!("nobody")
    })
    .await;
    rig.kill(fetcher);
    // All of it, or cut and then all of it: never another.
    while let Ok(Some(part)) = answer.chunk().await {
        read.extend_from_slice(&part);
    }
    assert!(read.len() as u64 != layer.length() || Digest::sha256(&read) == layer.digest);
    in_time("the layer", async || client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await).await;
}
