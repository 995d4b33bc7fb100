//! What was here before there was a backend is written there too, once.

use std::time::Duration;

use shoal_control::cluster::message::MetadataRecord;
use shoal_driver::TransferError;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::WriteBack;
use super::job::Job;
use crate::backend::Objects;

impl WriteBack {
    /// Has everything written that is here, unless that was done before. Goes on until it is done.
    pub(super) async fn fill(&self) {
        let mark = self.mark("written");
        while let Err(error) = self.try_fill(&mark).await {
            tracing::warn!(%error, "cannot have written to the backends what was here before: trying again");
            sleep(AGAIN).await;
        }
    }

    async fn try_fill(&self, mark: &str) -> Result<(), TransferError> {
        if self.0.records.is_marked(mark).await? {
            return Ok(());
        }
        let (sender, mut records) = mpsc::channel(RECORDS_AHEAD);
        let walk = self.0.records.clone().send_all(sender);
        let add = async {
            while let Some(record) = records.recv().await {
                let job = match record {
                    MetadataRecord::Link(record) => Job::Link(record.name),
                    MetadataRecord::Tag(record) => Job::Tag(record.name),
                    // Its deletion was a job of its own.
                    MetadataRecord::Unlinked(_) => continue,
                    MetadataRecord::End => return self.0.records.mark(mark).await,
                };
                if self.is_written(job.repository()) {
                    self.room().await;
                    self.add(job).await?;
                }
            }
            // The walk broke off: it says why.
            Ok(())
        };
        let (walked, added) = tokio::join!(walk, add);
        walked.and(added)
    }

    /// Half of the queue is for pushes.
    async fn room(&self) {
        while self.0.queue.room() <= self.0.config.queue / 2 {
            sleep(PAUSE).await;
        }
    }

    /// The name of a mark: of just these backends.
    pub(super) fn mark(&self, what: &str) -> String {
        let names: Vec<_> = self.0.backends.iter().map(Objects::name).collect();
        let digest = shoal_core::Digest::sha256(names.join("\n").as_bytes()).hex();
        format!("backends-{what}-{}", &digest[..16])
    }
}

/// A disk that fails is no busier for it.
const AGAIN: Duration = Duration::from_secs(30);
/// How long it waits for room in the queue before it looks again.
const PAUSE: Duration = Duration::from_secs(1);
/// How far the walk is ahead.
const RECORDS_AHEAD: usize = 64;
