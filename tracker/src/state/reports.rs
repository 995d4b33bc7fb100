//! Reports of nodes that others cannot reach, and when they are enough to hand a node out no more.
//!
//! A reporter counts once, for a lease at most, and only enough of them together remove a node, from more than one
//! address. Reporters of other data centres alone remove a node for their side only: what they cannot reach may be fine
//! at home, as where a firewall stands between two centres. Everything kept here has a limit; beyond it reports are
//! passed over, and the lease ends what they would have ended.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use shoal_core::PeerId;

/// How many reports it takes to hand a node out no more before its lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Removal {
    /// Distinct nodes that must have reported it within a lease, 2 to 32. Default 3: one that lies, or two whose own network is
    /// broken, remove nobody. A cluster that does not have so many waits for the lease.
    pub reporters: usize,
    /// Distinct addresses that they must have called from. Default 2: one host, however many nodes run on it, is one witness.
    pub addresses: usize,
}

/// Reports that count, and how often nodes were removed.
#[derive(Debug)]
pub(super) struct Reports {
    removal: Removal,
    lease: Duration,
    about: HashMap<PeerId, Vec<Report>>,
    /// How many of each reporter there are.
    by: HashMap<PeerId, usize>,
    /// All there are, those that end first in front: until when, about whom, by whom.
    ends: BTreeSet<(Instant, PeerId, PeerId)>,
    strikes: HashMap<PeerId, Strikes>,
}

/// Who could not reach a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reporter {
    pub(super) id: PeerId,
    /// Where it called from.
    pub(super) source: IpAddr,
    /// Whether it stands in the node's data centre.
    pub(super) is_near: bool,
}

/// For whom a node is handed out no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// For nodes of other data centres.
    Far,
    /// For all.
    All,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It counts, and more are needed.
    Noted,
    /// It was the last that was needed.
    Removed(Scope),
    /// It says nothing: the reporter has no lease or was never handed that node, or the node is out already.
    Ignored,
    /// It would be one too many to keep.
    TooMany,
}

/// A node is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    pub(super) scope: Scope,
    /// Not even an announce brings it back before.
    pub(super) not_before: Instant,
    /// It has announced itself since.
    pub(super) announced: bool,
}

/// Whom a node was handed, the latest last: only they are worth its reports. Each is four bytes of a random key, so one of some
/// million others is taken for it.
#[derive(Debug, Default)]
pub(super) struct Handed(VecDeque<u32>);

#[derive(Clone, Copy, Debug)]
struct Report {
    reporter: Reporter,
    until: Instant,
}

/// Removals of one node, as long as they count.
#[derive(Clone, Copy, Debug)]
struct Strikes {
    count: u32,
    until: Instant,
}

impl Reports {
    /// Reports about one node that are kept, the latest: at least as many as can be demanded.
    pub(super) const MAX_REPORTERS: usize = 32;
    /// Reports of one node that count at a time: some times what one hand-out names.
    const MAX_OF_REPORTER: usize = 256;
    /// Reports of all nodes together, about 10 MB.
    const MAX_REPORTS: usize = 65_536;
    /// Nodes of which it is remembered how often they were removed, about 2 MB. One more is treated as if for the first time.
    const MAX_STRIKES: usize = 20_000;
    /// The longest absence after an announce, in leases: 16 minutes by default. So long a node must hold out, too, for its
    /// removals to be forgotten.
    const MAX_ABSENCE: u32 = 16;

    pub(super) fn new(removal: Removal, lease: Duration) -> Self {
        Self {
            removal,
            lease,
            about: HashMap::new(),
            by: HashMap::new(),
            ends: BTreeSet::new(),
            strikes: HashMap::new(),
        }
    }

    /// Takes a report. When it is the last that was needed, those that led to it are used up.
    pub(super) fn report(&mut self, now: Instant, about: PeerId, reporter: Reporter) -> Reported {
        self.expire(now);
        self.drop_report(&about, &reporter.id);
        let of_reporter = self.by.get(&reporter.id).copied().unwrap_or(0);
        if of_reporter >= Self::MAX_OF_REPORTER || self.ends.len() >= Self::MAX_REPORTS {
            return Reported::TooMany;
        }
        self.keep(about, Report { reporter, until: now + self.lease });
        let reports = self.about.get(&about).map(Vec::as_slice).unwrap_or_default();
        let scope = if self.suffices(reports.iter().filter(|report| report.reporter.is_near)) {
            Scope::All
        } else if self.suffices(reports.iter()) {
            Scope::Far
        } else {
            return Reported::Noted;
        };
        self.forget_within(&about, scope);
        Reported::Removed(scope)
    }

