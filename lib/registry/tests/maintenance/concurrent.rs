//! Pushes and collections at the same time: what was acknowledged is whole, at every moment and at the end.
//!
//! The grace period is off here, so that everything is old at once and the barrier alone has to hold. A push may then
//! be told that a layer is missing, and pushes again, as a client would. It is never told a lie.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::json;
use shoal_core::Digest;
use shoal_driver::{FilesystemDriver, MemoryDriver};
use shoal_registry::maintenance::GarbagePolicy;

use crate::rig::{Image, MANIFEST, Rig, digest_of, image, index};

const PUSHERS: usize = 4;
const IMAGES: usize = 9;
/// So many images stay tagged at a time.
const KEPT: usize = 3;
/// What has to be collected during the race.
const ENOUGH: u64 = 20;
const MAX_IMAGES: usize = 20_000;

/// Everything is old at once.
const MERCILESS: GarbagePolicy =
    GarbagePolicy { min_age: Duration::ZERO, delete_untagged: true, dry_run: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_push_is_lost_in_memory() {
    race(Rig::on(Arc::new(MemoryDriver::new()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_push_is_lost_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    race(Rig::on(Arc::new(FilesystemDriver::new(directory.path())))).await;
}

async fn race(rig: Rig) {
    let (rig, deleted) = (Arc::new(rig), Arc::new(AtomicU64::new(0)));
    let collector = tokio::spawn(collect_forever(rig.clone(), deleted.clone()));
    let pushers: Vec<_> =
        (0..PUSHERS).map(|pusher| tokio::spawn(push_many(rig.clone(), deleted.clone(), pusher))).collect();
    for pusher in pushers {
        pusher.await.unwrap();
    }
    assert!(!collector.is_finished(), "a collection failed");
    collector.abort();
}

async fn collect_forever(rig: Arc<Rig>, deleted: Arc<AtomicU64>) {
    loop {
        let now = SystemTime::now() + Duration::from_secs(1);
        let report = rig.maintenance().collect_garbage(now, &MERCILESS).await.unwrap();
        deleted.fetch_add(report.deleted(), Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Pushes images one after the other, into repositories and with layers that other pushers use as well, until enough
/// was collected meanwhile. Every other one is tagged by an index only.
async fn push_many(rig: Arc<Rig>, deleted: Arc<AtomicU64>, pusher: usize) {
    let repository = format!("app-{}", pusher % 2);
    let mut acknowledged = VecDeque::new();
    for number in 0..MAX_IMAGES {
        if number >= IMAGES && deleted.load(Ordering::Relaxed) >= ENOUGH {
            return;
        }
        let tag = format!("v{pusher}-{number}");
        let name = format!("{}", number % 5 + pusher / 2 * 3);
        let pushed = push_until_taken(&rig, &repository, &tag, &name, number % 2 == 0).await;
        let signature = sign_until_taken(&rig, &repository, &pushed).await;
        acknowledged.push_back((tag, pushed, signature));
        for (tag, image, signature) in &acknowledged {
            assert!(rig.has_image(&repository, image).await, "{repository}:{tag} is not whole");
            let attached = rig.referrers(&repository, image.digest).await;
            assert!(attached.contains(signature), "{repository}:{tag} lost its signature: {attached:?}");
            assert!(rig.has_blob(*signature).await, "{repository}:{tag} has a list that names nothing");
        }
        if acknowledged.len() > KEPT {
            // What follows pushes layers again that nothing names any more.
            let (tag, ..) = acknowledged.pop_front().unwrap();
            rig.untag(&repository, &tag).await;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing was collected while {MAX_IMAGES} images were pushed: the race was not run");
}

async fn push_until_taken(rig: &Rig, repository: &str, tag: &str, name: &str, by_index: bool) -> Image {
    for _ in 0..MAX_TRIES {
        let config = rig.put_blob(repository, format!("config of {name}").as_bytes()).await;
        let layer = rig.put_blob(repository, format!("layer of {name}").as_bytes()).await;
        let document = image(config, layer);
        let digest = digest_of(&document);
        let taken = rig.put_manifest(repository, (!by_index).then_some(tag), &document).await;
        let taken = match taken {
            StatusCode::CREATED if by_index => {
                rig.put_manifest(repository, Some(tag), &index(&[digest])).await
            }
            other => other,
        };
        match taken {
            StatusCode::CREATED => return Image { digest, config, layer },
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {}
            other => panic!("{other}"),
        }
    }
    panic!("{repository}:{tag} is refused again and again");
}

/// Attaches the one signature that an image has here: whoever pushes the image again pushes the same list again.
async fn sign_until_taken(rig: &Rig, repository: &str, to: &Image) -> Digest {
    for _ in 0..MAX_TRIES {
        let config = rig.put_blob(repository, b"how it was signed").await;
        let mut document = image(config, to.config);
        document["subject"] = json!({"mediaType": MANIFEST, "digest": to.digest, "size": 1});
        match rig.put_manifest(repository, None, &document).await {
            StatusCode::CREATED => return digest_of(&document),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {}
            other => panic!("{other}"),
        }
    }
    panic!("{repository}: a signature is refused again and again");
}

/// How often one image may come in the way of a collection.
const MAX_TRIES: usize = 1_000;
