//! What a swarm knows only while its blob is being fetched: who was asked for what, and which piece is next.
//!
//! Invariant: a missing piece that is wanted is either idle in the picker or has at least one peer in `asked`, never both.
//! One that is not wanted is not idle; it may have been asked for when it still was.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rand::Rng;
use shoal_core::{Bitfield, PeerId, PieceIndex};

use crate::config::Config;
use crate::event::{Moment, Priority, Scope};
use crate::finder::Finder;
use crate::picker::{Among, Picker, Share};
use crate::readers::Readers;
use crate::wanted::{Moved, Wanted};

#[derive(Debug)]
pub(crate) struct Fetch {
    /// Why it is fetched, apart from readers.
    priority: Priority,
    wanted: Wanted,
    pub(crate) picker: Picker,
    pub(crate) readers: Readers,
    pub(crate) finder: Finder,
    /// Missing pieces that somebody was asked for.
    pub(crate) asked: BTreeMap<PieceIndex, Asked>,
    /// When a piece came last, or the fetch began.
    pub(crate) last_progress: Moment,
    /// Nothing is asked for before: the store needs a rest.
    pub(crate) paused_until: Moment,
    /// Pieces in a row that could not be stored.
    pub(crate) store_failures: u32,
    /// Of `asked`, those that a reader waits for.
    reader_pieces: usize,
    /// Why a piece was asked for last.
    last_purpose: Purpose,
    /// What a piece took from request to arrival, smoothed.
    latency: Duration,
}

/// Who was asked for a piece.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) peers: Vec<PeerId>,
    first: Moment,
    purpose: Purpose,
}

/// Why a piece was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A reader comes to it next.
    Reader,
    /// It is the rarest.
    Rarity,
    /// Somebody was asked already, and it is one of the last, or a reader waits for it.
    Extra,
}

/// What kind of peer is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An agent of our zone: what it gives, it would give to nobody sooner.
    Near,
    /// An origin or a far agent, with no near agent in the swarm that could bring a piece on.
    Alone,
    /// An origin or a far agent, while near agents fetch too. It is asked for what none of them has, and for more only
    /// while too little is under way. Their readers stand where ours stand: if all asked for what their readers want,
    /// each piece would come to each of them from there. So at most every second piece is a reader's, and only the
    /// very next one.
    Shared,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whom<'a> {
    pub(crate) peer: &'a PeerId,
    pub(crate) have: &'a Bitfield,
    pub(crate) source: Source,
    /// An origin's.
    pub(crate) share: Option<Share>,
    pub(crate) need: Need,
}

/// How freely to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Enough is under way.
    Usual,
    /// The link may soon be idle.
    Hungry,
}

/// What to ask a peer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Piece(PieceIndex, Purpose),
    /// Nothing now, but perhaps then, if what it has is still on its way from others.
    Later(Moment),
    Nothing,
}

impl Fetch {
    pub(crate) fn new(
        now: Moment,
        have: &Bitfield,
        finder: Finder,
        priority: Priority,
        scope: Scope,
    ) -> Self {
        let wanted = Wanted::new(scope, have);
        let picker = Picker::new(wanted.settled(have));
        Self {
            priority,
            wanted,
            picker,
            readers: Readers::default(),
            finder,
            asked: BTreeMap::new(),
            last_progress: now,
            paused_until: now,
            store_failures: 0,
            reader_pieces: 0,
            last_purpose: Purpose::Rarity,
            latency: Duration::ZERO,
        }
    }

    /// Why it is fetched now: what readers wait for is fetched for them.
    pub(crate) fn priority(&self) -> Priority {
        match &self.wanted {
            _ if !self.readers.is_empty() => Priority::Reader,
            Wanted::All => self.priority,
            Wanted::Near { .. } => self.priority.max(Priority::Prefetch),
        }
    }

    /// The pieces that are not to be got, where `have` are here.
    pub(crate) fn settled<'a>(&'a self, have: &'a Bitfield) -> &'a Bitfield {
        self.wanted.settled(have)
    }

    /// Whether nothing is wanted now.
    pub(crate) fn rests(&self) -> bool {
        self.picker.idle() == 0 && !self.asked.keys().any(|&piece| self.wanted.contains(piece))
    }

