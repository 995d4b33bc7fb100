//! What was checked, and what of it failed.

use std::collections::BTreeSet;
use std::future::Future;

/// The checks of a run, in their order.
#[derive(Default)]
pub(super) struct Report {
    checks: Vec<(String, Result<(), String>)>,
    names: BTreeSet<String>,
}

/// How a check ends.
pub(super) type Checked<T = ()> = Result<T, String>;

impl Report {
    /// Runs a check; gives what it found out, if it passed. A name is used once.
    pub(super) async fn check<T>(
        &mut self,
        name: impl Into<String>,
        check: impl Future<Output = Checked<T>>,
    ) -> Option<T> {
        let (result, name) = (check.await, name.into());
        self.note(name, result)
    }

    /// Notes a check that needed no request of its own.
    pub(super) fn note<T>(&mut self, name: impl Into<String>, result: Checked<T>) -> Option<T> {
        let name = name.into();
        assert!(self.names.insert(name.clone()), "two checks are called {name}");
        let (noted, found) = match result {
            Ok(found) => (Ok(()), Some(found)),
            Err(reason) => (Err(reason), None),
        };
        self.checks.push((name, noted));
        found
    }

    /// Takes over what another report noted.
    pub(super) fn add(&mut self, other: Self) {
        for (name, result) in other.checks {
            self.note(name, result);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.checks.len()
    }

    /// What failed, and why.
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter_map(|(name, result)| Some((name, result.as_ref().err()?)));
        failed.map(|(name, reason)| format!("{name}: {reason}")).collect()
    }

    /// The names of all checks, by the first two parts of their names, and the sum.
    pub(super) fn print(&self) {
        let group = |name: &str| name.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        let mut groups: Vec<(String, usize, usize)> = Vec::new();
        for (name, result) in &self.checks {
            let group = group(name);
            let at = groups.iter().position(|(known, ..)| *known == group).unwrap_or_else(|| {
                groups.push((group, 0, 0));
                groups.len() - 1
            });
            groups[at].1 += 1;
            groups[at].2 += usize::from(result.is_err());
        }
        for (group, checks, failed) in &groups {
            println!("{group}: {checks} checks, {failed} failed");
        }
        println!("conformance: {} checks, {} failed", self.count(), self.failures().len());
    }
}

/// Passes if that holds.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Passes if both are the same.
#[allow(clippy::needless_pass_by_value, reason = "the checks read better")]
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Checked {
    ensure(found == expected, || format!("{what} is {found:?}, not {expected:?}"))
}
