//! Links as all origins of a cluster have them: each put and each deletion is acknowledged once most origins have it durably.
//!
//! `link_state` says why no order of messages matters. What a push relies on is looked up at most origins, and put anew where its
//! last put is old: so whoever collects garbage later sees that it is in use, or comes too late to remove it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_control::ControlError;
use shoal_control::cluster::message::{
    LinkAnswer, LinkDeletion, LinkName, LinkRecord, LinkState, LinkVersion,
};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Link, TransferError};

use super::Cluster;
use super::ballots::majority;
use crate::link_state::{Change, age, is_unchanged, newest};
use crate::records::{link_of, name_of};
use crate::time::microseconds;

/// What most origins know of a link.
struct Known {
    newest: Option<LinkState>,
    /// Whether most know just that.
    is_agreed: bool,
}

/// What came of a change that every origin was asked for.
#[derive(Default)]
struct Tally {
    done: usize,
    holders: usize,
    refused: Option<LinkVersion>,
}

impl Cluster {
    /// What a link names that this origin's files do not have.
    pub(super) async fn find_link(&self, link: &Link) -> Result<Digest, TransferError> {
        let name = name_of(link);
        let states = self.link_states(&name).await?;
        let asked = states.len();
        match newest(&states).and_then(|state| state.target) {
            Some(target) => Ok(target),
            None if asked >= majority(self.rendezvous.len()) => Err(TransferError::NotFound),
            None => Err(self.not_found(asked)),
        }
    }

    /// Puts a link, after everything that most origins know of it.
    pub(super) async fn put_link(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        self.require_writable()?;
        let tally = self.put_link_at_most(link, target).await?;
        self.require_holder(&tally, (&link.repository, target)).await
    }

