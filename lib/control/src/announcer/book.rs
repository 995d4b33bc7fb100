//! Which tracker has to be told what: pure.
//!
//! Invariant: a tracker that answers knows, or has waiting for it, every holding of its share, and is told of everything that
//! is gone. What is held is not kept here: changes that wait are, at most [`Changes::MAX_WAITING`] a tracker, and whoever
//! missed more (it was away, or not needed) is told everything when it is back.

use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Digest, PeerId};

use crate::changes::{Batch, Change, Changes};
use crate::message::{AnnounceRequest, Announced, Holding, Sharing};
use crate::rendezvous::{OWNERS, Places, Rendezvous};

/// What there is to tell, tracker by tracker.
#[derive(Debug)]
pub(super) struct Book {
    rendezvous: Arc<Rendezvous>,
    /// The configured trackers as this node prefers them where one is enough.
    homes: Vec<usize>,
    /// One for each configured tracker, and one for whichever of the learned ones stands in while none of them answers.
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    share: Share,
    changes: Changes,
    /// It was told of every blob that is its own while these trackers, of which it is one, are the live ones.
    covered: Places,
    /// It was sent something that it has not taken yet.
    in_flight: bool,
    /// Whether it took the last announce, and how it shares what it knows.
    sharing: Option<Sharing>,
    /// Announces that failed since the last that did not.
    failures: u32,
}

/// What of all that this node has a tracker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Nothing, not even that the node is there.
    Nothing,
    /// What it owns.
    Owned,
    /// All of it.
    All,
}

/// What one announce is to say.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) what: What,
    before: Places,
}

#[derive(Debug)]
pub(super) enum What {
    /// Those of all holdings, instead of what was said before.
    Everything(Selection),
    /// Those of all holdings that were not said before, in one announce with these changes, which are older: a blob that is among
    /// the removed may be back.
    More { selection: Selection, added: Vec<Holding>, removed: Vec<Digest> },
    /// These changes, possibly none.
    Changes { added: Vec<Holding>, removed: Vec<Digest> },
}

/// Some of the holdings.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    rendezvous: Arc<Rendezvous>,
    place: usize,
    /// `None`: all of them.
    live: Option<Places>,
    /// Not those that were the tracker's own while these were live.
    except: Places,
}

/// A tracker counts as away after so many failures in a row: one alone is a restart or a lost packet, half a second long.
const AWAY_AFTER: u32 = 2;

impl Book {
    pub(super) fn new(rendezvous: Arc<Rendezvous>, node: &PeerId) -> Self {
        let homes = rendezvous.homes(node);
        let sessions = (0..=rendezvous.len()).map(|_| Session::new()).collect();
        let mut book = Self { rendezvous, homes, sessions };
        book.refresh();
        book
    }

    /// The session with whichever learned tracker stands in.
    pub(super) fn stand_in(&self) -> usize {
        self.rendezvous.len()
    }

    /// Notes what became of a blob.
    pub(super) fn note(&mut self, digest: Digest, change: Change) {
        let live = self.live();
        let owners = self.rendezvous.owners(&digest, live, OWNERS);
        for (place, session) in self.sessions.iter_mut().enumerate() {
            // One that was away may be about to take what it was sent before this.
            let owns = || match live.contains(place) || place == self.rendezvous.len() {
                true => owners.contains(place),
                false => self.rendezvous.owners(&digest, live.with(place), OWNERS).contains(place),
            };
            // What is gone is said to all: some know more than their share.
            if change == Change::Removed || session.share == Share::All || owns() {
                session.changes.note(digest, change);
            }
        }
    }

    /// Whether that tracker is to be told anything at all.
    pub(super) fn is_active(&self, place: usize) -> bool {
        self.sessions[place].share != Share::Nothing
    }

    /// Whether there is something to tell it.
    pub(super) fn owes(&self, place: usize) -> bool {
        self.is_active(place)
            && (!self.sessions[place].changes.is_empty() || !self.missing(place, self.live()).is_empty())
    }

    /// What to tell it next, which then counts as sent.
    pub(super) fn take(&mut self, place: usize) -> Errand {
        let live = self.live().with_if(place, place < self.stand_in());
        let missing = self.missing(place, live);
        let all = self.sessions[place].share == Share::All;
        let selection = |except| Selection {
            rendezvous: Arc::clone(&self.rendezvous),
            place,
            live: (!all).then_some(live),
            except,
        };
        let (everything, more) = (selection(Places::NONE), selection(self.sessions[place].covered));
        let session = &mut self.sessions[place];
        let before = session.covered;
        let what = match session.changes.take(AnnounceRequest::MAX_CHANGES) {
            Batch::Everything => What::Everything(everything),
            Batch::Changes { added, removed } if missing.is_empty() => What::Changes { added, removed },
            Batch::Changes { added, removed } => What::More { selection: more, added, removed },
        };
        if !matches!(what, What::Changes { .. }) {
            session.covered = live;
        }
        session.in_flight = !what.is_empty();
        Errand { what, before }
    }

