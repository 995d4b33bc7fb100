//! What is said of a tag beside the digest that it names: how sure that is, and what it must name for a change to be made.

use shoal_core::Digest;

/// What a tag names, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedTag {
    /// The manifest.
    pub digest: Digest,
    /// Whether it is so now.
    pub freshness: Freshness,
}

/// How sure it is that a tag names that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As sure as the driver promises: what was acknowledged before the question is in the answer.
    Current,
    /// The newest that could be found: too few answered to know whether there is a newer one.
    Unconfirmed,
    /// What it named when it was asked for the last time: nobody who knows answered now.
    Remembered,
}

/// What a tag must name, or whether it must name nothing, for a change of it to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagExpectation {
    nothing: bool,
    digests: Digests,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Digests {
    Any,
    OneOf(Vec<Digest>),
}

impl ResolvedTag {
    /// An answer that holds.
    #[must_use]
    pub fn current(digest: Digest) -> Self {
        Self { digest, freshness: Freshness::Current }
    }
}

impl TagExpectation {
    /// Whatever it names, or nothing.
    #[must_use]
    pub fn anything() -> Self {
        Self { nothing: true, digests: Digests::Any }
    }

    /// It names nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { nothing: true, digests: Digests::OneOf(Vec::new()) }
    }

    /// It names something.
    #[must_use]
    pub fn something() -> Self {
        Self { nothing: false, digests: Digests::Any }
    }

    /// It names one of these.
    #[must_use]
    pub fn one_of(digests: impl IntoIterator<Item = Digest>) -> Self {
        Self { nothing: false, digests: Digests::OneOf(digests.into_iter().collect()) }
    }

    /// It names nothing or that: a tag that is put once.
    #[must_use]
    pub fn nothing_or(digest: Digest) -> Self {
        Self { nothing: true, digests: Digests::OneOf(vec![digest]) }
    }

    /// Both must hold.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let digests = match (self.digests, &other.digests) {
            (Digests::Any, other) => other.clone(),
            (own, Digests::Any) => own,
            (Digests::OneOf(own), Digests::OneOf(other)) => {
                Digests::OneOf(own.into_iter().filter(|digest| other.contains(digest)).collect())
            }
        };
        Self { nothing: self.nothing && other.nothing, digests }
    }

    /// Whether a tag that names `current` is as expected.
    #[must_use]
    pub fn allows(&self, current: Option<&Digest>) -> bool {
        match (current, &self.digests) {
            (None, _) => self.nothing,
            (Some(_), Digests::Any) => true,
            (Some(current), Digests::OneOf(digests)) => digests.contains(current),
        }
    }

    /// Whether every tag is as expected.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.nothing && self.digests == Digests::Any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<TagExpectation> {
        let [one, two] = [b"one", b"two"].map(|content| Digest::sha256(content));
        vec![
            TagExpectation::anything(),
            TagExpectation::nothing(),
            TagExpectation::something(),
            TagExpectation::one_of([one, two]),
            TagExpectation::one_of([]),
            TagExpectation::nothing_or(one),
        ]
    }

    #[test]
    fn each_allows_what_its_name_says() {
        let [one, two, three] = [b"one".as_slice(), b"two", b"three"].map(Digest::sha256);
        let allowed = all().into_iter().map(|expected| {
            [None, Some(&one), Some(&two), Some(&three)].map(|current| expected.allows(current))
        });
        let expected = [
            [true, true, true, true],
            [true, false, false, false],
            [false, true, true, true],
            [false, true, true, false],
            [false, false, false, false],
            [true, true, false, false],
        ];
        assert_eq!(allowed.collect::<Vec<_>>(), expected);
        assert_eq!(all().iter().filter(|expected| expected.is_anything()).count(), 1);
    }

    #[test]
    fn two_together_allow_what_both_allow() {
        let [one, two, three] = [b"one".as_slice(), b"two", b"three"].map(Digest::sha256);
        for left in all() {
            for right in all() {
                for current in [None, Some(&one), Some(&two), Some(&three)] {
                    let both = left.allows(current) && right.allows(current);
                    assert_eq!(left.clone().and(&right).allows(current), both, "{left:?} {right:?}");
                }
            }
        }
    }
}
