//! What is damaged is found and named, and nothing is changed.

use std::num::NonZeroU64;
use std::time::Duration;

use shoal_core::{Digest, Tag};
use shoal_driver::RegistryPath;
use shoal_registry::maintenance::ScrubReport;
use tokio::time::Instant;

use crate::rig::{Rig, name};

async fn scrub(rig: &Rig) -> ScrubReport {
    rig.maintenance().scrub(NonZeroU64::new(1 << 40).unwrap()).await.unwrap()
}

#[tokio::test]
async fn sound_registry_has_nothing_to_report() {
    let rig = Rig::new();
    rig.push_image("app", Some("v1"), "one").await;
    let report = scrub(&rig).await;
    assert_eq!((report.blobs, report.links), (3, 4));
    assert_eq!((report.corrupt, report.dangling), (0, 0));
}

#[tokio::test]
async fn corrupt_blob_is_named_and_kept() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    rig.put(RegistryPath::BlobData(image.layer), "layer of 0ne").await;
    let before = rig.files().await;
    let report = scrub(&rig).await;
    assert_eq!((report.corrupt, report.corrupt_blobs), (1, vec![image.layer]));
    assert_eq!(rig.files().await, before);
}

#[tokio::test]
async fn links_to_nothing_are_named() {
    let rig = Rig::new();
    let image = rig.push_image("app", Some("v1"), "one").await;
    rig.delete(RegistryPath::Blob(image.digest)).await;
    rig.delete(RegistryPath::Blob(image.layer)).await;
    let damaged = RegistryPath::TagCurrentLink(name("app"), Tag::parse("v2").unwrap());
    rig.put(damaged.clone(), "nonsense").await;
    let report = scrub(&rig).await;
    let tag = RegistryPath::TagCurrentLink(name("app"), Tag::parse("v1").unwrap());
    let mut expected = vec![
        RegistryPath::LayerLink(name("app"), image.layer).to_string(),
        RegistryPath::RevisionLink(name("app"), image.digest).to_string(),
        tag.to_string(),
        damaged.to_string(),
    ];
    expected.sort();
    let mut found = report.dangling_links;
    found.sort();
    assert_eq!((report.dangling, found), (4, expected));
}

#[tokio::test(start_paused = true)]
async fn reading_keeps_to_its_rate() {
    let rig = Rig::new();
    for number in 0..10u8 {
        let content = vec![number; 64 * 1024];
        rig.put(RegistryPath::BlobData(Digest::sha256(&content)), content).await;
    }
    let start = Instant::now();
    let report = rig.maintenance().scrub(NonZeroU64::new(64 * 1024).unwrap()).await.unwrap();
    assert_eq!((report.blobs, report.bytes), (10, 640 * 1024));
    let elapsed = start.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(11)).contains(&elapsed), "{elapsed:?}");
}
