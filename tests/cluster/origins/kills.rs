//! Origins that are killed in the middle of pushes, again and again: what was acknowledged is there, what was not is there
//! whole or not at all, and the copies are made up for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use shoal::client::Client;
use shoal::image::Image;
use shoal_core::Digest;

use super::rig::{Rig, in_time, pull};
use crate::process::Process;

const WRITERS: u64 = 3;
/// How many pushes each of them makes in a round.
const PUSHES: u64 = 3;
const MOVING: &str = "moving";

/// One push, as its client knows it.
#[derive(Clone)]
struct Push {
    repository: String,
    tag: String,
    image: Image,
    acknowledged: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_origins_are_killed_in_the_middle_of_pushes() {
    let rounds = std::env::var("ROUNDS").map_or(10, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed} ROUNDS={rounds}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut rig = Rig::start().await;
    let agent = rig.agent("agent").await;
    let mut kept: Vec<Push> = Vec::new();
    for round in 0..rounds {
        let pushes = push_and_kill(&mut rig, &mut random).await;
        let acknowledged = pushes.iter().filter(|push| push.acknowledged).count();
        let sample: Vec<_> = kept.sample(&mut random, 3).cloned().collect();
        audit(&rig, &agent, &pushes).await;
        audit(&rig, &agent, &sample).await;
        let dead = (0..super::rig::COUNT).find(|place| !rig.live().contains(place)).unwrap();
        rig.restart(dead);
        rig.all_well().await;
        audit(&rig, &agent, &pushes).await;
        for push in pushes.iter().filter(|push| push.acknowledged) {
            rig.replicated(&push.image).await;
        }
        eprintln!("round {round}: origin {dead} died, {acknowledged} of {} acknowledged", pushes.len());
        kept.extend(pushes.into_iter().filter(|push| push.acknowledged && push.tag != MOVING));
    }
    audit(&rig, &agent, &kept).await;
}

/// Writers push to origins by chance, and go on with the next when one fails; one origin is killed meanwhile.
async fn push_and_kill(rig: &mut Rig, random: &mut SmallRng) -> Vec<Push> {
    let steps = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = rig.live().into_iter().map(|place| rig.client(place)).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let random = SmallRng::seed_from_u64(random.random());
            tokio::spawn(write(writer, clients.clone(), random, steps.clone()))
        })
        .collect();
    let victim = *rig.live().choose(random).unwrap();
    // A push is 3 layers of some chunks each, about 13 steps.
    let when = random.random_range(1..WRITERS as usize * PUSHES as usize * 12);
    in_time("the moment to kill", async || {
        let done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        ensure!(done || steps.load(Ordering::Relaxed) >= when, "not yet");
        Ok(())
    })
    .await;
    rig.kill(victim);
    let mut pushes = Vec::new();
    for writer in writers {
        pushes.extend(writer.await.unwrap());
    }
    pushes
}

async fn write(
    writer: u64,
    clients: Vec<Client>,
    mut random: SmallRng,
    steps: Arc<AtomicUsize>,
) -> Vec<Push> {
    let mut pushes = Vec::new();
    for _ in 0..PUSHES {
        let seed: u64 = random.random();
        let image = Image::generate(random.random_range(20_000..2_000_000), 3, seed);
        let repository = format!("team/writer-{writer}");
        let client = clients.choose(&mut random).unwrap();
        for tag in [format!("image-{seed}"), MOVING.to_owned()] {
            let steps = steps.clone();
            let progress = move |_| _ = steps.fetch_add(1, Ordering::Relaxed);
            let pushed = client.push(&repository, &tag, &image, progress).await;
            if let Err(error) = &pushed {
                eprintln!("not acknowledged: {repository}:{tag}: {error:#}");
            }
            let (repository, image) = (repository.clone(), image.clone());
            pushes.push(Push { repository, tag, image, acknowledged: pushed.is_ok() });
        }
    }
    pushes
}

/// Holds what every live origin and the agent show against what clients know.
async fn audit(rig: &Rig, agent: &Process, pushes: &[Push]) {
    let live: Vec<_> =
        rig.live().into_iter().map(|place| (format!("origin {place}"), rig.client(place))).collect();
    let agent = ("the agent".to_owned(), agent.client());
    for push in pushes.iter().filter(|push| push.tag != MOVING) {
        for (who, client) in live.iter().chain([&agent]) {
            let what = format!("{}:{} at {who}", push.repository, push.tag);
            if push.acknowledged {
                // What is right stays right: only that nobody can be asked for a moment is no loss.
                in_time(&what, async || pull(client, &push.repository, &push.tag, &push.image).await).await;
            } else {
                in_time(&what, async || whole_or_absent(client, push).await).await;
            }
        }
    }
    for (repository, possible) in moving(pushes) {
        for (who, client) in &live {
            let manifest = client.pull_manifest(&repository, MOVING).await;
            let manifest = manifest.with_context(|| format!("{repository}:{MOVING} at {who}"));
            let Some(possible) = &possible else { continue };
            let manifest = manifest.unwrap();
            assert!(
                possible.contains(&Digest::sha256(&manifest)),
                "{repository}:{MOVING} at {who} is an older image"
            );
        }
    }
}

/// What was not acknowledged may be there all the same, but then all of it.
async fn whole_or_absent(client: &Client, push: &Push) -> anyhow::Result<()> {
    let answer = client.get(&format!("v2/{}/manifests/{}", push.repository, push.tag)).await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(());
    }
    pull(client, &push.repository, &push.tag, &push.image).await
}

/// What each moving tag may name: the last that was acknowledged, or one that was tried after it; `None` if none was.
fn moving(pushes: &[Push]) -> BTreeMap<String, Option<Vec<Digest>>> {
    let mut possible: BTreeMap<String, Option<Vec<Digest>>> = BTreeMap::new();
    for push in pushes.iter().filter(|push| push.tag == MOVING) {
        let (digest, known) =
            (Digest::sha256(&push.image.manifest), possible.entry(push.repository.clone()).or_default());
        match known {
            _ if push.acknowledged => *known = Some(vec![digest]),
            Some(known) => known.push(digest),
            None => {}
        }
    }
    possible
}