    /// Notes that a node was removed; says from when on an announce may bring it back.
    pub(super) fn strike(&mut self, now: Instant, node: PeerId) -> Instant {
        let count = self.strikes.get(&node).filter(|strikes| now < strikes.until).map_or(0, |one| one.count);
        let leases = if count == 0 { 0 } else { (1 << (count - 1).min(16)).min(Self::MAX_ABSENCE) };
        let not_before = now + self.lease * leases;
        if self.strikes.len() < Self::MAX_STRIKES || self.strikes.contains_key(&node) {
            let until = not_before + self.lease * Self::MAX_ABSENCE;
            self.strikes.insert(node, Strikes { count: count.saturating_add(1), until });
        }
        not_before
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(until, about, by)) = self.ends.first()
            && until <= now
        {
            self.drop_report(&about, &by);
        }
    }

    /// The same, and removals that count no more.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.expire(now);
        self.strikes.retain(|_, strikes| now < strikes.until);
    }

    /// Forgets all reports about a node.
    pub(super) fn forget(&mut self, about: &PeerId) {
        self.forget_within(about, Scope::All);
    }

    /// Forgets the reports about a node that led to its removal: of far nodes, or of all.
    fn forget_within(&mut self, about: &PeerId, scope: Scope) {
        let reports = self.about.get(about).map(Vec::as_slice).unwrap_or_default();
        let used = reports.iter().filter(|report| scope == Scope::All || !report.reporter.is_near);
        for reporter in used.map(|report| report.reporter.id).collect::<Vec<_>>() {
            self.drop_report(about, &reporter);
        }
    }

    fn suffices<'a>(&self, reports: impl Iterator<Item = &'a Report>) -> bool {
        let (mut count, mut sources) = (0, HashSet::new());
        for report in reports {
            count += 1;
            sources.insert(report.reporter.source);
        }
        count >= self.removal.reporters && sources.len() >= self.removal.addresses
    }

    fn keep(&mut self, about: PeerId, report: Report) {
        let reports = self.about.entry(about).or_default();
        let oldest = reports.first().filter(|_| reports.len() >= Self::MAX_REPORTERS).copied();
        reports.push(report);
        self.ends.insert((report.until, about, report.reporter.id));
        *self.by.entry(report.reporter.id).or_default() += 1;
        if let Some(oldest) = oldest {
            self.drop_report(&about, &oldest.reporter.id);
        }
    }

    fn drop_report(&mut self, about: &PeerId, by: &PeerId) {
        let Some(reports) = self.about.get_mut(about) else { return };
        let Some(at) = reports.iter().position(|report| report.reporter.id == *by) else { return };
        let report = reports.remove(at);
        if reports.is_empty() {
            self.about.remove(about);
        }
        self.ends.remove(&(report.until, *about, *by));
        if let Some(count) = self.by.get_mut(by) {
            *count -= 1;
            if *count == 0 {
                self.by.remove(by);
            }
        }
    }
}

impl Absence {
    /// Whether the node is not to be named at that time to an asker that is near it, or far.
    pub(super) fn holds(&self, now: Instant, is_near: bool) -> bool {
        (!self.announced || now < self.not_before) && (self.scope == Scope::All || !is_near)
    }

    /// Whether an announce at that time ends it.
    pub(super) fn ends(&self, now: Instant) -> bool {
        self.not_before <= now
    }
}

impl Handed {
    /// The most that are remembered: some hand-outs. 2 KiB a node.
    const MAX: usize = 512;

    pub(super) fn add(&mut self, id: &PeerId) {
        let mark = Self::mark(id);
        if !self.0.contains(&mark) {
            if self.0.len() == Self::MAX {
                self.0.pop_front();
            }
            self.0.push_back(mark);
        }
    }

    pub(super) fn contains(&self, id: &PeerId) -> bool {
        self.0.contains(&Self::mark(id))
    }

    fn mark(id: &PeerId) -> u32 {
        let [a, b, c, d, ..] = *id.public_key();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl Removal {
    /// The fewest reporters that may be demanded: nobody is removed by one.
    pub(crate) const MIN_REPORTERS: usize = 2;
    /// The most.
    pub(crate) const MAX_REPORTERS: usize = Reports::MAX_REPORTERS;
}

impl Default for Removal {
    fn default() -> Self {
        Self { reporters: 3, addresses: 2 }
    }
}

#[cfg(test)]
mod tests;
