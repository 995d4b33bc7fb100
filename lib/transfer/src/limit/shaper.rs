//! Who may take how many bytes, and when: the rate limits of one direction, as a pure state machine.
//!
//! Nobody gets a byte while somebody more urgent waits for the rate that they share; among the equally urgent whoever waits
//! longest is next, and stands in line again for the rest. So repair may starve while readers take all, as it shall: who does
//! not want that gives the readers a rate of their own below the whole, and what is between the two is for the others.
//! It knows no clock, wakes nobody, and does not bound how many wait: whoever calls it does.

use std::collections::VecDeque;

use shoal_swarm::{Moment, Priority};

use super::meter::{Meter, Rate};

/// The rates of one direction; what has none is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of all together.
    pub total: Option<Rate>,
    /// Of what somebody reads.
    pub reader: Option<Rate>,
    /// Of what somebody may read soon.
    pub prefetch: Option<Rate>,
    /// Of copies that nobody waits for.
    pub repair: Option<Rate>,
}

/// The limits of one direction and who waits for them. Every byte that it gives out is settled ([`Self::settle`]) once.
#[derive(Debug)]
pub struct Shaper {
    total: Option<Meter>,
    lines: [Line; PRIORITIES.len()],
    last_ticket: u64,
}

/// The equally urgent.
#[derive(Debug)]
struct Line {
    own: Option<Meter>,
    /// Whoever came first is first, so tickets ascend.
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    wanted: u32,
}

/// A place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Whoever waits there may take so many bytes now, and has left the line.
    Granted(Ticket, u32),
    /// Nobody may before that moment, or before something is settled.
    At(Moment),
    /// Nobody waits, or nobody may before something is settled.
    Never,
}

/// Whether somebody may take something now.
enum Verdict {
    Granted(u32),
    /// Its priority has used its own rate up until then.
    OwnRate(Option<Moment>),
    /// The rate of all is used up until then.
    TotalRate(Option<Moment>),
}

/// The most urgent first.
pub(crate) const PRIORITIES: [Priority; 3] = [Priority::Reader, Priority::Prefetch, Priority::Repair];

impl Limits {
    /// The rate of one priority.
    #[must_use]
    pub fn own(&self, priority: Priority) -> Option<Rate> {
        match priority {
            Priority::Reader => self.reader,
            Priority::Prefetch => self.prefetch,
            Priority::Repair => self.repair,
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

impl Shaper {
    /// Nobody has taken anything yet. A priority's rate that is not below the rate of all limits nothing.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let lines = PRIORITIES.map(|priority| {
            let own = limits.own(priority).filter(|own| limits.total.is_none_or(|total| *own < total));
            Line { own: own.map(Meter::new), waiting: VecDeque::new() }
        });
        Self { total: limits.total.map(Meter::new), lines, last_ticket: 0 }
    }

    /// Bytes that somebody may take at once, at least one and at most as many as are wanted (none is taken as one): held
    /// until they are settled. Nothing if it has to stand in line. Here as in the other calls `now` never goes back.
    pub fn grant(&mut self, now: Moment, priority: Priority, wanted: u32) -> Option<u32> {
        if self.first().is_some() {
            return None;
        }
        let Verdict::Granted(bytes) = self.verdict(now, priority, wanted.max(1)) else { return None };
        self.hold(priority, bytes);
        Some(bytes)
    }

    /// Somebody who wants so many bytes stands in line.
    pub fn join(&mut self, priority: Priority, wanted: u32) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.lines[priority as usize].waiting.push_back(Waiting { ticket, wanted: wanted.max(1) });
        ticket
    }

    /// Who of those in line is next. Is asked until nobody is, whenever something changed and when the time has come.
    pub fn poll(&mut self, now: Moment) -> Next {
        let mut next = None;
        for priority in PRIORITIES {
            let Some(Waiting { ticket, wanted }) = self.lines[priority as usize].waiting.front().copied()
            else {
                continue;
            };
            match self.verdict(now, priority, wanted) {
                Verdict::Granted(bytes) => {
                    self.lines[priority as usize].waiting.pop_front();
                    self.hold(priority, bytes);
                    return Next::Granted(ticket, bytes);
                }
                Verdict::OwnRate(at) => next = earlier(next, at),
                Verdict::TotalRate(at) => {
                    next = earlier(next, at);
                    break;
                }
            }
        }
        next.map_or(Next::Never, Next::At)
    }

    /// Of `held` bytes that were granted, `spent` go now; the others will not, and are there for others.
    pub fn settle(&mut self, now: Moment, priority: Priority, held: u32, spent: u32) {
        let spent = u64::from(spent.min(held));
        for meter in self.meters(priority) {
            meter.settle(now, u64::from(held), spent);
        }
    }

    /// Whoever waits there does so no more. Nothing happens if it was granted something.
    pub fn leave(&mut self, priority: Priority, ticket: Ticket) {
        let waiting = &mut self.lines[priority as usize].waiting;
        if let Ok(at) = waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            waiting.remove(at);
        }
    }

    /// The first in the most urgent line.
    #[must_use]
    pub fn first(&self) -> Option<Ticket> {
        self.lines.iter().find_map(|line| line.waiting.front()).map(|first| first.ticket)
    }

    fn verdict(&mut self, now: Moment, priority: Priority, wanted: u32) -> Verdict {
        let mut bytes = u64::from(wanted);
        if let Some(own) = &mut self.lines[priority as usize].own {
            match own.room(now, bytes) {
                0 => return Verdict::OwnRate(own.ready_at(bytes)),
                room => bytes = room,
            }
        }
        if let Some(total) = &mut self.total {
            match total.room(now, bytes) {
                0 => return Verdict::TotalRate(total.ready_at(bytes)),
                room => bytes = room,
            }
        }
        Verdict::Granted(u32::try_from(bytes).expect("it is at most what was wanted"))
    }

    fn hold(&mut self, priority: Priority, bytes: u32) {
        for meter in self.meters(priority) {
            meter.hold(u64::from(bytes));
        }
    }

    /// Those that a priority takes from.
    fn meters(&mut self, priority: Priority) -> impl Iterator<Item = &mut Meter> {
        self.total.iter_mut().chain(&mut self.lines[priority as usize].own)
    }
}

fn earlier(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
