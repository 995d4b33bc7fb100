//! Tags that many move at once, at every origin, while origins die, hang and come back: what everybody saw is linearizable.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use shoal::image::{Image, MANIFEST_TYPE};

use super::history::{REPOSITORY, Recorder};
use super::linearizable::Operation;
use super::network::{self, Network};
use super::rig::{COUNT, Rig, in_time};
use crate::process::Process;

const CLIENTS: usize = 8;
const TAGS: usize = 4;
/// How many answers there are between one disaster and the next.
const ANSWERS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_see_of_tags_is_linearizable_while_origins_die_and_hang() {
    let rig = Rig::start().await;
    everybody_sees_one_history(rig, 5, async |rig, recorder, random, kind| {
        let (victim, pause) = victim(random);
        match kind {
            0 => kill_and_restart(rig, recorder, victim, pause).await,
            1 => {
                rig.origin(victim).freeze();
                tokio::time::sleep(pause).await;
                rig.origin(victim).thaw();
            }
            _ => {
                // Too few are left for a while.
                rig.origin((victim + 1) % COUNT).freeze();
                kill_and_restart(rig, recorder, victim, pause).await;
                rig.origin((victim + 1) % COUNT).thaw();
            }
        }
    })
    .await;
}

#[test]
fn what_clients_see_of_tags_is_linearizable_while_origins_do_not_reach_each_other() {
    let name =
        "origins::tags::what_clients_see_of_tags_is_linearizable_while_origins_do_not_reach_each_other";
    if !network::is_inside(name) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let rig = Rig::start_apart(Network::new()).await;
        everybody_sees_one_history(rig, 4, async |rig, recorder, random, kind| {
            let (victim, pause) = victim(random);
            let other = (victim + 1) % COUNT;
            // Clients reach all of them all the time, whichever side they are on.
            rig.network().cut(victim);
            match kind {
                0 => tokio::time::sleep(pause).await,
                // Nobody has a majority, and then another has it.
                1 => {
                    rig.network().cut(other);
                    tokio::time::sleep(pause).await;
                    rig.network().heal(victim);
                    tokio::time::sleep(pause).await;
                    rig.network().heal(other);
                }
                // One side of two loses one of its own.
                _ => kill_and_restart(rig, recorder, other, pause).await,
            }
            rig.network().heal(victim);
        })
        .await;
    });
}

/// Has clients change and read tags through all origins while one disaster after the other comes, and holds what they saw
/// against what a tag may do.
async fn everybody_sees_one_history(
    mut rig: Rig,
    rounds: usize,
    mut disaster: impl AsyncFnMut(&mut Rig, &Recorder, &mut SmallRng, usize),
) {
    let rounds = std::env::var("ROUNDS").map_or(rounds, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed} ROUNDS={rounds}");
    let mut random = SmallRng::seed_from_u64(seed);
    let recorder = Recorder::new(TAGS, addresses(&rig));
    let clients: Vec<_> = (0..CLIENTS).map(|_| recorder.client(random.random())).collect();
    for round in 0..rounds {
        let before = recorder.answers();
        // Each kind comes soon, and then by chance.
        let kind = if round < 3 { round } else { random.random_range(0..3) };
        disaster(&mut rig, &recorder, &mut random, kind).await;
        in_time("clients go on", async || {
            anyhow::ensure!(recorder.answers() >= before + ANSWERS, "{} answers", recorder.answers());
            Ok(())
        })
        .await;
    }
    rig.all_well().await;
    recorder.stop();
    for client in clients {
        client.await.unwrap();
    }
    // Whatever was lost: now everybody says the same.
    let http = reqwest::Client::new();
    for tag in 0..TAGS {
        for place in 0..COUNT {
            let origin = rig.origin(place).registry();
            in_time("a certain answer", async || {
                let answer = recorder.ask(&http, origin, tag, Operation::Read).await;
                answer.map(drop).ok_or_else(|| anyhow::anyhow!("none"))
            })
            .await;
        }
    }
    let (answered, lost) = recorder.check();
    let unconfirmed = recorder.unconfirmed.load(Ordering::Relaxed);
    eprintln!("{answered} answers, {lost} lost, {unconfirmed} unconfirmed");
    assert!(answered >= rounds * ANSWERS, "{answered} answers: nothing was tried");
}

fn victim(random: &mut SmallRng) -> (usize, Duration) {
    (random.random_range(0..COUNT), Duration::from_millis(random.random_range(200..1500)))
}

async fn kill_and_restart(rig: &mut Rig, recorder: &Recorder, victim: usize, pause: Duration) {
    rig.kill(victim);
    tokio::time::sleep(pause).await;
    rig.restart(victim);
    *recorder.addresses.lock().unwrap() = addresses(rig);
}

fn addresses(rig: &Rig) -> Vec<std::net::SocketAddr> {
    (0..COUNT).map(|place| rig.origin(place).registry()).collect()
}

async fn put(
    origin: &Process,
    tag: &str,
    image: &Image,
    condition: Option<(&str, &str)>,
) -> reqwest::Response {
    let url = format!("http://{}/v2/{REPOSITORY}/manifests/{tag}", origin.registry());
    let mut request = reqwest::Client::new().put(url).header("content-type", MANIFEST_TYPE);
    if let Some((name, value)) = condition {
        request = request.header(name, value);
    }
    request.body(image.manifest.clone()).send().await.unwrap()
}

