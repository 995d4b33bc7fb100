//! Who may do what: ordered rules, the first that fits decides. A pure function of rules, client and repository.

use globset::{GlobBuilder, GlobMatcher};

use super::GuardError;

/// What a client does with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Reads: manifests, blobs, tags, referrers.
    Pull,
    /// Writes: manifests, tags, uploads.
    Push,
    /// Deletes manifests, tags and blobs.
    Delete,
}

impl Action {
    /// As scopes of tokens have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// One rule of the configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The repositories that it is about, by pattern: `*` is anything within a part of the name, `**` any parts,
    /// `{a,b}` one of both. The list of all repositories is the repository `_catalog`.
    pub repositories: String,
    /// The clients that it is about, by patterns of the same kind. `""` is whoever has not authenticated, and no
    /// other pattern is: `**` is everybody with a name.
    pub identities: Vec<String>,
    /// All that they may do there.
    pub allow: Vec<Action>,
}

/// The rules of a registry, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    repositories: GlobMatcher,
    anonymous: bool,
    identities: Vec<GlobMatcher>,
    allow: Vec<Action>,
}

impl Rules {
    pub(crate) fn compile(rules: &[Rule]) -> Result<Self, GuardError> {
        if rules.len() > MAX_RULES {
            return Err(GuardError::TooManyRules(rules.len()));
        }
        rules.iter().map(Compiled::of).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a client may do that. `identity`: `None` for one without credentials, `Some("")` for one whose
    /// credentials name nobody.
    pub(crate) fn allow(&self, identity: Option<&str>, action: Action, repository: &str) -> bool {
        if self.0.is_empty() {
            return identity.is_some();
        }
        let identity = identity.unwrap_or_default();
        let first = self.0.iter().find(|rule| rule.is_about(identity, repository));
        first.is_some_and(|rule| rule.allow.contains(&action))
    }

    /// Whether there is anything at all that a client without a name may do.
    pub(crate) fn allow_anonymous(&self) -> bool {
        self.0.iter().any(|rule| rule.anonymous && !rule.allow.is_empty())
    }
}

impl Compiled {
    fn of(rule: &Rule) -> Result<Self, GuardError> {
        let named = rule.identities.iter().filter(|pattern| !pattern.is_empty());
        Ok(Self {
            repositories: glob(&rule.repositories)?,
            anonymous: rule.identities.iter().any(String::is_empty),
            identities: named.map(|pattern| glob(pattern)).collect::<Result<_, _>>()?,
            allow: rule.allow.clone(),
        })
    }

    fn is_about(&self, identity: &str, repository: &str) -> bool {
        let client = match identity {
            "" => self.anonymous,
            name => self.identities.iter().any(|pattern| pattern.is_match(name)),
        };
        client && self.repositories.is_match(repository)
    }
}

fn glob(pattern: &str) -> Result<GlobMatcher, GuardError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    let glob = glob.map_err(|source| GuardError::Pattern { pattern: pattern.to_owned(), source })?;
    Ok(glob.compile_matcher())
}

/// The list of repositories, as a repository that a rule can name; no real one may begin so.
pub(crate) const CATALOG: &str = "_catalog";
/// More are not written by hand, and every request walks them.
const MAX_RULES: usize = 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Action::{Delete, Pull, Push};

    fn rules(table: &[(&str, &[&str], &[Action])]) -> Rules {
        let rule = |(repositories, identities, allow): &(&str, &[&str], &[Action])| Rule {
            repositories: (*repositories).to_owned(),
            identities: identities.iter().map(|&name| name.to_owned()).collect(),
            allow: allow.to_vec(),
        };
        Rules::compile(&table.iter().map(rule).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn without_rules_a_client_with_credentials_may_do_everything_and_nobody_else_anything() {
        for action in [Pull, Push, Delete] {
            assert!(Rules::default().allow(Some("alice"), action, "a"));
            assert!(Rules::default().allow(Some(""), action, "a"), "a token that names nobody is one");
            assert!(!Rules::default().allow(None, action, "a"));
        }
        assert!(!Rules::default().allow_anonymous());
    }

    #[test]
    fn rules_decide_by_repository_client_and_action() {
        let rules = rules(&[
            ("public/**", &["", "**"], &[Pull]),
            ("team/*", &["alice", "ci-*"], &[Pull, Push]),
            ("{team,ops}/**", &["root"], &[Pull, Push, Delete]),
            ("spiffe/a", &["spiffe://cluster/**"], &[Pull]),
            ("one-part", &["*"], &[Pull]),
        ]);
        for (identity, action, repository, expected) in [
            (None, Pull, "public/a/b", true),
            (Some(""), Pull, "public/a", true),
            (Some("anybody"), Pull, "public/a", true),
            (None, Push, "public/a", false),
            (None, Pull, "public", false),
            (None, Pull, "team/app", false),
            (Some("alice"), Push, "team/app", true),
            (Some("alice"), Delete, "team/app", false),
            (Some("alice"), Pull, "team/app/sub", false),
            (Some("alice"), Pull, "team", false),
            (Some("alicea"), Pull, "team/app", false),
            (Some("Alice"), Pull, "team/app", false),
            (Some("ci-7"), Push, "team/app", true),
            (Some("ci"), Push, "team/app", false),
            (Some("root"), Delete, "ops/a/b", true),
            (Some("root"), Pull, "other", false),
            (Some("spiffe://cluster/ns/x"), Pull, "spiffe/a", true),
            (Some("spiffe://other/ns/x"), Pull, "spiffe/a", false),
            (Some("spiffe://cluster/ns/x"), Pull, "one-part", false),
            (Some("bob"), Pull, "one-part", true),
            (None, Pull, "one-part", false),
        ] {
            assert_eq!(
                rules.allow(identity, action, repository),
                expected,
                "{identity:?} {action:?} {repository}"
            );
        }
        assert!(rules.allow_anonymous());
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let secret_first = rules(&[("team/secret", &["**"], &[]), ("team/**", &["**"], &[Pull])]);
        let secret_last = rules(&[("team/**", &["**"], &[Pull]), ("team/secret", &["**"], &[])]);
        assert!(!secret_first.allow(Some("alice"), Pull, "team/secret"));
        assert!(secret_first.allow(Some("alice"), Pull, "team/app"));
        assert!(secret_last.allow(Some("alice"), Pull, "team/secret"));
    }

    #[test]
    fn the_catalog_is_a_repository_that_only_a_wide_rule_names() {
        let rules = rules(&[("team/**", &["alice"], &[Pull]), ("**", &["root"], &[Pull])]);
        assert!(!rules.allow(Some("alice"), Pull, CATALOG));
        assert!(rules.allow(Some("root"), Pull, CATALOG));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let rule = Rule { repositories: "team/[a".to_owned(), identities: vec![], allow: vec![] };
        let error = Rules::compile(&[rule]).unwrap_err();
        assert!(error.to_string().contains("team/[a"), "{error}");
    }

    proptest! {
        #[test]
        fn nobody_without_a_name_is_anybody(pattern in "[a-z*/?]{1,9}", repository in "[a-z]{1,5}(/[a-z]{1,5})?") {
            let rules = rules(&[("**", &[pattern.as_str()], &[Pull, Push, Delete])]);
            prop_assert!(!rules.allow(None, Pull, &repository));
            prop_assert!(!rules.allow(Some(""), Pull, &repository));
        }
    }
}
