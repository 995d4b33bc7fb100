//! One connection: what it was asked for, how fast it answers, and how far it is trusted to.
//!
//! A deadline is about progress: it starts anew with each piece that the peer brings, so a long queue on a slow link is
//! no failure. Only a request that is overtaken for `piece_timeout_max` is given up regardless.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_core::{Digest, PieceIndex, Role};

use crate::config::{Config, backoff};
use crate::event::{Moment, Priority};

/// A request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) digest: Digest,
    pub(crate) piece: PieceIndex,
    pub(crate) bytes: u32,
    pub(crate) at: Moment,
    /// That of the whole blob.
    pub(crate) fetch_priority: Priority,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    /// Whether it is of our zone.
    pub(crate) is_near: bool,
    /// The swarms that both are in.
    pub(crate) swarms: BTreeSet<Digest>,
    /// In the order of asking.
    pub(crate) asked: Vec<Ask>,
    /// When it last said or brought something, news apart: those are booked in the swarm.
    pub(crate) active_at: Moment,
    /// Not asked for anything before.
    pub(crate) paused_until: Moment,
    /// The swarm that it was asked for last; the next one's turn is next.
    pub(crate) last_served: Option<Digest>,
    asked_bytes: u64,
    /// How many requests it may have now: grows with each piece, halves with each timeout.
    slots: usize,
    /// Time a MiB takes, smoothed.
    pace: Option<Duration>,
    last_received: Moment,
    /// Timeouts in a row.
    strikes: u32,
    /// Rejects in a row.
    rejects: u32,
}

impl Peer {
    /// A peer that brings nothing is as slow as that many of its usual pieces before it is given up.
    const PATIENCE: u32 = 8;
    const MIB: u128 = 1 << 20;

    pub(crate) fn new(now: Moment, role: Role, is_near: bool, config: &Config) -> Self {
        Self {
            role,
            is_near,
            swarms: BTreeSet::new(),
            asked: Vec::new(),
            active_at: now,
            paused_until: now,
            last_served: None,
            asked_bytes: 0,
            slots: Self::most_slots(role, config),
            pace: None,
            last_received: now,
            strikes: 0,
            rejects: 0,
        }
    }

    fn most_slots(role: Role, config: &Config) -> usize {
        let limit = if role == Role::Origin { config.requests_per_origin } else { config.requests_per_agent };
        limit.max(1)
    }

    /// Whether it may be asked for that many bytes more.
    pub(crate) fn has_room(&self, now: Moment, bytes: u64, config: &Config) -> bool {
        self.paused_until <= now
            && self.asked.len() < self.slots
            && (self.asked.is_empty() || self.asked_bytes + bytes <= config.request_bytes_per_peer)
    }

    /// How long a piece of that many bytes may take that it is asked for now: behind what it was asked for before, at
    /// its usual pace. One whose pace is not known is tried with one piece at once, and with more only if need be.
    pub(crate) fn wait(&self, bytes: u64) -> Duration {
        match self.pace {
            Some(pace) => nanos(pace.as_nanos() * u128::from(self.asked_bytes + bytes) / Self::MIB),
            None if self.asked.is_empty() => Duration::ZERO,
            None => Duration::MAX,
        }
    }

    /// Whether what it gives costs others: an origin, or somebody beyond the zone.
    pub(crate) fn is_scarce(&self) -> bool {
        self.role == Role::Origin || !self.is_near
    }

    /// Whether it is worth waiting for.
    pub(crate) fn is_reliable(&self, config: &Config) -> bool {
        self.strikes < config.max_strikes && self.rejects < config.max_rejects
    }

    /// Whether it may yet bring something, though others are better: it is connected, so it has only been slow.
    pub(crate) fn has_hope(&self, config: &Config) -> bool {
        self.strikes < config.max_attempts.max(1) && self.rejects < config.max_rejects
    }

    /// Whether it let so many requests in a row time out that another should have its place.
    pub(crate) fn is_struck_out(&self, config: &Config) -> bool {
        self.strikes >= config.max_strikes
    }

