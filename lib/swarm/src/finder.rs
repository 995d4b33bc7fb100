//! Whom a fetch may turn to: candidates, in the order of the handout, and when to ask for more of them.
//!
//! A candidate that fails waits longer each time, and after `max_attempts` counts no more as hope; it is tried once more
//! whenever it is handed out again. Nobody is forgotten, so handing out the same dead peers is no news.

use std::time::Duration;

use shoal_core::{PeerId, Role};

use crate::config::{Config, backoff};
use crate::event::{Candidate, Moment};
use crate::picker::Share;

#[derive(Debug)]
pub(crate) struct Finder {
    contacts: Vec<Contact>,
    /// The origins among them, in the order of their names.
    origins: Vec<PeerId>,
    query: Query,
    /// The wait after the next answer.
    interval: Duration,
    sent_at: Option<Moment>,
    /// The last query brought nobody new.
    barren: bool,
}

#[derive(Debug)]
struct Contact {
    peer: PeerId,
    role: Role,
    failures: u32,
    retry_at: Moment,
    /// It failed too often, but was handed out again since.
    revived: bool,
}

/// Where the search for more peers stands.
#[derive(Clone, Copy, Debug)]
enum Query {
    /// The next one may be sent then.
    Idle { next: Moment },
    /// It was sent, and counts as unanswered from then on.
    Open { expires: Moment },
}

impl Finder {
    pub(crate) fn new(now: Moment, candidates: Vec<Candidate>, config: &Config) -> Self {
        let next = if candidates.is_empty() { now } else { now.after(config.find_interval) };
        let mut finder = Self {
            contacts: Vec::new(),
            origins: Vec::new(),
            query: Query::Idle { next },
            interval: config.find_interval,
            sent_at: None,
            barren: false,
        };
        finder.add(now, candidates, config);
        finder
    }

    /// Says whether somebody among them is new.
    fn add(&mut self, now: Moment, candidates: Vec<Candidate>, config: &Config) -> bool {
        let before = self.contacts.len();
        for Candidate { peer, role, .. } in candidates {
            if let Some(contact) = self.contact(&peer) {
                contact.revived = true;
            } else if self.contacts.len() < config.max_candidates.max(1) && role != Role::Tracker {
                self.contacts.push(Contact { peer, role, failures: 0, retry_at: now, revived: false });
                if let (Role::Origin, Err(at)) = (role, self.origins.binary_search(&peer)) {
                    self.origins.insert(at, peer);
                }
            }
        }
        self.contacts.len() > before
    }

    /// Which pieces an origin is asked for before others; `None` for whoever is none of the origins that are known.
    pub(crate) fn share_of(&self, peer: &PeerId) -> Option<Share> {
        let rank = u32::try_from(self.origins.binary_search(peer).ok()?).ok()?;
        Some(Share { rank, of: u32::try_from(self.origins.len()).ok()? })
    }

    /// The answer to a query, or peers that somebody volunteers.
    pub(crate) fn found(&mut self, now: Moment, candidates: Vec<Candidate>, config: &Config) {
        let news = self.add(now, candidates, config);
        self.settle(now, news, config);
    }

    fn settle(&mut self, now: Moment, news: bool, config: &Config) {
        self.barren = !news;
        let base = config.find_interval;
        self.interval = if news { base } else { (self.interval * 2).min(config.find_interval_max.max(base)) };
        self.query = Query::Idle { next: now.after(self.interval) };
    }

    /// Whether to ask for more now; if so, that counts as done.
    pub(crate) fn query(&mut self, now: Moment, config: &Config) -> bool {
        match self.query {
            Query::Open { expires } if expires <= now => self.settle(now, false, config),
            _ => {}
        }
        let Query::Idle { next } = self.query else { return false };
        if next > now {
            return false;
        }
        self.query = Query::Open { expires: now.after(config.find_timeout) };
        self.sent_at = Some(now);
        true
    }

