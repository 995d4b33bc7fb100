//! Scrub: reads every blob, hashes it, and looks whether every link leads to one. It reports and changes nothing:
//! whether a damaged blob is removed, or brought back from elsewhere, is for somebody who knows where it may be.
//!
//! Reading is slowed to a rate, part by part. Long hashing runs on the blocking threads.

use std::num::NonZeroU64;
use std::time::Duration;

use futures_util::TryStreamExt;
use shoal_core::{Digest, Digester, RepositoryName};
use shoal_driver::{RegistryPath, StorageDriver};
use tokio::time::{Instant, sleep_until};

use super::MaintenanceError;
use super::tree::Tree;
use crate::storage::hashing::absorb;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Blobs read.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Links followed.
    pub links: u64,
    /// Blobs whose bytes have another digest, or cannot be read to their end.
    pub corrupt: u64,
    /// Links that hold no digest, or lead to no blob.
    pub dangling: u64,
    /// Those of them by name, at most a thousand of each kind: digests, and paths of links.
    pub corrupt_blobs: Vec<Digest>,
    /// See `corrupt_blobs`.
    pub dangling_links: Vec<String>,
}

/// Lets so many bytes a second pass.
struct Pace {
    bytes_per_second: NonZeroU64,
    next: Instant,
}

/// What reading a blob showed.
enum Verdict {
    Sound,
    Corrupt,
    /// Deleted meanwhile.
    Gone,
}

pub(super) async fn scrub(
    driver: &dyn StorageDriver,
    bytes_per_second: NonZeroU64,
) -> Result<ScrubReport, MaintenanceError> {
    let tree = Tree::new(driver);
    let mut report = ScrubReport::default();
    scrub_blobs(tree, Pace { bytes_per_second, next: Instant::now() }, &mut report).await?;
    let mut repositories = tree.repositories();
    while let Some(name) = repositories.next().await? {
        scrub_links(tree, &name, &mut report).await?;
    }
    Ok(report)
}

async fn scrub_blobs(
    tree: Tree<'_>,
    mut pace: Pace,
    report: &mut ScrubReport,
) -> Result<(), MaintenanceError> {
    let mut blobs = tree.blobs();
    while let Some(digest) = blobs.next().await? {
        match scrub_blob(tree, &digest, &mut pace, report).await? {
            Verdict::Gone => continue,
            Verdict::Sound => {}
            Verdict::Corrupt => {
                report.corrupt += 1;
                tracing::error!(%digest, "blob is corrupt");
                if report.corrupt_blobs.len() < MAX_NAMED {
                    report.corrupt_blobs.push(digest);
                }
            }
        }
        report.blobs += 1;
    }
    Ok(())
}

async fn scrub_blob(
    tree: Tree<'_>,
    digest: &Digest,
    pace: &mut Pace,
    report: &mut ScrubReport,
) -> Result<Verdict, MaintenanceError> {
    let Some(mut content) = tree.read(&RegistryPath::BlobData(*digest)).await? else {
        return Ok(Verdict::Gone);
    };
    let mut digester = Digester::new(digest.algorithm());
    loop {
        let part = match content.try_next().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%digest, %error, "blob cannot be read");
                return Ok(Verdict::Corrupt);
            }
        };
        report.bytes += part.len() as u64;
        pace.pass(part.len() as u64).await;
        digester = absorb(digester, part).await;
    }
    Ok(if digester.finish() == *digest { Verdict::Sound } else { Verdict::Corrupt })
}

async fn scrub_links(
    tree: Tree<'_>,
    name: &RepositoryName,
    report: &mut ScrubReport,
) -> Result<(), MaintenanceError> {
    for digest in tree.layers(name).await? {
        scrub_link(tree, &RegistryPath::LayerLink(name.clone(), digest), report).await?;
    }
    for digest in tree.revisions(name).await? {
        scrub_link(tree, &RegistryPath::RevisionLink(name.clone(), digest), report).await?;
    }
    for tag in tree.tags(name).await? {
        scrub_link(tree, &RegistryPath::TagCurrentLink(name.clone(), tag), report).await?;
    }
    Ok(())
}

async fn scrub_link(
    tree: Tree<'_>,
    link: &RegistryPath,
    report: &mut ScrubReport,
) -> Result<(), MaintenanceError> {
    // A folder that a deleted link left behind.
    let Some(content) = tree.content(link).await? else { return Ok(()) };
    report.links += 1;
    let digest = std::str::from_utf8(&content).ok().and_then(|text| Digest::parse(text.trim()).ok());
    let leads_to_a_blob = match digest {
        Some(digest) => tree.stat(&RegistryPath::BlobData(digest)).await?.is_some(),
        None => false,
    };
    // The link and its blob may both have been deleted in between.
    if !leads_to_a_blob && tree.stat(link).await?.is_some() {
        report.dangling += 1;
        tracing::error!(%link, "link leads to no blob");
        if report.dangling_links.len() < MAX_NAMED {
            report.dangling_links.push(link.to_string());
        }
    }
    Ok(())
}

impl Pace {
    /// Waits until the bytes that passed before have had their time. A pause is not made up for.
    async fn pass(&mut self, bytes: u64) {
        sleep_until(self.next).await;
        let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        self.next = self.next.max(Instant::now()) + time;
    }
}

/// How many finds of one kind a report names; the rest is counted, and every one is in the log.
const MAX_NAMED: usize = 1_000;