    pub(crate) fn ask(&mut self, ask: Ask) {
        self.asked_bytes += u64::from(ask.bytes);
        self.asked.push(ask);
    }

    /// Takes a request back, if there is such a one.
    pub(crate) fn withdraw(&mut self, digest: &Digest, piece: PieceIndex) -> Option<Ask> {
        let at = self.asked.iter().position(|ask| ask.piece == piece && ask.digest == *digest)?;
        let ask = self.asked.remove(at);
        self.asked_bytes -= u64::from(ask.bytes);
        Some(ask)
    }

    /// It brought a piece, in time or late.
    pub(crate) fn delivered(&mut self, now: Moment, ask: Option<Ask>, config: &Config) {
        if let Some(ask) = ask {
            self.measure(now, &ask);
        }
        self.slots = (self.slots + 1).min(Self::most_slots(self.role, config));
        self.strikes = 0;
        self.rejects = 0;
        self.last_received = now;
        self.active_at = now;
    }

    fn measure(&mut self, now: Moment, ask: &Ask) {
        let took = now.since(ask.at.max(self.last_received)).as_nanos();
        let sample = nanos(took * Self::MIB / u128::from(ask.bytes.max(1)));
        self.pace = Some(self.pace.map_or(sample, |pace| (pace * 7 + sample) / 8));
    }

    /// It let requests time out.
    pub(crate) fn struck(&mut self, now: Moment, config: &Config) {
        self.slots = (self.slots / 2).max(1);
        self.pause(now, self.strikes, config);
        self.strikes = self.strikes.saturating_add(1);
    }

    pub(crate) fn rejected(&mut self, now: Moment, config: &Config) {
        self.pause(now, self.rejects, config);
        self.rejects = self.rejects.saturating_add(1);
    }

    fn pause(&mut self, now: Moment, times: u32, config: &Config) {
        let wait = backoff(config.reject_backoff, times, config.reject_backoff_max);
        self.paused_until = self.paused_until.max(now.after(wait));
    }

    /// When the first of its requests is to be given up.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Moment> {
        self.asked.iter().map(|ask| self.deadline_of(ask, config)).min()
    }

    /// The requests that are to be given up by now.
    pub(crate) fn overdue(&self, now: Moment, config: &Config) -> Vec<(Digest, PieceIndex)> {
        let late = self.asked.iter().filter(|ask| self.deadline_of(ask, config) <= now);
        late.map(|ask| (ask.digest, ask.piece)).collect()
    }

    fn deadline_of(&self, ask: &Ask, config: &Config) -> Moment {
        let quiet = ask.at.max(self.last_received).after(self.timeout(ask.bytes, config));
        quiet.min(ask.at.after(config.piece_timeout_max))
    }

    fn timeout(&self, bytes: u32, config: &Config) -> Duration {
        let longest = config.piece_timeout_max;
        let usual = self.pace.map_or(config.piece_timeout, |pace| {
            let piece = nanos(pace.as_nanos() * u128::from(bytes) / Self::MIB);
            piece.saturating_mul(Self::PATIENCE).max(config.piece_timeout_min)
        });
        backoff(usual, self.strikes, longest)
    }

    /// Panics unless the bytes add up and no limit is exceeded.
    #[cfg(test)]
    pub(crate) fn audit(&self, config: &Config) {
        assert_eq!(self.asked_bytes, self.asked.iter().map(|ask| u64::from(ask.bytes)).sum::<u64>());
        assert!(self.asked.len() <= Self::most_slots(self.role, config));
        assert!(self.asked_bytes <= config.request_bytes_per_peer || self.asked.len() == 1);
    }
}

/// A duration of so many nanoseconds; 584 years at most.
fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Those of a sorted set, from behind `last` on and round again.
pub(crate) fn after_last<'a, T: Ord + Copy>(
    set: &'a BTreeSet<T>,
    last: Option<T>,
) -> impl Iterator<Item = T> + 'a {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let behind = last.map_or(Unbounded, Excluded);
    let before = last.map(|last| set.range((Unbounded, Included(last))));
    set.range((behind, Unbounded)).chain(before.into_iter().flatten()).copied()
}