    /// Puts a link to what no origin need hold, since it comes from behind the cluster. Where too few are well it is at
    /// some, and is found there.
    pub(crate) async fn put_link_to_source(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        match self.put_link_at_most(link, target).await {
            Ok(_) | Err(TransferError::Unavailable(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn put_link_at_most(&self, link: &Link, target: &Digest) -> Result<Tally, TransferError> {
        let name = name_of(link);
        let by = Some(self.source.borrow().id);
        let mut stamp = microseconds();
        for _ in 0..MAX_ATTEMPTS {
            let version = LinkVersion { stamp, by };
            let record = LinkRecord { name: name.clone(), target: *target, version };
            let answers = self.ask_others(|client, place| {
                let asked = record.clone();
                async move { client.put_link(place, &asked).await }
            });
            let tally = Tally::of(answers.await).add(self.put_own_link(&record).await?);
            match tally.refused {
                _ if tally.done >= self.acknowledging() => return Ok(tally),
                Some(newer) => stamp = microseconds().max(newer.stamp.saturating_add(1)),
                None => return Err(self.too_few_changed("a link", tally.done)),
            }
        }
        Err(TransferError::Unavailable(format!(
            "others change the link to {target} at the same time: try again"
        )))
    }

    /// This origin's part in it, which is that of any other.
    pub(super) async fn put_own_link(&self, record: &LinkRecord) -> Result<LinkAnswer, TransferError> {
        // First: what is touched now is not taken for garbage before the link is seen.
        let holds = self.touch(&record.target).await?;
        Ok(crate::records::links::answer(self.records.put_link(record, microseconds()).await?, holds))
    }

    /// Deletes a link; says whether there was one.
    pub(super) async fn delete_link(&self, link: &Link) -> Result<bool, TransferError> {
        Ok(self.delete_link_if(link, |_| true).await? == Some(true))
    }

    /// Deletes a link that nobody has put or secured since; says whether it did.
    pub(super) async fn expire_link(&self, link: &Link, since: SystemTime) -> Result<bool, TransferError> {
        Ok(self.delete_link_if(link, |version| is_unchanged(version, since)).await? == Some(true))
    }

    /// `None`: it is not to be deleted. False: there was none.
    async fn delete_link_if(
        &self,
        link: &Link,
        condition: impl Fn(LinkVersion) -> bool,
    ) -> Result<Option<bool>, TransferError> {
        let name = name_of(link);
        for _ in 0..MAX_ATTEMPTS {
            let known = self.known_link(&name).await?;
            let Some(LinkState { target, version }) = known.newest else { return Ok(Some(false)) };
            if target.is_none() && known.is_agreed {
                return Ok(Some(false));
            }
            if !condition(version) {
                return Ok(None);
            }
            let deletion = LinkDeletion { name: name.clone(), version };
            let answers = self.ask_others(|client, place| {
                let asked = deletion.clone();
                async move { client.delete_link(place, &asked).await }
            });
            let tally = Tally::of(answers.await).add(self.delete_own_link(&deletion).await?);
            match tally.refused {
                _ if tally.done >= majority(self.rendezvous.len()) => return Ok(Some(true)),
                // Somebody has put it meanwhile.
                Some(_) => {}
                None => return Err(self.too_few_changed("a delete", tally.done)),
            }
        }
        Err(TransferError::Unavailable(format!(
            "others put the link to {} at the same time: try again",
            link.digest
        )))
    }

    /// This origin's part in it, which is that of any other.
    pub(super) async fn delete_own_link(&self, deletion: &LinkDeletion) -> Result<LinkAnswer, TransferError> {
        let (change, target) = self.records.delete_link(deletion, microseconds()).await?;
        if change == Change::Write {
            // From now on it is of no use, and not before.
            self.touch(&target.unwrap_or(deletion.name.digest)).await?;
        }
        Ok(crate::records::links::answer(change, false))
    }

    /// See [`shoal_driver::Transferer::secure_link`].
    pub(super) async fn secure_link(&self, link: &Link) -> Result<(), TransferError> {
        let known = self.known_link(&name_of(link)).await?;
        let Some(LinkState { target: Some(target), version }) = known.newest else {
            return Err(TransferError::NotFound);
        };
        if known.is_agreed && age(version, microseconds()) < self.renew_after {
            let record = LinkRecord { name: name_of(link), target, version };
            // It may be news here.
            return self.records.put_link(&record, 0).await.map(drop);
        }
        self.metrics.links_renewed.inc();
        self.put_link(link, &target).await
    }

    async fn known_link(&self, name: &LinkName) -> Result<Known, TransferError> {
        let states = self.link_states(name).await?;
        let majority = majority(self.rendezvous.len());
        if states.len() < majority {
            let (heard, all) = (states.len(), self.rendezvous.len());
            return Err(TransferError::Unavailable(format!(
                "{heard} of {all} origins answer, and {majority} decide on a link"
            )));
        }
        let newest = newest(&states);
        let is_agreed = states.iter().filter(|state| **state == newest).count() >= majority;
        Ok(Known { newest, is_agreed })
    }

    /// What this origin and those that answer know of a link.
    async fn link_states(&self, name: &LinkName) -> Result<Vec<Option<LinkState>>, TransferError> {
        let own = self.records.link_state(&link_of(name)).await?;
        let answers = self.ask_others(|client, place| {
            let asked = name.clone();
            async move { client.link(place, &asked).await }
        });
        Ok(answers.await.into_iter().flatten().chain([own]).collect())
    }

    /// Makes a blob of this store young; says whether it is here.
    pub(super) async fn touch(&self, digest: &Digest) -> Result<bool, TransferError> {
        self.store.touch(digest).await.map_err(|error| TransferError::Failed(Box::new(error)))
    }

    /// How many origins must have a link before it is acknowledged: a majority finds it again, whoever dies.
    fn acknowledging(&self) -> usize {
        self.min_replicas.max(majority(self.rendezvous.len()))
    }

    /// A blob that went away between the look at it and the link is one that nobody needed: it is to be pushed again.
    /// One that no origin has may stand behind them.
    async fn require_holder(
        &self,
        tally: &Tally,
        (repository, target): (&RepositoryName, &Digest),
    ) -> Result<(), TransferError> {
        if tally.holders > 0 || self.refill.stat(Some(repository), target).await.is_ok() {
            return Ok(());
        }
        Err(TransferError::Unavailable(format!(
            "no origin that is well has {target} any more: push it again"
        )))
    }

    fn too_few_changed(&self, what: &str, done: usize) -> TransferError {
        let least = self.acknowledging();
        TransferError::Unavailable(format!(
            "{what} is kept by {least} origins at least, and {done} took it: try again"
        ))
    }

    /// Looks through the deletions of this origin for those that every origin knows, and has them forgotten.
    pub(super) async fn forget_deleted_links(self: &Arc<Self>) {
        let (sender, mut deleted) = tokio::sync::mpsc::channel(DELETIONS_AHEAD);
        let sending = async {
            let sent = self.records.send_deleted_links(&sender).await;
            drop(sender);
            sent
        };
        let forgetting = async {
            while let Some(one) = deleted.recv().await {
                if age(LinkVersion { stamp: one.at, by: None }, microseconds()) < FORGET_AFTER {
                    continue;
                }
                if let Err(error) = self.forget_if_gone(&one.deletion).await {
                    tracing::warn!(%error, "cannot forget a deleted link");
                }
            }
        };
        if let (Err(error), ()) = tokio::join!(sending, forgetting) {
            tracing::error!(%error, "cannot look for deleted links");
        }
    }

    async fn forget_if_gone(&self, deletion: &LinkDeletion) -> Result<(), TransferError> {
        let LinkName { repository, digest, .. } = &deletion.name;
        let name = Digest::sha256(format!("{repository}@{digest}").as_bytes());
        if self.rendezvous.order(&name).first() != Some(&self.own) {
            return Ok(());
        }
        let states = self.link_states(&deletion.name).await?;
        let is_gone = |state: &Option<LinkState>| state.is_none_or(|state| state.target.is_none());
        if states.len() < self.rendezvous.len() || !states.iter().all(is_gone) {
            return Ok(());
        }
        let told = self.ask_others(|client, place| {
            let asked = deletion.clone();
            async move { client.forget_link(place, &asked).await }
        });
        told.await;
        if self.forget_link(deletion).await? {
            self.metrics.links_forgotten.inc();
        }
        Ok(())
    }

    /// Not while a list is on its way here, which may have been begun before the link was deleted.
    pub(super) async fn forget_link(&self, deletion: &LinkDeletion) -> Result<bool, TransferError> {
        if self.lists.available_permits() == 0 {
            return Ok(false);
        }
        self.records.forget_link(deletion).await
    }
}

impl Tally {
    fn of(answers: Vec<Result<LinkAnswer, ControlError>>) -> Self {
        answers.into_iter().flatten().fold(Self::default(), Self::add)
    }

    fn add(mut self, answer: LinkAnswer) -> Self {
        match answer {
            LinkAnswer::Done { holds } => {
                self.done += 1;
                self.holders += usize::from(holds);
            }
            LinkAnswer::Refused(newer) => self.refused = self.refused.max(Some(newer)),
        }
        self
    }
}

/// How often a change is tried that others get ahead of.
const MAX_ATTEMPTS: usize = 5;
/// How long a deletion stays at least. 10 minutes: twice as long as a put may be on its way.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// How many are read from the disk before they are taken.
const DELETIONS_AHEAD: usize = 16;