async fn read(node: &Process, tag: &str) -> reqwest::Response {
    let url = format!("http://{}/v2/{REPOSITORY}/manifests/{tag}", node.registry());
    reqwest::get(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_origin_away_tags_go_on_and_with_two_the_last_says_that_it_is_not_sure() {
    let mut rig = Rig::start().await;
    let agent = rig.agent("agent").await;
    let (one, two) = (Image::generate(20_000, 1, 1), Image::generate(20_000, 1, 2));
    rig.client(0).push(REPOSITORY, "latest", &one, |_| ()).await.unwrap();
    rig.kill(1);
    rig.all_well().await;
    rig.client(2).push(REPOSITORY, "latest", &two, |_| ()).await.unwrap();
    let certain = read(rig.origin(0), "latest").await;
    assert!(!certain.headers().contains_key("warning"));
    assert_eq!(certain.bytes().await.unwrap(), two.manifest);
    let gone = reqwest::Client::new();
    let url = format!("http://{}/v2/{REPOSITORY}/manifests/latest", rig.origin(2).registry());
    assert_eq!(gone.delete(url).send().await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(read(rig.origin(0), "latest").await.status(), StatusCode::NOT_FOUND);
    rig.client(2).push(REPOSITORY, "latest", &one, |_| ()).await.unwrap();

    rig.kill(2);
    rig.all_well().await;
    for node in [rig.origin(0), &agent] {
        let unsure = read(node, "latest").await;
        assert!(unsure.headers()["warning"].to_str().unwrap().starts_with("110 "), "{unsure:?}");
        assert_eq!(unsure.bytes().await.unwrap(), one.manifest);
    }
    let refused = put(rig.origin(0), "latest", &two, None).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));

    // The others never heard of the delete, or of what came after it; two of three are enough to know.
    rig.restart(1);
    rig.all_well().await;
    for place in [0, 1] {
        let certain = read(rig.origin(place), "latest").await;
        assert!(!certain.headers().contains_key("warning"));
        assert_eq!(certain.bytes().await.unwrap(), one.manifest, "origin {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_expect_the_same_of_a_tag_at_different_origins_one_writes() {
    let rig = Rig::start().await;
    let images: Vec<_> = (0..COUNT as u64).map(|seed| Image::generate(20_000, 1, seed)).collect();
    for (place, image) in images.iter().enumerate() {
        rig.client(place).push(REPOSITORY, &format!("own-{place}"), image, |_| ()).await.unwrap();
    }
    let mut expected: Option<String> = None;
    for _ in 0..5 {
        let condition = match &expected {
            None => ("if-none-match", "*"),
            Some(named) => ("if-match", named.as_str()),
        };
        let others: Vec<_> = images
            .iter()
            .enumerate()
            .filter(|(_, image)| expected != Some(etag(image)))
            .map(|(place, image)| put(rig.origin(place), "latest", image, Some(condition)))
            .collect();
        let statuses: Vec<_> =
            futures_util::future::join_all(others).await.iter().map(reqwest::Response::status).collect();
        let written = statuses.iter().filter(|status| **status == StatusCode::CREATED).count();
        assert_eq!(written, 1, "{statuses:?}");
        assert!(
            statuses
                .iter()
                .all(|status| [StatusCode::CREATED, StatusCode::PRECONDITION_FAILED].contains(status))
        );
        let named = read(rig.origin(0), "latest").await.headers()["etag"].to_str().unwrap().to_owned();
        assert_ne!(expected.as_ref(), Some(&named));
        expected = Some(named);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_a_moved_tag_in_time_and_remembers_it_without_origins_if_it_is_told_to() {
    let mut rig = Rig::start().await;
    let stale = rig.agent_with("stale", "tag_ttl = \"300ms\"\ntag_stale_if_error = \"1h\"\n").await;
    let strict = rig.agent_with("strict", "tag_ttl = \"300ms\"\n").await;
    let (one, two) = (Image::generate(20_000, 1, 1), Image::generate(20_000, 1, 2));
    for image in [&one, &two] {
        rig.client(0).push(REPOSITORY, "latest", image, |_| ()).await.unwrap();
        for agent in [&stale, &strict] {
            in_time("the tag of now", async || {
                let answer = read(agent, "latest").await;
                anyhow::ensure!(!answer.headers().contains_key("warning"), "{answer:?}");
                anyhow::ensure!(answer.bytes().await? == image.manifest, "another image");
                Ok(())
            })
            .await;
        }
    }
    for place in 0..COUNT {
        rig.kill(place);
    }
    in_time("nobody is believed any more", async || {
        let answer = read(&strict, "latest").await;
        anyhow::ensure!(answer.status() == StatusCode::NOT_FOUND, "{answer:?}");
        Ok(())
    })
    .await;
    let remembered = read(&stale, "latest").await;
    assert!(remembered.headers()["warning"].to_str().unwrap().starts_with("111 "), "{remembered:?}");
    assert_eq!(remembered.bytes().await.unwrap(), two.manifest);
    assert!(stale.metric("shoal_stale_tags_total").await > 0.0);
}

fn etag(image: &Image) -> String {
    format!("\"{}\"", shoal_core::Digest::sha256(&image.manifest))
}
