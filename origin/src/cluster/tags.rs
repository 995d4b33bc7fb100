//! What a tag names, as all origins of a cluster decide it: each change and each uncertain answer is a ballot of theirs.
//!
//! Any origin may hold a ballot; a majority of all that are configured, away or not, has to take part. So there is no owner
//! that could be away or be one too many, and no clock that has to be right. `ballots` says what the answers mean, `register`
//! how an origin answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use shoal_control::cluster::message::{
    TagAcceptance, TagBallot, TagName, TagPromise, TagRecord, TagVersion, TagVote,
};
use shoal_control::{ClusterClient, ControlError};
use shoal_core::Digest;
use shoal_driver::{Freshness, ResolvedTag, TransferError};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Cluster;
use super::ballots::{self, Change, Outcome, Poll, Step, majority, step};
use super::rounds::{Rounds, Turns};
use crate::time::microseconds;

/// What the questions and the ballots of one origin share.
pub(super) struct Ballots {
    reads: Rounds<Reading>,
    writes: Turns<()>,
    stragglers: Arc<Semaphore>,
}

/// What a tag names, for everybody who asked.
#[derive(Clone)]
enum Reading {
    Names(ResolvedTag),
    Nothing,
    Unknown(String),
}

/// The origins that have not answered yet; each answers once, or not.
type Answers<T> = FuturesUnordered<BoxFuture<'static, Option<T>>>;

/// How a round of a ballot ended.
enum Round<T> {
    /// A majority agreed.
    Carried(Vec<T>),
    /// It did not, and some have promised this ballot.
    Lost(Option<TagVersion>),
}

impl Ballots {
    pub(super) fn new() -> Self {
        let stragglers = Arc::new(Semaphore::new(MAX_STRAGGLERS));
        Self { reads: Rounds::new(), writes: Turns::new(), stragglers }
    }
}

impl Cluster {
    /// What the tag names. Where too few origins answer to be sure, the newest that those know, which is marked.
    pub(super) async fn read_tag(self: &Arc<Self>, name: &TagName) -> Result<ResolvedTag, TransferError> {
        match self.ballots.reads.ask(name, self.read_once(name)).await {
            Reading::Names(resolved) => Ok(resolved),
            Reading::Nothing => Err(TransferError::NotFound),
            Reading::Unknown(reason) => Err(TransferError::Unavailable(reason)),
        }
    }

    async fn read_once(self: &Arc<Self>, name: &TagName) -> Reading {
        let poll = self.poll(name).await;
        let certain = match poll.agreed() {
            Some(vote) => Ok(vote.as_ref().and_then(|vote| vote.value.digest)),
            None if poll.is_majority() => self.settle(name).await,
            None => Err(self.too_few(poll.count())),
        };
        match certain {
            Ok(Some(digest)) => Reading::Names(ResolvedTag::current(digest)),
            Ok(None) => Reading::Nothing,
            Err(error) => match poll.newest().and_then(|vote| vote.value.digest) {
                Some(digest) => {
                    self.metrics.unconfirmed_tags.inc();
                    Reading::Names(ResolvedTag { digest, freshness: Freshness::Unconfirmed })
                }
                None => Reading::Unknown(error.to_string()),
            },
        }
    }

    /// Has what the tag names chosen, whatever of the votes for it that may be.
    async fn settle(self: &Arc<Self>, name: &TagName) -> Result<Option<Digest>, TransferError> {
        match self.decide(name, &Change::Keep).await? {
            Outcome::Kept(digest) => Ok(digest),
            Outcome::Written | Outcome::Moved(_) => Err(contended()),
        }
    }

    /// Changes a tag, and returns once a majority of the origins has that durably.
    pub(super) async fn change_tag(
        self: &Arc<Self>,
        name: &TagName,
        change: &Change,
    ) -> Result<(), TransferError> {
        let poll = self.poll(name).await;
        if !poll.is_majority() {
            return Err(self.too_few(poll.count()));
        }
        // What is as it should be costs no ballot.
        let known = poll.agreed().map(|vote| vote.as_ref().and_then(|vote| vote.value.digest));
        let outcome = match (change, known) {
            (Change::Write { expected, .. }, Some(current)) if !expected.allows(current.as_ref()) => {
                Outcome::Moved(current)
            }
            (Change::Write { digest, .. }, Some(current)) if *digest == current => Outcome::Written,
            _ => self.decide(name, change).await?,
        };
        match outcome {
            Outcome::Moved(current) => Err(TransferError::TagMoved { current: current.into() }),
            Outcome::Written | Outcome::Kept(_) => Ok(()),
        }
    }

