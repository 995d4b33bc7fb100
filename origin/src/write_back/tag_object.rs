//! Which of two writes of a tag stands at a backend. Pure.
//!
//! The object of a tag is the last vote on it, as JSON. A deleted tag stays as a vote for nothing, so that an older write that
//! is late does not bring it back.

use shoal_control::cluster::message::{MAX_TAG_WRITES, TagValue, TagVersion, TagVote};
use shoal_core::Digest;

/// What this origin knows of a tag.
#[derive(Clone, Debug)]
pub(super) enum Ours {
    /// What the origins voted for; nothing if none of them keeps anything of it.
    Voted(Option<TagVote>),
    /// What the only origin says, whose writes are in no ballot: the last word.
    Alone(Option<Digest>),
}

/// What is to be put in place of what is there; nothing if that is right as it is.
pub(super) fn next(there: Option<&TagVote>, ours: &Ours) -> Option<TagVote> {
    match (there, ours) {
        (_, Ours::Voted(None)) | (None, Ours::Alone(None)) => None,
        (None, Ours::Voted(Some(vote))) => Some(vote.clone()),
        (Some(there), Ours::Voted(Some(vote))) => vote.is_newer_than(there).then(|| vote.clone()),
        (Some(there), Ours::Alone(digest)) if there.value.digest == *digest => None,
        (there, Ours::Alone(digest)) => {
            let before = there.map(|vote| vote.ballot).unwrap_or_default();
            let version = TagVersion { stamp: before.stamp.saturating_add(1), by: None };
            Some(TagVote {
                ballot: version,
                value: TagValue { digest: *digest, version, before: Vec::new() },
            })
        }
    }
}

/// What an object of a tag says.
pub(super) fn parse(content: &[u8]) -> Result<TagVote, String> {
    let vote: TagVote = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if vote.value.before.len() > MAX_TAG_WRITES {
        return Err(format!("more than {MAX_TAG_WRITES} writes before the last one"));
    }
    Ok(vote)
}

/// As it stands there.
pub(super) fn content(vote: &TagVote) -> Vec<u8> {
    serde_json::to_vec(vote).expect("a vote is plain values")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::PeerId;

    use super::*;

    fn vote(stamp: u64) -> TagVote {
        let version = TagVersion { stamp, by: Some(PeerId::from_public_key([7; 32])) };
        let digest = (!stamp.is_multiple_of(3)).then(|| Digest::sha256(&stamp.to_be_bytes()));
        TagVote { ballot: version, value: TagValue { digest, version, before: Vec::new() } }
    }

    proptest! {
        /// Whoever comes in whatever order, and however often: the last vote stands.
        #[test]
        fn the_last_vote_stands(order in prop::collection::vec(1u64..20, 1..40)) {
            let mut there = None;
            for stamp in &order {
                if let Some(next) = next(there.as_ref(), &Ours::Voted(Some(vote(*stamp)))) {
                    there = Some(parse(&content(&next)).unwrap());
                }
            }
            prop_assert_eq!(there, order.into_iter().max().map(vote));
        }

        /// The only origin's word stands whatever was there before, also in the time of a cluster; and those that come after it
        /// surpass it.
        #[test]
        fn the_only_origins_word_stands(before in prop::option::of(1u64..20), words in prop::collection::vec(0u8..4, 1..20)) {
            let mut there = before.map(vote);
            for word in words {
                let digest = (word > 0).then(|| Digest::sha256(&[word]));
                let last = there.clone();
                if let Some(next) = next(there.as_ref(), &Ours::Alone(digest)) {
                    prop_assert!(last.as_ref().is_none_or(|last| next.is_newer_than(last)));
                    there = Some(next);
                }
                prop_assert_eq!(there.as_ref().and_then(|vote| vote.value.digest), digest);
            }
        }
    }

    #[test]
    fn what_is_no_vote_is_refused() {
        assert!(parse(b"").is_err() && parse(b"{}").is_err());
        let mut long = vote(1);
        long.value.before = vec![TagVersion::default(); MAX_TAG_WRITES + 1];
        assert!(parse(&content(&long)).is_err());
    }
}