    /// The tracker took it. `moved`: another tracker than the one that took what was sent before.
    pub(super) fn taken(&mut self, place: usize, errand: &Errand, announced: &Announced, moved: bool) {
        let session = &mut self.sessions[place];
        (session.in_flight, session.failures, session.sharing) = (false, 0, Some(announced.sharing));
        if announced.send_all || (moved && !matches!(errand.what, What::Everything(_))) {
            session.changes = Changes::Everything;
        }
        self.refresh();
    }

    /// The tracker did not take it; says how often in a row that was so.
    pub(super) fn failed(&mut self, place: usize, errand: Errand) -> u32 {
        let session = &mut self.sessions[place];
        session.in_flight = false;
        session.failures = session.failures.saturating_add(1);
        session.covered = session.covered.union(errand.before);
        match errand.what {
            What::Everything(_) => session.changes = Changes::Everything,
            What::More { added, removed, .. } | What::Changes { added, removed } => {
                session.changes.put_back(Batch::Changes { added, removed });
            }
        }
        let failures = session.failures;
        self.refresh();
        failures
    }

    /// Whether some tracker answers, and all that do know what was noted.
    pub(super) fn is_settled(&self) -> bool {
        let counts = |place: &usize| self.is_active(*place) && self.sessions[*place].failures < AWAY_AFTER;
        let mut told = (0..self.sessions.len()).filter(counts).peekable();
        let somebody = self.sessions.iter().any(Session::answers);
        somebody
            && told.peek().is_some()
            && told.all(|place| !self.sessions[place].in_flight && !self.owes(place))
    }

    /// The configured trackers that are not away.
    pub(super) fn live(&self) -> Places {
        (0..self.stand_in()).filter(|&place| self.sessions[place].failures < AWAY_AFTER).collect()
    }

    /// Whether every tracker that answers is told of everything, or knows it from the others.
    pub(super) fn any_will_do(&self) -> bool {
        self.all_answer_with(|sharing| sharing != Sharing::Own)
    }

    /// The trackers that said that they share their state.
    pub(super) fn sharing(&self) -> Places {
        let shares = |place: &usize| self.sessions[*place].sharing == Some(Sharing::Shared);
        (0..self.stand_in()).filter(shares).collect()
    }

    fn all_answer_with(&self, good: impl Fn(Sharing) -> bool) -> bool {
        let configured = &self.sessions[..self.stand_in()];
        let mut answers = configured
            .iter()
            .filter(|one| one.failures < AWAY_AFTER)
            .filter_map(|one| one.sharing)
            .peekable();
        answers.peek().is_some() && answers.all(good)
    }

    /// What was its own only since others went away, and it was not told of: the trackers whose blobs those are.
    fn missing(&self, place: usize, live: Places) -> Places {
        let session = &self.sessions[place];
        if session.share == Share::Owned { session.covered.without(live) } else { Places::NONE }
    }

    /// Puts the shares right after a tracker answered, or failed.
    fn refresh(&mut self) {
        let live = self.live();
        let enough = self.enough();
        for place in 0..self.sessions.len() {
            let share = self.share(place, live, enough);
            let session = &mut self.sessions[place];
            let more = share == Share::All && session.share == Share::Owned;
            let missed = session.failures >= AWAY_AFTER && !session.in_flight;
            if share == Share::Nothing || more || missed {
                session.changes = Changes::Everything;
            }
            session.share = share;
            // With more trackers live its share is smaller: it knows it already.
            session.covered = session.covered.union(live);
        }
    }

    fn share(&self, place: usize, live: Places, enough: Option<usize>) -> Share {
        if place == self.stand_in() {
            return if live.is_empty() { Share::All } else { Share::Nothing };
        }
        let needed = enough.is_none_or(|enough| self.homes[..=enough].contains(&place));
        match self.sessions[place].sharing {
            _ if !needed => Share::Nothing,
            Some(Sharing::Shared | Sharing::Cut) => Share::All,
            Some(Sharing::Own) | None => Share::Owned,
        }
    }

    /// Where all share their state: up to which of the preferred trackers they are told. It answers, those before do not.
    fn enough(&self) -> Option<usize> {
        let answers = |place: &usize| self.sessions[*place].answers();
        self.all_answer_with(|sharing| sharing == Sharing::Shared)
            .then(|| self.homes.iter().position(answers))
            .flatten()
    }
}

impl Session {
    fn new() -> Self {
        Self {
            share: Share::Nothing,
            changes: Changes::Everything,
            covered: Places::NONE,
            in_flight: false,
            sharing: None,
            failures: 0,
        }
    }

    fn answers(&self) -> bool {
        self.failures == 0 && self.sharing.is_some()
    }
}

impl What {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Changes { added, removed } if added.is_empty() && removed.is_empty())
    }
}

impl Selection {
    pub(super) fn has(&self, digest: &Digest) -> bool {
        let Some(live) = self.live else { return true };
        let owns = |live| self.rendezvous.owners(digest, live, OWNERS).contains(self.place);
        owns(live) && (self.except.is_empty() || !owns(self.except))
    }
}

/// The wait after so many failures: twice as long for each, up to the longest.
pub(super) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    (FIRST_RETRY * (1 << doublings)).min(MAX_RETRY)
}

/// The first wait after a failure; doubled for each more.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest wait after failures: below the usual lease of 60 s, so that a tracker that is back knows all within it.
const MAX_RETRY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
