//! What the answers of origins mean for a tag. Pure: who asks, and how, is `tags`.

use shoal_control::cluster::message::{MAX_TAG_WRITES, TagValue, TagVersion, TagVote};
use shoal_core::Digest;
use shoal_driver::TagExpectation;

use crate::register::written_after;

/// The votes that origins told of.
#[derive(Debug)]
pub(super) struct Poll {
    majority: usize,
    votes: Vec<Option<TagVote>>,
}

/// What is to become of a tag.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Nothing: what it names is to be certain.
    Keep,
    /// It names that, or nothing, if it is as expected.
    Write {
        /// What it names then.
        digest: Option<Digest>,
        /// What it must name before.
        expected: TagExpectation,
    },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was left as it is, and names that.
    Kept(Option<Digest>),
    /// It was written, or was so before.
    Written,
    /// It is not as expected.
    Moved(Option<Digest>),
}

/// How a ballot that a majority has promised goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This value is put to the vote. If it is chosen, that is the outcome.
    Vote {
        /// For what.
        value: TagValue,
        /// What it means.
        outcome: Outcome,
    },
    /// Nobody has ever voted: there is nothing to choose.
    End(Outcome),
    /// Too much was written since an earlier attempt to know what became of that.
    Lost,
}

/// How many of so many origins are most of them.
pub(super) fn majority(origins: usize) -> usize {
    origins / 2 + 1
}

impl Poll {
    pub(super) fn of(origins: usize) -> Self {
        Self { majority: majority(origins), votes: Vec::new() }
    }

    pub(super) fn add(&mut self, vote: Option<TagVote>) {
        self.votes.push(vote);
    }

    pub(super) fn count(&self) -> usize {
        self.votes.len()
    }

    /// Whether nothing that was chosen before the question is unknown.
    pub(super) fn is_majority(&self) -> bool {
        self.votes.len() >= self.majority
    }

    /// The vote that most origins share: it has been chosen, and nothing after it had been when they were asked.
    pub(super) fn agreed(&self) -> Option<&Option<TagVote>> {
        let same = |vote: &&Option<TagVote>| self.votes.iter().filter(|other| other == vote).count();
        self.votes.iter().find(|vote| same(vote) >= self.majority)
    }

    pub(super) fn newest(&self) -> Option<&TagVote> {
        newest(&self.votes)
    }
}

/// The last of these votes. Whatever was chosen is in it, if they are those of a majority.
pub(super) fn newest(votes: &[Option<TagVote>]) -> Option<&TagVote> {
    votes.iter().flatten().reduce(|one, other| if other.is_newer_than(one) { other } else { one })
}

/// A majority has promised `ballot`; `last` is the newest of its votes, `attempts` are the ballots in which this change has
/// been put to the vote before, and which did not end.
pub(super) fn step(
    last: Option<&TagVote>,
    ballot: TagVersion,
    attempts: &[TagVersion],
    change: &Change,
) -> Step {
    let (value, current) = (last.map(|vote| &vote.value), last.and_then(|vote| vote.value.digest));
    let stay = |outcome: Outcome| match value {
        Some(value) => Step::Vote { value: value.clone(), outcome },
        None => Step::End(outcome),
    };
    match (change, fate(value, attempts)) {
        (_, Fate::Unknown) => Step::Lost,
        (_, Fate::Written) => stay(Outcome::Written),
        (Change::Keep, _) => stay(Outcome::Kept(current)),
        (Change::Write { expected, .. }, _) if !expected.allows(current.as_ref()) => {
            stay(Outcome::Moved(current))
        }
        (Change::Write { digest, .. }, _) if *digest == current => stay(Outcome::Written),
        (Change::Write { digest, .. }, _) => {
            Step::Vote { value: written_after(value, *digest, ballot), outcome: Outcome::Written }
        }
    }
}

/// What became of earlier attempts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    Nothing,
    Unknown,
}

/// The writes of a tag are in the order of their ballots, so an attempt that is not where it would stand among them did
/// nothing; and it will not any more, since a majority promised to vote in no ballot before the present one.
fn fate(value: Option<&TagValue>, attempts: &[TagVersion]) -> Fate {
    let Some(first) = attempts.iter().min() else { return Fate::Nothing };
    let Some(value) = value else { return Fate::Nothing };
    if attempts.iter().any(|attempt| value.version == *attempt || value.before.contains(attempt)) {
        return Fate::Written;
    }
    let is_all = value.before.len() < MAX_TAG_WRITES;
    if is_all || value.before.last().is_some_and(|oldest| oldest < first) {
        Fate::Nothing
    } else {
        Fate::Unknown
    }
}

#[cfg(test)]
mod simulation;