    /// Holds ballots until one decides.
    async fn decide(self: &Arc<Self>, name: &TagName, change: &Change) -> Result<Outcome, TransferError> {
        self.metrics.tag_ballots.inc();
        let mut attempts = Vec::new();
        let decided = timeout(DECISION_TIMEOUT, async {
            let _turn = self.ballots.writes.turn(name).await;
            self.hold_ballots(name, change, &mut attempts).await
        });
        match decided.await {
            Ok(Ok(outcome)) => Ok(outcome),
            // It was put to the vote, and somebody may have voted for it.
            _ if !attempts.is_empty() => Err(TransferError::Unavailable(format!(
                "too few of {} origins were heard to vote: the tag may be moved or not; look, and do it again",
                self.rendezvous.len()
            ))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TransferError::Unavailable("the origins took too long to decide".to_owned())),
        }
    }

    async fn hold_ballots(
        self: &Arc<Self>,
        name: &TagName,
        change: &Change,
        attempts: &mut Vec<TagVersion>,
    ) -> Result<Outcome, TransferError> {
        let mut beyond = TagVersion::default();
        for attempt in 0..MAX_BALLOTS {
            if attempt > 0 {
                sleep(pause(attempt, rand::random())).await;
            }
            let (ballot, own) = self.open_ballot(name, beyond).await?;
            let votes = match self.promises(&ballot, own).await? {
                Round::Carried(votes) => votes,
                Round::Lost(promised) => {
                    beyond = beyond.max(promised.unwrap_or_default());
                    continue;
                }
            };
            let (value, outcome) = match step(ballots::newest(&votes), ballot.ballot, attempts, change) {
                Step::Vote { value, outcome } => (value, outcome),
                Step::End(outcome) => return Ok(outcome),
                Step::Lost => return Err(contended()),
            };
            if value.version == ballot.ballot {
                attempts.push(ballot.ballot);
            }
            let vote = TagVote { ballot: ballot.ballot, value };
            match self.put_to_the_vote(TagRecord { name: name.clone(), vote }).await? {
                Round::Carried(_) => return Ok(outcome),
                Round::Lost(promised) => beyond = beyond.max(promised.unwrap_or_default()),
            }
        }
        Err(contended())
    }

    /// A ballot that is greater than every one that this origin has heard of, and that is promised here, durably: no other
    /// is ever called that. With it comes what this origin has voted for.
    async fn open_ballot(
        &self,
        name: &TagName,
        beyond: TagVersion,
    ) -> Result<(TagBallot, Option<TagVote>), TransferError> {
        let by = Some(self.source.borrow().id);
        let mut stamp = microseconds().max(beyond.stamp.saturating_add(1));
        loop {
            let ballot = TagBallot { name: name.clone(), ballot: TagVersion { stamp, by } };
            match self.records.promise(&ballot).await? {
                TagPromise::Promised(vote) => return Ok((ballot, vote)),
                TagPromise::Refused(promised) if promised.stamp == u64::MAX => return Err(contended()),
                TagPromise::Refused(promised) => stamp = promised.stamp.saturating_add(1),
            }
        }
    }

    /// Asks everybody to promise a ballot that this origin has promised.
    async fn promises(
        self: &Arc<Self>,
        ballot: &TagBallot,
        own: Option<TagVote>,
    ) -> Result<Round<Option<TagVote>>, TransferError> {
        let answers = self.ask_each(|client, place| {
            let asked = ballot.clone();
            async move { client.promise_tag(place, &asked).await }
        });
        self.round(answers, vec![own], |promise| match promise {
            TagPromise::Promised(vote) => Ok(vote),
            TagPromise::Refused(promised) => Err(promised),
        })
        .await
    }

