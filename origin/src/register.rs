//! One origin's part in what a tag names: its votes. A pure state; who changes it keeps it before he answers.
//!
//! The protocol is CASPaxos (Rystsov, 2018), one register a tag. An origin that has promised a ballot votes in no lesser one,
//! and tells with the promise what it voted for last. So who has the promises of a majority knows whatever may have been
//! chosen, and nobody can choose anything else behind his back.

use serde::{Deserialize, Serialize};
use shoal_control::cluster::message::{
    MAX_TAG_WRITES, TagAcceptance, TagPromise, TagValue, TagVersion, TagVote,
};
use shoal_core::Digest;

/// What an origin promised and voted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    /// It votes in no ballot before this one.
    pub(crate) promised: TagVersion,
    pub(crate) vote: Option<TagVote>,
}

/// A file that is not the record of a tag.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The first line.
    #[error("a tag's file names no digest: {0}")]
    Digest(#[from] shoal_core::DigestError),
    /// The second one.
    #[error("a tag's file does not say how its origin voted: {0}")]
    Votes(#[from] serde_json::Error),
    /// Neither.
    #[error("a tag's file is no text: {0}")]
    Text(#[from] std::str::Utf8Error),
}

/// The second line of a tag's file.
#[derive(Serialize, Deserialize)]
struct Votes {
    promised: TagVersion,
    #[serde(default)]
    voted: Option<Voted>,
}

/// A vote without its digest, which is the first line.
#[derive(Serialize, Deserialize)]
struct Voted {
    ballot: TagVersion,
    version: TagVersion,
    before: Vec<TagVersion>,
}

impl Register {
    /// The register of a tag of which nothing is kept, where everything up to `floor` may have been promised.
    pub(crate) fn untouched(floor: TagVersion) -> Self {
        Self { promised: floor, vote: None }
    }

    /// What the tag names by the last vote.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.vote.as_ref()?.value.digest
    }

    /// Whether the last vote was to delete it.
    pub(crate) fn is_deleted(&self) -> bool {
        self.vote.as_ref().is_some_and(|vote| vote.value.digest.is_none())
    }

    /// A ballot is announced. What is promised must be kept before it is said.
    pub(crate) fn promise(&mut self, ballot: TagVersion) -> TagPromise {
        if ballot <= self.promised {
            return TagPromise::Refused(self.promised);
        }
        self.promised = ballot;
        TagPromise::Promised(self.vote.clone())
    }

    /// A value is put to the vote, or was and comes again by another origin. The vote must be kept before it is said.
    pub(crate) fn accept(&mut self, vote: &TagVote) -> TagAcceptance {
        if vote.ballot < self.promised {
            return TagAcceptance::Refused(self.promised);
        }
        if self.vote.as_ref().is_none_or(|last| vote.is_newer_than(last)) {
            (self.promised, self.vote) = (vote.ballot, Some(vote.clone()));
        }
        TagAcceptance::Accepted
    }

    /// The file of it: the digest as an origin that stands alone has it, and a line for the votes.
    pub(crate) fn to_content(&self) -> String {
        let voted = self.vote.as_ref().map(|vote| Voted {
            ballot: vote.ballot,
            version: vote.value.version,
            before: vote.value.before.clone(),
        });
        let votes = Votes { promised: self.promised, voted };
        let votes = serde_json::to_string(&votes).expect("votes are plain values");
        self.digest().map_or_else(|| format!("{NOTHING}\n{votes}"), |digest| format!("{digest}\n{votes}"))
    }

    pub(crate) fn parse(content: &[u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(content)?.trim();
        let (first, votes) = text.split_once('\n').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let digest = match first.trim() {
            NOTHING => None,
            digest => Some(Digest::parse(digest)?),
        };
        let Some(votes) = votes else {
            let vote = digest.map(TagVote::before_the_cluster);
            return Ok(Self { promised: TagVersion::default(), vote });
        };
        let Votes { promised, voted } = serde_json::from_str(votes)?;
        let vote = voted.map(|Voted { ballot, version, before }| TagVote {
            ballot,
            value: TagValue { digest, version, before },
        });
        Ok(Self { promised, vote })
    }
}

/// What was written after `before`, in a ballot of its own.
pub(crate) fn written_after(
    before: Option<&TagValue>,
    digest: Option<Digest>,
    version: TagVersion,
) -> TagValue {
    let earlier = before.map(|value| std::iter::once(value.version).chain(value.before.iter().copied()));
    let before = earlier.into_iter().flatten().take(MAX_TAG_WRITES).collect();
    TagValue { digest, version, before }
}

/// The first line of a tag's file that names nothing.
const NOTHING: &str = "-";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::PeerId;

    use super::*;

    fn version(stamp: u64) -> TagVersion {
        TagVersion { stamp, by: Some(PeerId::from_public_key([7; 32])) }
    }

    fn vote(stamp: u64) -> TagVote {
        let value = TagValue {
            digest: (!stamp.is_multiple_of(3)).then(|| Digest::sha256(&stamp.to_be_bytes())),
            version: version(stamp),
            before: (1..stamp.min(5)).map(version).collect(),
        };
        TagVote { ballot: version(stamp), value }
    }

    proptest! {
        /// A promise is kept, a vote is the last of its ballot, and neither goes back.
        #[test]
        fn promises_hold_whatever_comes_in_whatever_order(
            events in prop::collection::vec((any::<bool>(), 1u64..12), 0..40)
        ) {
            let mut register = Register::default();
            for (is_promise, stamp) in events {
                let before = register.clone();
                if is_promise {
                    let promised = matches!(register.promise(version(stamp)), TagPromise::Promised(_));
                    prop_assert_eq!(promised, version(stamp) > before.promised);
                    prop_assert_eq!(&register.vote, &before.vote);
                } else {
                    let accepted = register.accept(&vote(stamp)) == TagAcceptance::Accepted;
                    prop_assert_eq!(accepted, version(stamp) >= before.promised);
                    let expected = if accepted { Some(vote(stamp)) } else { before.vote.clone() };
                    prop_assert_eq!(&register.vote, &expected);
                }
                prop_assert!(register.promised >= before.promised);
                let ballot = |register: &Register| register.vote.as_ref().map(|vote| vote.ballot);
                prop_assert!(ballot(&register) >= ballot(&before) && ballot(&register) <= Some(register.promised));
            }
        }

        #[test]
        fn a_file_says_all_of_it(promised in 0u64..20, voted in prop::option::of(1u64..20)) {
            let register = Register { promised: version(promised), vote: voted.map(vote) };
            prop_assert_eq!(Register::parse(register.to_content().as_bytes()).unwrap(), register);
        }
    }

    #[test]
    fn a_tag_from_before_the_cluster_is_a_vote_that_every_ballot_surpasses() {
        let digest = Digest::sha256(b"before");
        let mut register = Register::parse(digest.to_string().as_bytes()).unwrap();
        assert_eq!(register.digest(), Some(digest));
        let TagPromise::Promised(Some(last)) = register.promise(version(1)) else { panic!() };
        assert!(vote(1).is_newer_than(&last));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut value = written_after(None, None, version(1));
        for stamp in 2..100 {
            value = written_after(Some(&value), None, version(stamp));
        }
        let expected: Vec<_> = (99 - MAX_TAG_WRITES as u64..99).rev().map(version).collect();
        assert_eq!(value.before, expected);
    }

    #[test]
    fn what_is_no_record_of_a_tag_is_said_to_be_none() {
        for content in [b"".as_slice(), b"x", b"-\n{}", b"-\nx", b"\xff"] {
            assert!(Register::parse(content).is_err(), "{content:?}");
        }
    }
}
