//! Deleted tags, each forgotten once every origin knows that it was deleted. While one is away they stay: a small file a tag,
//! no more than the tag was.

use std::time::Duration;

use futures_util::future::join_all;
use shoal_control::cluster::message::{TagBallot, TagName, TagVersion};
use shoal_core::{Digest, Places};
use shoal_driver::TransferError;
use tokio::sync::mpsc;

use super::Cluster;
use crate::register::Register;
use crate::time::microseconds;

impl Cluster {
    /// Looks through the tags of this origin for deleted ones that are its to have forgotten.
    pub(super) async fn forget_deleted_tags(&self) {
        let (sender, mut deleted) = mpsc::channel(TAGS_AHEAD);
        let sending = self.records.clone().send_deleted_tags(sender);
        let forgetting = async {
            while let Some((name, register)) = deleted.recv().await {
                if let Err(error) = self.forget_if_due(name, &register).await {
                    tracing::warn!(%error, "cannot forget a deleted tag");
                }
            }
        };
        if let (Err(error), ()) = tokio::join!(sending, forgetting) {
            tracing::error!(%error, "cannot look for deleted tags");
        }
    }

    async fn forget_if_due(&self, name: TagName, register: &Register) -> Result<(), TransferError> {
        let ballot = last_ballot(register);
        if !is_due(ballot, microseconds()) {
            return Ok(());
        }
        let ballot = TagBallot { name, ballot };
        if register.vote.is_none() {
            // A ballot that came to nothing: what it promised goes into the floor.
            return self.records.forget_tag(&ballot).await.map(drop);
        }
        if self.is_mine(&ballot.name) && self.is_deleted_everywhere(&ballot, register).await {
            let places: Vec<_> = self.others().iter().collect();
            let told = places.into_iter().map(|place| {
                let ballot = &ballot;
                async move { self.noted(place, self.client.forget_tag(place, ballot).await) }
            });
            join_all(told).await;
            if self.records.forget_tag(&ballot).await? {
                self.metrics.tags_forgotten.inc();
            }
        }
        Ok(())
    }

    /// One origin a tag, so that not all ask all.
    fn is_mine(&self, TagName { repository, tag }: &TagName) -> bool {
        let name = Digest::sha256(format!("{repository}:{tag}").as_bytes());
        self.rendezvous.order(&name).first() == Some(&self.own)
    }

    async fn is_deleted_everywhere(&self, ballot: &TagBallot, register: &Register) -> bool {
        let others = self.others();
        if others.union(Places::NONE.with(self.own)).count() < self.rendezvous.len() {
            return false;
        }
        let asked = others.iter().map(|place| async move {
            let vote = self.noted(place, self.client.tag(place, &ballot.name).await);
            vote.is_ok_and(|vote| vote == register.vote)
        });
        join_all(asked).await.into_iter().all(|same| same)
    }
}

fn last_ballot(register: &Register) -> TagVersion {
    register.vote.as_ref().map_or(register.promised, |vote| vote.ballot)
}

/// Whether nobody can still be at it: a change takes seconds.
fn is_due(ballot: TagVersion, now: u64) -> bool {
    let age = now.saturating_sub(ballot.stamp);
    Duration::from_micros(age) >= FORGET_AFTER
}

/// How long a deleted tag stays at least. 10 minutes: far longer than a change of it may be on its way.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// How many are read from the disk before they are taken.
const TAGS_AHEAD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_a_moment_ago_or_by_a_clock_that_is_ahead_stays() {
        let ballot = TagVersion { stamp: 1_000_000_000_000, by: None };
        assert!(!is_due(ballot, ballot.stamp));
        assert!(!is_due(ballot, ballot.stamp - 5));
        assert!(!is_due(ballot, ballot.stamp + 599_999_999));
        assert!(is_due(ballot, ballot.stamp + 600_000_000));
    }
}