    async fn put_to_the_vote(self: &Arc<Self>, record: TagRecord) -> Result<Round<()>, TransferError> {
        let answers = self.ask_each(|client, place| {
            let asked = record.clone();
            async move { client.accept_tag(place, &asked).await }
        });
        let own = self.records.clone();
        answers.push(Box::pin(async move {
            let accepted = own.accept(&record).await;
            accepted.inspect_err(|error| tracing::error!(%error, "cannot keep a vote on a tag")).ok()
        }));
        self.round(answers, Vec::new(), |acceptance| match acceptance {
            TagAcceptance::Accepted => Ok(()),
            TagAcceptance::Refused(promised) => Err(promised),
        })
        .await
    }

    /// Waits until a majority agreed, or cannot any more. Those that are slow are heard out all the same, so that they miss
    /// nothing.
    async fn round<A: Send + 'static, T>(
        &self,
        mut answers: Answers<A>,
        mut agreed: Vec<T>,
        read: impl Fn(A) -> Result<T, TagVersion>,
    ) -> Result<Round<T>, TransferError> {
        let (majority, mut promised, mut heard) = (majority(self.rendezvous.len()), None, agreed.len());
        while agreed.len() < majority && agreed.len() + answers.len() >= majority {
            let Some(answer) = answers.next().await else { break };
            heard += usize::from(answer.is_some());
            match answer.map(&read) {
                Some(Ok(answer)) => agreed.push(answer),
                Some(Err(other)) => promised = promised.max(Some(other)),
                None => {}
            }
        }
        if let Ok(permit) = self.ballots.stragglers.clone().try_acquire_owned()
            && !answers.is_empty()
        {
            self.tasks.spawn(async move {
                answers.for_each(async |_| {}).await;
                drop(permit);
            });
        }
        match (agreed.len() >= majority, promised) {
            (true, _) => Ok(Round::Carried(agreed)),
            (false, None) => Err(self.too_few(heard)),
            (false, promised) => Ok(Round::Lost(promised)),
        }
    }

    /// Asks everybody for their votes, until most agree or all have answered; not long for the rest where most have, and
    /// differ.
    async fn poll(self: &Arc<Self>, name: &TagName) -> Poll {
        let mut answers = self.ask_each(|client, place| {
            let asked = name.clone();
            async move { client.tag(place, &asked).await }
        });
        let (own, asked) = (self.records.clone(), name.clone());
        answers.push(Box::pin(async move {
            let vote = own.vote(&asked).await;
            vote.inspect_err(|error| tracing::error!(%error, "cannot read a vote on a tag")).ok()
        }));
        let mut poll = Poll::of(self.rendezvous.len());
        while poll.agreed().is_none() {
            let patience = if poll.is_majority() { CLOSE_VOTE } else { DECISION_TIMEOUT };
            match timeout(patience, answers.next()).await {
                Ok(Some(Some(vote))) => poll.add(vote),
                Ok(Some(None)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        poll
    }

    /// Puts a question to everybody else who is well. Nothing is asked before the answers are waited for.
    fn ask_each<T, F>(self: &Arc<Self>, ask: impl Fn(ClusterClient, usize) -> F) -> Answers<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ControlError>> + Send + 'static,
    {
        let asked = self.others().iter().map(|place| {
            let (cluster, answer) = (self.clone(), ask(self.client.clone(), place));
            let answer: BoxFuture<'static, Option<T>> =
                Box::pin(async move { cluster.noted(place, answer.await).ok() });
            answer
        });
        asked.collect()
    }

    fn too_few(&self, heard: usize) -> TransferError {
        let all = self.rendezvous.len();
        let majority = majority(all);
        TransferError::Unavailable(format!("{heard} of {all} origins answer, and {majority} decide on a tag"))
    }
}

fn contended() -> TransferError {
    TransferError::Unavailable("others write this tag at the same time: try again".to_owned())
}

/// How long to wait before the next ballot: longer each time, and by chance, so that of two who outbid each other one is first.
fn pause(attempt: u32, random: u32) -> Duration {
    let most = FIRST_PAUSE * (1 << attempt.min(5));
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// How often a change is put to the vote: origins that write one tag at the same time take turns within a few.
const MAX_BALLOTS: u32 = 12;
/// How long a change may take in all. A push waits for it.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest is waited for where a majority differs: about a round trip more, far less than a ballot with its syncs
/// costs on a disk.
const CLOSE_VOTE: Duration = Duration::from_millis(20);
/// About as long as a ballot takes.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Rounds that slow origins may still answer when nobody waits any more. Each ends within `request_timeout`.
const MAX_STRAGGLERS: usize = 1024;
