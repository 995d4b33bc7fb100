//! What was asked of us: whom to serve next, within the upload slots of the node, and whom to refuse.
//!
//! Next is what waited too long; then the most urgent; then the piece that was sent least often, so that an origin gives
//! different pieces to different peers; then the peer that was served longest ago. When more waits than can be sent
//! soon, the one that would come last is refused, whether it is the new one or an old one.
//! Which pieces exist and who may have them is not decided here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_core::{Digest, PeerId, PieceIndex};

use crate::config::Config;
use crate::event::{Moment, Priority};

/// One piece for one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Upload {
    pub(crate) peer: PeerId,
    pub(crate) digest: Digest,
    pub(crate) piece: PieceIndex,
}

/// A piece that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) digest: Digest,
    pub(crate) piece: PieceIndex,
    pub(crate) priority: Priority,
    pub(crate) sends: Sends,
    pub(crate) since: Moment,
}

/// How a piece went out so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sends {
    /// How often it was sent to anybody.
    pub(crate) copies: u32,
    /// Before that it is sent to nobody else: whoever has it now may pass it on.
    pub(crate) held_until: Moment,
    /// And before that not even to a reader: whoever gets it now will have passed it on as soon.
    pub(crate) held_from_readers_until: Moment,
}

impl Sends {
    /// When it may be sent again to somebody who needs it so.
    fn held_until(&self, priority: Priority) -> Moment {
        if priority == Priority::Reader { self.held_from_readers_until } else { self.held_until }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It waits, or waited already.
    Queued,
    /// It waits, in the place of another that is refused now.
    Displaced(Upload),
    /// More waits than can be sent soon, and nothing of it is less needed.
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Uploads {
    lines: BTreeMap<PeerId, Line>,
    /// Those that were started and not reported as ended, and when; they outlive the connection.
    active: BTreeMap<Upload, Moment>,
    /// How long one takes of late, smoothed.
    usual: Duration,
    /// How many requests wait.
    waiting: usize,
    /// Counts the uploads that were started.
    turn: u64,
}

/// What one peer asked for.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    active: usize,
    /// The turn in which it was served last.
    served: u64,
}

/// The lower, the sooner.
type Rank = (bool, Priority, u32, u64, usize);

impl Uploads {
    pub(crate) fn request(
        &mut self,
        now: Moment,
        peer: PeerId,
        asked: Waiting,
        config: &Config,
    ) -> Admission {
        if self.active.contains_key(&Upload { peer, digest: asked.digest, piece: asked.piece }) {
            return Admission::Queued;
        }
        let line = self.lines.entry(peer).or_default();
        if line.waiting.iter().any(|other| other.piece == asked.piece && other.digest == asked.digest) {
            return Admission::Queued;
        }
        if line.waiting.len() >= config.upload_queue_per_peer.max(1) {
            return Admission::Refused;
        }
        line.waiting.push_back(asked);
        self.waiting += 1;
        if self.waiting <= config.upload_queue.max(1) {
            return Admission::Queued;
        }
        let Some((last, at)) = self.last(now, config) else { return Admission::Queued };
        let Some(refused) = self.take(&last, at) else { return Admission::Queued };
        let refused = Upload { peer: last, digest: refused.digest, piece: refused.piece };
        if refused == (Upload { peer, digest: asked.digest, piece: asked.piece }) {
            Admission::Refused
        } else {
            Admission::Displaced(refused)
        }
    }

    /// The next upload to start, while there is a slot, and how urgent it is.
    pub(crate) fn start(&mut self, now: Moment, config: &Config) -> Option<(Upload, Priority)> {
        if self.active.len() >= config.max_uploads.max(1) {
            return None;
        }
        let per_peer = config.max_uploads_per_peer.max(1);
        let lines = self.lines.iter().filter(|(_, line)| line.active < per_peer);
        let ranks = lines.flat_map(|(peer, line)| ranks(now, peer, line, config));
        let (_, peer, at) = ranks.filter(|(_, peer, at)| !self.is_held(now, peer, *at)).min()?;
        let next = self.take(&peer, at)?;
        self.turn += 1;
        if let Some(line) = self.lines.get_mut(&peer) {
            line.active += 1;
            line.served = self.turn;
        } else {
            let line = Line { active: 1, served: self.turn, ..Line::default() };
            self.lines.insert(peer, line);
        }
        let upload = Upload { peer, digest: next.digest, piece: next.piece };
        self.active.insert(upload, now);
        Some((upload, next.priority))
    }

