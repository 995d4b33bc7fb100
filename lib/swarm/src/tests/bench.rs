//! One engine, a script of events, and a clock that is turned by hand. Every step is audited.

use std::time::Duration;

use shoal_core::{Bitfield, PieceIndex, Role, Zone};

use super::{blob, candidate, peer, pieces};
use crate::{Action, Config, Engine, Event, EventError, Message, Moment, PieceOutcome, Priority, Scope};

pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) now: Moment,
    /// Pieces of blob 0.
    pub(super) count: u32,
}

impl Bench {
    pub(super) fn new(config: Config, count: u32) -> Self {
        Self { engine: Engine::new(config, Zone::default(), 7), now: Moment::default(), count }
    }

    pub(super) fn try_event(&mut self, event: Event) -> Result<Vec<Action>, EventError> {
        self.engine.handle(self.now, event)?;
        self.engine.audit();
        Ok(self.actions())
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Action> {
        self.try_event(event).unwrap()
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.engine.poll()).collect()
    }

    /// Turns the clock, stopping at each timeout on the way.
    pub(super) fn advance(&mut self, wait: Duration) -> Vec<Action> {
        let end = self.now.after(wait);
        let mut actions = Vec::new();
        while let Some(next) = self.engine.next_timeout().filter(|&next| next <= end) {
            self.now = next.max(self.now);
            self.engine.handle_timeout(self.now);
            self.engine.audit();
            assert!(self.engine.next_timeout().is_none_or(|next| next > self.now), "the driver would spin");
            actions.extend(self.actions());
        }
        self.now = end;
        actions
    }

    pub(super) fn millis(&mut self, millis: u64) -> Vec<Action> {
        self.advance(Duration::from_millis(millis))
    }

    /// Fetches blob 0, with these candidates.
    pub(super) fn fetch(&mut self, have: Bitfield, candidates: &[(u8, Role)]) -> Vec<Action> {
        self.fetch_in(Scope::All, have, candidates)
    }

    pub(super) fn fetch_in(
        &mut self,
        scope: Scope,
        have: Bitfield,
        candidates: &[(u8, Role)],
    ) -> Vec<Action> {
        let candidates = candidates.iter().map(|&(number, role)| candidate(number, role)).collect();
        let geometry = pieces(u64::from(self.count));
        self.event(Event::Fetch {
            digest: blob(0),
            geometry,
            have,
            candidates,
            priority: Priority::Reader,
            scope,
        })
    }

    pub(super) fn seed(&mut self, have: Bitfield) -> Vec<Action> {
        let geometry = pieces(u64::from(self.count));
        self.event(Event::Seed { digest: blob(0), geometry, have })
    }

    pub(super) fn connect(&mut self, number: u8, role: Role) -> Vec<Action> {
        self.event(Event::Connected { peer: peer(number), role, zone: Zone::default() })
    }

    pub(super) fn say(&mut self, number: u8, message: Message) -> Vec<Action> {
        self.event(Event::Message { peer: peer(number), message })
    }

    pub(super) fn join(&mut self, number: u8, have: Bitfield) -> Vec<Action> {
        self.say(number, Message::Join { digest: blob(0), have })
    }

    /// Connects that peer, which joins blob 0 with these pieces.
    pub(super) fn member(&mut self, number: u8, role: Role, have: Bitfield) -> Vec<Action> {
        let mut actions = self.connect(number, role);
        actions.extend(self.join(number, have));
        actions
    }

    pub(super) fn receive(&mut self, number: u8, piece: u32, outcome: PieceOutcome) -> Vec<Action> {
        self.event(Event::Received { peer: peer(number), digest: blob(0), piece: PieceIndex(piece), outcome })
    }

    pub(super) fn good(&mut self, number: u8, piece: u32) -> Vec<Action> {
        self.receive(number, piece, PieceOutcome::Good)
    }
}

/// Which pieces of blob 0 are asked of that peer.
pub(super) fn requests(actions: &[Action], number: u8) -> Vec<u32> {
    messages(actions, number)
        .filter_map(|message| match message {
            Message::Request { piece, .. } => Some(piece.0),
            _ => None,
        })
        .collect()
}

/// Which requests are cancelled at that peer.
pub(super) fn cancels(actions: &[Action], number: u8) -> Vec<u32> {
    messages(actions, number)
        .filter_map(|message| match message {
            Message::Cancel { piece, .. } => Some(piece.0),
            _ => None,
        })
        .collect()
}

/// What is said to that peer.
pub(super) fn messages(actions: &[Action], number: u8) -> impl Iterator<Item = &Message> {
    actions.iter().filter_map(move |action| match action {
        Action::Send { peer: to, message } if *to == peer(number) => Some(message),
        _ => None,
    })
}
