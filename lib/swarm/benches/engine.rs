//! What an event costs: `cargo bench -p shoal-swarm`. Items a second are events.
//!
//! An engine fetches a blob of 4,096 pieces among peers that have a half of it each, tell of more as they go, and ask for
//! what the engine has. Everything that comes in counts as an event; the actions are taken out in the same time.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set itself up has failed")]

use std::collections::VecDeque;
use std::time::Duration;

use divan::counter::ItemsCount;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Role, Zone};
use shoal_swarm::{Action, Candidate, Config, Engine, Event, Message, Moment, PieceOutcome, Priority, Scope};

const PIECES: u32 = 4096;

fn main() {
    divan::main();
}

/// A fetch from its first event to its last, and what its peers answer.
struct Exchange {
    engine: Engine,
    digest: Digest,
    /// Who has everything.
    seed: PeerId,
    connected: Vec<PeerId>,
    chance: SmallRng,
    now: Moment,
    /// What will happen next, in order.
    coming: VecDeque<Event>,
    events: u64,
    complete: bool,
}

impl Exchange {
    fn begin(peers: u8) -> Self {
        let count = usize::from(peers);
        let config = Config { max_peers_per_swarm: count, ..Config::default() };
        let peers: Vec<PeerId> = (1..=peers).map(|number| PeerId::from_public_key([number; 32])).collect();
        let candidate = |&peer| Candidate { peer, role: Role::Agent, zone: Zone::default() };
        let digest = Digest::sha256(b"blob");
        let fetch = Event::Fetch {
            digest,
            geometry: Geometry::for_blob(u64::from(PIECES) << 20).unwrap(),
            have: Bitfield::empty(PIECES),
            candidates: peers.iter().map(candidate).collect(),
            priority: Priority::Reader,
            scope: Scope::All,
        };
        Self {
            engine: Engine::new(config, Zone::default(), 1),
            digest,
            seed: peers[0],
            connected: vec![],
            chance: SmallRng::seed_from_u64(1),
            now: Moment::default(),
            coming: [fetch].into(),
            events: 0,
            complete: false,
        }
    }

    /// Until the blob is whole. How many events it took.
    fn run(&mut self) -> u64 {
        while !self.complete {
            match self.coming.pop_front() {
                Some(event) => self.tell(event),
                None => self.wait(),
            }
            while let Some(action) = self.engine.poll() {
                self.answer(&action);
            }
        }
        self.events
    }

    fn tell(&mut self, event: Event) {
        // As fast as pieces of 1 MiB come at 1 GB/s.
        self.now.0 += Duration::from_millis(1);
        if self.engine.next_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now);
        }
        let received = matches!(event, Event::Received { .. });
        if let Event::Connected { peer, .. } = event {
            self.connected.push(peer);
        }
        self.engine.handle(self.now, event).unwrap();
        self.events += 1;
        if received {
            self.chat();
        }
    }

    /// Each piece comes with news of another, and a request for one.
    fn chat(&mut self) {
        let (digest, piece) = (self.digest, PieceIndex(self.chance.random_range(0..PIECES)));
        self.say(Message::Have { digest, pieces: vec![piece] });
        let piece = PieceIndex(self.chance.random_range(0..PIECES));
        self.say(Message::Request { digest, piece, priority: Priority::Prefetch });
    }

    fn say(&mut self, message: Message) {
        let peer = self.connected[self.chance.random_range(0..self.connected.len())];
        self.coming.push_back(Event::Message { peer, message });
    }

    fn wait(&mut self) {
        self.now = self
            .engine
            .next_timeout()
            .expect("a fetch that is not complete waits for something")
            .max(self.now);
        self.engine.handle_timeout(self.now);
        self.events += 1;
    }

    fn answer(&mut self, action: &Action) {
        let event = match *action {
            Action::Connect { peer } => {
                // One has everything, so that it ends.
                let have = if peer == self.seed { Bitfield::full(PIECES) } else { self.half() };
                let connected = Event::Connected { peer, role: Role::Agent, zone: Zone::default() };
                self.coming.push_back(connected);
                Event::Message { peer, message: Message::Join { digest: self.digest, have } }
            }
            Action::Send { peer, message: Message::Request { digest, piece, .. } } => {
                Event::Received { peer, digest, piece, outcome: PieceOutcome::Good }
            }
            Action::Upload { peer, digest, piece, .. } => Event::Uploaded { peer, digest, piece },
            Action::Complete { .. } => {
                self.complete = true;
                return;
            }
            _ => return,
        };
        self.coming.push_back(event);
    }

    fn half(&mut self) -> Bitfield {
        let mut have = Bitfield::empty(PIECES);
        for piece in 0..PIECES {
            if self.chance.random() {
                have.insert(PieceIndex(piece));
            }
        }
        have
    }
}

#[divan::bench(args = [10, 50, 200], sample_count = 20)]
fn exchange(bencher: divan::Bencher<'_, '_>, peers: u8) {
    let events = Exchange::begin(peers).run();
    bencher
        .counter(ItemsCount::new(events))
        .with_inputs(|| Exchange::begin(peers))
        .bench_local_values(|mut exchange| exchange.run());
}
