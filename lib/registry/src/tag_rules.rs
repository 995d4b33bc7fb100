//! Which tags move: ordered rules, the first that fits a tag decides; one that no rule is about moves and may be deleted.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use shoal_core::{RepositoryName, Tag};

/// One rule of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagRule {
    /// The repositories that it is about, by pattern: `*` is anything within a part of the name, `**` any parts,
    /// `{a,b}` one of both.
    pub repositories: Pattern,
    /// The tags that it is about, by a pattern of the same kind. All, unless set.
    #[serde(default = "every_tag")]
    pub tags: Pattern,
    /// Whether such a tag names for good what it was pushed for first.
    pub immutable: bool,
    /// Whether an immutable tag may be deleted all the same; then it can be pushed anew. No, unless set: who deletes and pushes
    /// again has moved it.
    #[serde(default)]
    pub delete: bool,
}

/// A pattern for names that was read without an error.
#[derive(Clone, Debug)]
pub struct Pattern(GlobMatcher);

/// The rules of a registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TagRules<'a>(pub(crate) &'a [TagRule]);

/// A rule that makes a tag immutable, by its place in the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Immutable<'a> {
    number: usize,
    rule: &'a TagRule,
}

impl<'a> TagRules<'a> {
    /// The rule by which a tag is immutable, if it is.
    pub(crate) fn immutable(self, repository: &RepositoryName, tag: &Tag) -> Option<Immutable<'a>> {
        let fits = |rule: &TagRule| {
            rule.repositories.0.is_match(repository.as_str()) && rule.tags.0.is_match(tag.as_str())
        };
        let number = self.0.iter().position(fits)?;
        let rule = &self.0[number];
        rule.immutable.then_some(Immutable { number, rule })
    }
}

impl Immutable<'_> {
    pub(crate) fn allows_delete(&self) -> bool {
        self.rule.delete
    }
}

/// As the operator finds it again.
impl fmt::Display for Immutable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TagRule { repositories, tags, .. } = self.rule;
        let number = self.number + 1;
        write!(
            f,
            "rule {number} of registry.tags (repositories {repositories:?}, tags {tags:?})",
            repositories = repositories.as_str(),
            tags = tags.as_str()
        )
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build()?;
        Ok(Self(glob.compile_matcher()))
    }

    fn as_str(&self) -> &str {
        self.0.glob().glob()
    }

    /// Whether a name is one of those that are meant.
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| D::Error::custom(format!("{text:?} is no pattern: {error}")))
    }
}

/// More are not written by hand, and every push of a tag walks them.
pub(crate) fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TagRule>, D::Error> {
    let rules = Vec::<TagRule>::deserialize(deserializer)?;
    if rules.len() > MAX_RULES {
        return Err(D::Error::custom(format!(
            "registry.tags has {} rules: at most {MAX_RULES}",
            rules.len()
        )));
    }
    Ok(rules)
}

fn every_tag() -> Pattern {
    Pattern::parse("*").expect("a pattern")
}

const MAX_RULES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Vec<TagRule>, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(
            r#"[
                {"repositories": "lab/**", "immutable": false},
                {"repositories": "**", "tags": "{latest,nightly}", "immutable": false},
                {"repositories": "team/*", "tags": "v*", "immutable": true, "delete": true},
                {"repositories": "**", "tags": "v*", "immutable": true}
            ]"#,
        )
        .unwrap();
        let decide = |repository: &str, tag: &str| {
            let (repository, tag) = (RepositoryName::parse(repository).unwrap(), Tag::parse(tag).unwrap());
            let rule = TagRules(&rules).immutable(&repository, &tag);
            rule.map(|rule| (rule.number + 1, rule.allows_delete()))
        };
        assert_eq!(decide("lab/a/b", "v1"), None);
        assert_eq!(decide("team/app", "latest"), None);
        assert_eq!(decide("team/app", "v1"), Some((3, true)));
        assert_eq!(decide("team/app/part", "v1"), Some((4, false)));
        assert_eq!(decide("other", "v1.2.3"), Some((4, false)));
        assert_eq!(decide("other", "edge"), None);
    }

    #[test]
    fn what_is_no_rule_is_refused_and_named() {
        let bad = rules(r#"[{"repositories": "{a", "immutable": true}]"#).unwrap_err().to_string();
        assert!(bad.contains("{a"), "{bad}");
        assert!(rules(r#"[{"repositories": "a"}]"#).is_err());
        assert!(rules(r#"[{"repositories": "a", "immutable": true, "tag": "x"}]"#).is_err());
    }
}
