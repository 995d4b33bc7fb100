//! Looks at all tags of this origin, now and then, whether the target has them: for what never came to the queue, or was lost with
//! a disk.
//!
//! It only asks, and queues what is missing. In a cluster each origin has all tags and so each does it; the second finds nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_control::cluster::message::{MetadataRecord, TagName, TagRecord};
use shoal_core::{Digest, Reference, causes};
use shoal_upstream::Registry;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::config::Moved;
use super::worker::JobError;
use super::{Job, Rule, What};

/// What a comparison found.
#[derive(Debug, Default)]
struct Found {
    same: AtomicU64,
    missing: AtomicU64,
    moved: AtomicU64,
}

/// How a tag is there, beside what it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Same,
    Missing,
    Moved,
}

/// Until it is to stop.
pub(super) async fn run(rule: Arc<Rule>, stop: CancellationToken) {
    loop {
        // Origins that started together do not ask together.
        let pause = rule.config.reconcile.mul_f64(rand::random_range(0.75..=1.0)).max(SHORTEST);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            compared = rule.clone().compare_all() => if let Err(error) = compared {
                tracing::warn!(rule = rule.config.name, error = causes(&error), "tags are not all compared with the target's");
            }
        }
    }
}

impl Rule {
    async fn compare_all(self: Arc<Self>) -> Result<(), JobError> {
        let (sender, mut receiver) = mpsc::channel(RECORDS_AHEAD);
        let found = Arc::new(Found::default());
        let reading = AbortOnDropHandle::new(tokio::spawn(self.images.records.clone().send_all(sender)));
        let mut questions = JoinSet::new();
        while let Some(record) = receiver.recv().await {
            let Some((name, digest)) = self.tag_of(record) else { continue };
            if questions.len() >= QUESTIONS_AT_ONCE {
                answered(questions.join_next().await)?;
            }
            questions.spawn(self.clone().compare(name, digest, found.clone()));
        }
        while !questions.is_empty() {
            answered(questions.join_next().await)?;
        }
        // It has ended, for nothing came any more.
        if let Ok(read) = reading.await {
            read?;
        }
        self.show(&found);
        Ok(())
    }

    /// A tag that is to be there.
    fn tag_of(&self, record: MetadataRecord) -> Option<(TagName, Digest)> {
        let MetadataRecord::Tag(TagRecord { name, vote }) = record else { return None };
        let digest = vote.value.digest?;
        let job = Job { repository: name.repository.clone(), what: What::Tag(name.tag.clone()), hops: 0 };
        self.takes(&job).then_some((name, digest))
    }

    async fn compare(
        self: Arc<Self>,
        name: TagName,
        digest: Digest,
        found: Arc<Found>,
    ) -> Result<(), JobError> {
        let Some(there) = self.config.rename(&name.repository) else { return Ok(()) };
        let registry = self.registry(0, &there, 0).await?;
        let state = state_of(&registry, &Reference::Tag(name.tag.clone()), &there, &digest).await?;
        let (count, is_due) = match state {
            State::Same => (&found.same, false),
            State::Missing => (&found.missing, true),
            State::Moved => (&found.moved, self.config.reconcile_moved == Moved::Overwrite),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if is_due {
            self.add(Job { repository: name.repository, what: What::Tag(name.tag), hops: 0 }).await;
        }
        Ok(())
    }

    fn show(&self, found: &Found) {
        let rule = &self.config.name;
        let [same, missing, moved] =
            [&found.same, &found.missing, &found.moved].map(|count| count.load(Ordering::Relaxed));
        for (state, count) in [("same", same), ("missing", missing), ("moved", moved)] {
            self.metrics.compared(rule, state, count);
        }
        if moved > 0 && self.config.reconcile_moved == Moved::Report {
            tracing::warn!(
                rule,
                moved,
                "tags name something else at the target, and are left so: push them again where they are right"
            );
        }
        tracing::info!(rule, same, missing, moved, "tags compared with the target's");
    }
}

/// A question that panicked is one that found nothing; the log has it.
fn answered(question: Option<Result<Result<(), JobError>, JoinError>>) -> Result<(), JobError> {
    match question {
        Some(Ok(answer)) => answer,
        Some(Err(_)) | None => Ok(()),
    }
}

async fn state_of(
    registry: &Registry,
    tag: &Reference,
    there: &shoal_core::RepositoryName,
    digest: &Digest,
) -> Result<State, JobError> {
    Ok(match registry.find_manifest(there, tag).await? {
        None => State::Missing,
        Some(found) if found.claimed.is_none_or(|claimed| claimed == *digest) => State::Same,
        Some(_) => State::Moved,
    })
}

/// How many records are read before they are compared.
const RECORDS_AHEAD: usize = 64;
/// Over a path of 50 ms 100,000 tags take ten minutes.
const QUESTIONS_AT_ONCE: usize = 8;
/// A comparison asks for every tag.
const SHORTEST: Duration = Duration::from_secs(1);