    /// A piece goes out, or is out: who else waits for it waits for one of which that is so.
    pub(crate) fn sent(&mut self, digest: &Digest, piece: PieceIndex, sends: Sends) {
        let waiting = self.lines.values_mut().flat_map(|line| &mut line.waiting);
        let same = waiting.filter(|other| other.piece == piece && other.digest == *digest);
        same.for_each(|other| other.sends = sends);
    }

    fn is_held(&self, now: Moment, peer: &PeerId, at: usize) -> bool {
        let waiting = self.lines.get(peer).and_then(|line| line.waiting.get(at));
        waiting.is_some_and(|waiting| waiting.sends.held_until(waiting.priority) > now)
    }

    /// When something that is held may be sent, if there is a slot for it.
    pub(crate) fn next_release(&self, now: Moment, config: &Config) -> Option<Moment> {
        if self.active.len() >= config.max_uploads.max(1) {
            return None;
        }
        let waiting = self.lines.values().flat_map(|line| &line.waiting);
        waiting.map(|waiting| waiting.sends.held_until(waiting.priority)).filter(|&until| until > now).min()
    }

    /// How long an upload takes of late; no time if none has ended.
    pub(crate) fn usual(&self) -> Duration {
        self.usual
    }

    /// That upload has ended. Says whether it had been started.
    pub(crate) fn ended(&mut self, now: Moment, upload: &Upload) -> bool {
        let Some(started) = self.active.remove(upload) else { return false };
        let took = now.since(started);
        self.usual = if self.usual.is_zero() { took } else { (self.usual * 7 + took) / 8 };
        if let Some(line) = self.lines.get_mut(&upload.peer) {
            line.active -= 1;
        }
        self.drop_line_if_empty(&upload.peer);
        true
    }

    pub(crate) fn cancel(&mut self, peer: &PeerId, suits: impl Fn(&Digest, PieceIndex) -> bool) {
        let Some(line) = self.lines.get_mut(peer) else { return };
        let before = line.waiting.len();
        line.waiting.retain(|waiting| !suits(&waiting.digest, waiting.piece));
        self.waiting -= before - line.waiting.len();
        self.drop_line_if_empty(peer);
    }

    /// Drops what waits for that peer; what was started goes on until it is reported as ended.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.cancel(peer, |_, _| true);
    }

    pub(crate) fn forget_blob(&mut self, digest: &Digest) {
        let peers: Vec<_> = self.lines.keys().copied().collect();
        for peer in peers {
            self.cancel(&peer, |other, _| other == digest);
        }
    }

    pub(crate) fn concerns(&self, peer: &PeerId) -> bool {
        self.lines.contains_key(peer)
    }

    /// Who would be served last.
    fn last(&self, now: Moment, config: &Config) -> Option<(PeerId, usize)> {
        let all = self.lines.iter().flat_map(|(peer, line)| ranks(now, peer, line, config));
        all.max().map(|(_, peer, at)| (peer, at))
    }

    fn take(&mut self, peer: &PeerId, at: usize) -> Option<Waiting> {
        let taken = self.lines.get_mut(peer)?.waiting.remove(at)?;
        self.waiting -= 1;
        self.drop_line_if_empty(peer);
        Some(taken)
    }

    fn drop_line_if_empty(&mut self, peer: &PeerId) {
        if self.lines.get(peer).is_some_and(|line| line.waiting.is_empty() && line.active == 0) {
            self.lines.remove(peer);
        }
    }

    /// Panics unless the counts are what a recount gives, and no limit is exceeded.
    #[cfg(test)]
    pub(crate) fn audit(&self, config: &Config) {
        assert!(self.active.len() <= config.max_uploads);
        assert_eq!(self.lines.values().map(|line| line.waiting.len()).sum::<usize>(), self.waiting);
        assert!(self.waiting <= config.upload_queue);
        for (peer, line) in &self.lines {
            assert!(!line.waiting.is_empty() || line.active > 0);
            assert!(line.waiting.len() <= config.upload_queue_per_peer);
            assert_eq!(self.active.keys().filter(|upload| upload.peer == *peer).count(), line.active);
            assert!(line.active <= config.max_uploads_per_peer);
        }
    }
}

fn ranks(
    now: Moment,
    peer: &PeerId,
    line: &Line,
    config: &Config,
) -> impl Iterator<Item = (Rank, PeerId, usize)> {
    line.waiting.iter().enumerate().map(move |(at, waiting)| {
        let in_time = waiting.since.after(config.upload_patience) > now;
        ((in_time, waiting.priority, waiting.sends.copies, line.served, at), *peer, at)
    })
}