    /// The readers come to these pieces next, of which the first `ahead` of each are wanted if only what is near to them is.
    /// Says whether a piece is wanted now that was not, and nobody was asked for.
    pub(crate) fn demand(
        &mut self,
        now: Moment,
        ranges: Vec<Range<u32>>,
        ahead: u32,
        have: &Bitfield,
        config: &Config,
    ) -> bool {
        let rested = self.rests();
        let Moved { near, more, less } = self.wanted.move_to(ranges, ahead, have);
        self.readers = Readers::new(near, have, config.reader_window, config.max_readers);
        less.into_iter().for_each(|piece| self.picker.take(piece));
        let is_more = self.put_back_all(more);
        if rested {
            self.last_progress = now;
        }
        is_more
    }

    /// All of the blob is wanted from now on. Says whether it was not before.
    pub(crate) fn raise(
        &mut self,
        now: Moment,
        priority: Priority,
        have: &Bitfield,
        config: &Config,
    ) -> bool {
        self.priority = self.priority.min(priority);
        let rested = self.rests();
        let Some((ranges, more)) = self.wanted.raise(have) else { return false };
        self.readers = Readers::new(ranges, have, config.reader_window, config.max_readers);
        self.put_back_all(more);
        if rested {
            self.last_progress = now;
        }
        true
    }

    /// These pieces are wanted now. Says whether nobody was asked for one of them.
    fn put_back_all(&mut self, pieces: Vec<PieceIndex>) -> bool {
        let idle = pieces.into_iter().filter(|piece| !self.asked.contains_key(piece));
        idle.inspect(|&piece| self.picker.put_back(piece)).count() > 0
    }

    /// What to ask that peer for: a reader's next piece, else the rarest, else help with what others
    /// were asked for and a reader, or the end of the blob, waits for.
    pub(crate) fn choose(&self, now: Moment, whom: Whom<'_>, config: &Config, rng: &mut impl Rng) -> Choice {
        let Whom { peer, have, .. } = whom;
        if self.paused_until > now {
            return Choice::Nothing;
        }
        if self.picker.idle() == 0 {
            return self.choose_extra(
                now,
                peer,
                have,
                config,
                self.asked
                    .iter()
                    .map(|(&piece, asked)| (piece, asked))
                    .filter(|&(piece, _)| self.wanted.contains(piece)),
            );
        }
        let idle = self.among(whom).into_iter().flatten().find_map(|among| {
            let reader = || Some((self.choose_reader(have, among, whom.source, config)?, Purpose::Reader));
            reader().or_else(|| Some((self.picker.pick(have, among, rng)?, Purpose::Rarity)))
        });
        match idle {
            Some((piece, purpose)) => Choice::Piece(piece, purpose),
            None => self.choose_hedge(now, peer, have, config),
        }
    }

    /// Among which pieces to choose, the first that has one.
    fn among(&self, whom: Whom<'_>) -> [Option<Among>; 3] {
        let share = whom.share.map(Among::Share);
        match (whom.source, whom.need) {
            (Source::Near, _) => [Some(Among::All), None, None],
            (Source::Alone, _) | (Source::Shared, Need::Hungry) => {
                [share, Some(Among::Unspread), Some(Among::All)]
            }
            (Source::Shared, Need::Usual) => [share, Some(Among::Unspread), None],
        }
    }

    /// Help with what readers wait for.
    fn choose_hedge(&self, now: Moment, peer: &PeerId, have: &Bitfield, config: &Config) -> Choice {
        let heads = self.readers.heads().filter_map(|piece| Some((piece, self.asked.get(&piece)?)));
        self.choose_extra(now, peer, have, config, heads)
    }

    fn choose_reader(
        &self,
        have: &Bitfield,
        among: Among,
        source: Source,
        config: &Config,
    ) -> Option<PieceIndex> {
        let ahead = match source {
            Source::Near | Source::Alone => config.reader_window,
            Source::Shared if self.last_purpose == Purpose::Reader => return None,
            Source::Shared => 1,
        };
        let share = (self.asked.len() + 1) * config.reader_share_percent / 100;
        if self.reader_pieces >= share.max(1) {
            return None;
        }
        self.readers.next(ahead, |piece| have.contains(piece) && self.picker.allows(piece, among))
    }

