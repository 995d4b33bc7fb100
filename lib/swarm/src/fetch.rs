//! What a swarm knows only while its blob is being fetched: who was asked for what, and which piece is next.
//!
//! Invariant: a missing piece is either idle in the picker or has at least one peer in `asked`, never both.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use shoal_core::{Bitfield, PeerId, PieceIndex};

use crate::config::Config;
use crate::event::{Moment, Priority};
use crate::finder::Finder;
use crate::picker::{Among, Picker};
use crate::readers::Readers;

#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) priority: Priority,
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
    pub(crate) fn new(now: Moment, have: &Bitfield, finder: Finder, priority: Priority) -> Self {
        Self {
            priority,
            picker: Picker::new(have),
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

    /// What to ask that peer for, which has `have`: a reader's next piece, else the rarest, else help with what others
    /// were asked for and a reader, or the end of the blob, waits for.
    pub(crate) fn choose(
        &self,
        now: Moment,
        (peer, source, need): (&PeerId, Source, Need),
        have: &Bitfield,
        config: &Config,
        rng: &mut impl Rng,
    ) -> Choice {
        if self.paused_until > now {
            return Choice::Nothing;
        }
        if self.picker.idle() == 0 {
            return self.choose_extra(
                now,
                peer,
                have,
                config,
                self.asked.iter().map(|(&piece, asked)| (piece, asked)),
            );
        }
        let among: &[Among] = match (source, need) {
            (Source::Near, _) => &[Among::All],
            (Source::Alone, _) | (Source::Shared, Need::Hungry) => &[Among::Unspread, Among::All],
            (Source::Shared, Need::Usual) => &[Among::Unspread],
        };
        let idle = among.iter().find_map(|&among| {
            let reader = || Some((self.choose_reader(have, among, source, config)?, Purpose::Reader));
            reader().or_else(|| Some((self.picker.pick(have, among, rng)?, Purpose::Rarity)))
        });
        match idle {
            Some((piece, purpose)) => Choice::Piece(piece, purpose),
            None => self.choose_hedge(now, peer, have, config),
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

    /// That peer is not asked for the piece any more. The piece is idle again if nobody else is.
    pub(crate) fn release(&mut self, peer: &PeerId, piece: PieceIndex) {
        let Some(asked) = self.asked.get_mut(&piece) else { return };
        asked.peers.retain(|other| other != peer);
        if asked.peers.is_empty() {
            self.settle(piece);
            self.picker.put_back(piece);
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
        self.readers.arrived(piece, have, config.reader_window);
        self.last_progress = now;
        self.store_failures = 0;
        self.settle(piece).map_or_else(Vec::new, |asked| asked.peers)
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

    /// Panics unless each missing piece is idle or asked for, and each reader piece is counted.
    #[cfg(test)]
    pub(crate) fn audit(&self, have: &Bitfield, config: &Config) {
        self.picker.audit();
        for piece in Bitfield::full(have.len()).iter() {
            let states = [have.contains(piece), self.picker.is_idle(piece), self.asked.contains_key(&piece)];
            assert_eq!(states.iter().filter(|state| **state).count(), 1, "piece {piece}: {states:?}");
        }
        let readers = self.asked.values().filter(|asked| asked.purpose == Purpose::Reader);
        assert_eq!(readers.count(), self.reader_pieces);
        assert!(self.asked.values().all(|asked| (1..=1 + config.endgame_extra).contains(&asked.peers.len())));
    }
}