    /// The last usable peer is lost: ask at once, unless that was done less than `find_interval` ago.
    pub(crate) fn hurry(&mut self, now: Moment, config: &Config) {
        let earliest = self.sent_at.map_or(now, |sent| sent.after(config.find_interval).max(now));
        if let Query::Idle { next } = &mut self.query {
            *next = (*next).min(earliest);
            self.barren = false;
        }
    }

    /// Whether the last query is over and brought nobody new.
    pub(crate) fn is_barren(&self) -> bool {
        self.barren && matches!(self.query, Query::Idle { .. })
    }

    /// When the search goes on.
    pub(crate) fn next_query(&self) -> Moment {
        match self.query {
            Query::Idle { next: at } | Query::Open { expires: at } => at,
        }
    }

    /// The next candidate to try out of those that are `free`: an origin if `origin_first`, else in the handout's order.
    pub(crate) fn next_contact(
        &self,
        now: Moment,
        origin_first: bool,
        config: &Config,
        free: impl Fn(&PeerId) -> bool,
    ) -> Option<PeerId> {
        let mut due = self
            .contacts
            .iter()
            .filter(|contact| contact.retry_at <= now && contact.may_be_tried(config) && free(&contact.peer));
        let first = due.next()?;
        let origin = (origin_first && first.role != Role::Origin)
            .then(|| due.find(|contact| contact.role == Role::Origin))
            .flatten();
        Some(origin.unwrap_or(first).peer)
    }

    /// When the next candidate that waits may be tried again.
    pub(crate) fn next_retry(
        &self,
        now: Moment,
        config: &Config,
        free: impl Fn(&PeerId) -> bool,
    ) -> Option<Moment> {
        let waiting = self
            .contacts
            .iter()
            .filter(|contact| contact.retry_at > now && contact.may_be_tried(config) && free(&contact.peer));
        waiting.map(|contact| contact.retry_at).min()
    }

    /// Whether one of those that are `free` has not failed too often.
    pub(crate) fn has_hope(&self, config: &Config, free: impl Fn(&PeerId) -> bool) -> bool {
        self.contacts
            .iter()
            .any(|contact| contact.failures < config.max_attempts.max(1) && free(&contact.peer))
    }

    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        self.contacts.iter().any(|contact| contact.peer == *peer)
    }

    pub(crate) fn count(&self, which: impl Fn(&PeerId) -> bool) -> usize {
        self.contacts.iter().filter(|contact| which(&contact.peer)).count()
    }

    /// It could not be reached, does not have the blob, or was lost.
    pub(crate) fn failed(&mut self, now: Moment, peer: &PeerId, config: &Config) {
        if let Some(contact) = self.contact(peer) {
            let wait = backoff(config.retry_backoff, contact.failures, config.retry_backoff_max);
            contact.retry_at = now.after(wait);
            contact.failures = contact.failures.saturating_add(1);
            contact.revived = false;
        }
    }

    /// It broke the protocol, or sent corrupt data: nothing is to be hoped from it.
    pub(crate) fn refused(&mut self, now: Moment, peer: &PeerId, config: &Config) {
        if let Some(contact) = self.contact(peer) {
            contact.failures = config.max_attempts.max(1);
            contact.retry_at = now.after(config.retry_backoff_max);
            contact.revived = false;
        }
    }

    /// It brought a good piece: what was before is forgiven.
    pub(crate) fn proved(&mut self, peer: &PeerId) {
        if let Some(contact) = self.contact(peer) {
            contact.failures = 0;
        }
    }

    fn contact(&mut self, peer: &PeerId) -> Option<&mut Contact> {
        self.contacts.iter_mut().find(|contact| contact.peer == *peer)
    }
}

impl Contact {
    fn may_be_tried(&self, config: &Config) -> bool {
        self.failures < config.max_attempts.max(1) || self.revived
    }
}