    /// One of `asked` that this peer could bring too, if the others have had their time.
    fn choose_extra<'a>(
        &self,
        now: Moment,
        peer: &PeerId,
        have: &Bitfield,
        config: &Config,
        asked: impl Iterator<Item = (PieceIndex, &'a Asked)>,
    ) -> Choice {
        let delay = config.endgame_delay.max(self.latency * 2);
        let open = asked.filter(|(piece, asked)| {
            have.contains(*piece) && asked.peers.len() <= config.endgame_extra && !asked.peers.contains(peer)
        });
        let due = open.map(|(piece, asked)| {
            let times = u32::try_from(asked.peers.len()).unwrap_or(u32::MAX);
            (asked.first.after(delay.saturating_mul(times)), piece)
        });
        match due.min() {
            Some((at, piece)) if at <= now => Choice::Piece(piece, Purpose::Extra),
            Some((at, _)) => Choice::Later(at),
            None => Choice::Nothing,
        }
    }

    pub(crate) fn ask(&mut self, now: Moment, peer: PeerId, piece: PieceIndex, purpose: Purpose) {
        self.picker.take(piece);
        self.last_purpose = purpose;
        if let Some(asked) = self.asked.get_mut(&piece) {
            asked.peers.push(peer);
            return;
        }
        if purpose == Purpose::Reader {
            self.reader_pieces += 1;
            self.readers.served(piece);
        }
        self.asked.insert(piece, Asked { peers: vec![peer], first: now, purpose });
    }

    /// That peer is not asked for the piece any more. The piece is idle again if nobody else is, and it is still wanted.
    pub(crate) fn release(&mut self, peer: &PeerId, piece: PieceIndex) {
        let Some(asked) = self.asked.get_mut(&piece) else { return };
        asked.peers.retain(|other| other != peer);
        if asked.peers.is_empty() {
            self.settle(piece);
            if self.wanted.contains(piece) {
                self.picker.put_back(piece);
            }
        }
    }

    /// The piece is here. Gives those who were asked for it in vain.
    pub(crate) fn arrived(
        &mut self,
        now: Moment,
        piece: PieceIndex,
        have: &Bitfield,
        config: &Config,
    ) -> Vec<PeerId> {
        self.picker.take(piece);
        self.wanted.arrived(piece);
        self.readers.arrived(piece, have, config.reader_window);
        self.last_progress = now;
        self.store_failures = 0;
        self.settle(piece).map_or_else(Vec::new, |asked| asked.peers)
    }

    /// Who was asked for a piece, if that is longer ago than pieces usually take.
    pub(crate) fn asked_late(&self, now: Moment, piece: PieceIndex) -> Option<&[PeerId]> {
        let asked = self.asked.get(&piece)?;
        (now.since(asked.first) > self.latency).then_some(&asked.peers)
    }

    pub(crate) fn measured(&mut self, latency: Duration) {
        self.latency = if self.latency.is_zero() { latency } else { (self.latency * 7 + latency) / 8 };
    }

    fn settle(&mut self, piece: PieceIndex) -> Option<Asked> {
        let asked = self.asked.remove(&piece)?;
        if asked.purpose == Purpose::Reader {
            self.reader_pieces -= 1;
        }
        Some(asked)
    }

    /// Where a missing piece stands, as `states.md` names it.
    #[cfg(test)]
    pub(crate) fn state_of(&self, piece: PieceIndex) -> &'static str {
        match () {
            () if self.asked.contains_key(&piece) => "asked",
            () if self.wanted.contains(piece) => "idle",
            () => "unwanted",
        }
    }

    /// Panics unless each missing piece is idle, asked for, or not wanted, and each reader piece is counted.
    #[cfg(test)]
    pub(crate) fn audit(&self, have: &Bitfield, config: &Config) {
        self.picker.audit();
        for piece in Bitfield::full(have.len()).iter() {
            let is_spare =
                !have.contains(piece) && !self.wanted.contains(piece) && !self.asked.contains_key(&piece);
            let (is_idle, is_asked) = (self.picker.is_idle(piece), self.asked.contains_key(&piece));
            let states = [have.contains(piece), is_idle, is_asked, is_spare];
            assert_eq!(states.iter().filter(|state| **state).count(), 1, "piece {piece}: {states:?}");
        }
        let readers = self.asked.values().filter(|asked| asked.purpose == Purpose::Reader);
        assert_eq!(readers.count(), self.reader_pieces);
        assert!(self.asked.values().all(|asked| (1..=1 + config.endgame_extra).contains(&asked.peers.len())));
    }
}
