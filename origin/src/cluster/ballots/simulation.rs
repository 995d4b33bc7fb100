//! Origins that vote, clients that read and change one tag at any of them, and messages that are late, lost and out of order,
//! while origins are cut off from each other, die, and come back with what they had kept. What the clients saw must be
//! linearizable.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use shoal_control::cluster::message::{TagAcceptance, TagPromise};
use shoal_core::PeerId;

use super::*;
use crate::register::Register;

#[path = "../../../../tests/cluster/origins/linearizable.rs"]
mod linearizable;

use linearizable::{Answer, Event, Operation, check};

struct World {
    random: SmallRng,
    now: u64,
    registers: Vec<Register>,
    up: Vec<bool>,
    /// On which side of a cut each origin is.
    side: Vec<bool>,
    messages: Vec<Message>,
    clients: Vec<Option<Client>>,
    history: Vec<Event<Digest>>,
    written: u64,
    rounds: u64,
    /// Of a hundred messages between origins.
    lost: u32,
}

struct Message {
    client: usize,
    round: u64,
    place: usize,
    what: What,
}

#[derive(Clone)]
enum What {
    Tell,
    Promise(TagVersion),
    Accept(TagVote),
    Told(Option<TagVote>),
    Promised(TagPromise),
    Accepted(TagAcceptance),
}

/// A client that waits.
struct Client {
    at: usize,
    called: u64,
    operation: Operation<Digest>,
    change: Change,
    attempts: Vec<TagVersion>,
    beyond: TagVersion,
    ballots: u32,
    round: u64,
    phase: Phase,
    answers: usize,
}

enum Phase {
    Poll(Poll),
    Promises { ballot: TagVersion, votes: Vec<Option<TagVote>> },
    Votes { outcome: Outcome, yes: usize },
}

impl World {
    fn new(seed: u64, origins: usize, clients: usize, lost: u32) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            now: 0,
            registers: vec![Register::default(); origins],
            up: vec![true; origins],
            side: vec![true; origins],
            messages: Vec::new(),
            clients: (0..clients).map(|_| None).collect(),
            history: Vec::new(),
            written: 0,
            rounds: 0,
            lost,
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now += 1;
            let client = self.random.random_range(0..self.clients.len());
            match self.random.random_range(0..1000) {
                0..4 => self.crash(),
                4..24 => self.restart(),
                24..26 => self.cut(),
                26..34 if self.clients[client].is_some() => self.conclude(client),
                34..150 if self.clients[client].is_none() => self.call(client),
                _ => self.deliver(),
            }
        }
    }

    fn crash(&mut self) {
        let place = self.random.random_range(0..self.up.len());
        self.up[place] = false;
        self.messages.retain(|message| message.place != place);
        for client in 0..self.clients.len() {
            if self.clients[client].as_ref().is_some_and(|client| client.at == place) {
                self.give_up(client);
            }
        }
    }

    /// One origin changes sides, or all are on the same again.
    fn cut(&mut self) {
        let place = self.random.random_range(0..self.side.len());
        match self.random.random_range(0..3) {
            0 => self.side.fill(true),
            _ => self.side[place] = !self.side[place],
        }
    }

    fn restart(&mut self) {
        let place = self.random.random_range(0..self.up.len());
        self.up[place] = true;
    }

    fn call(&mut self, client: usize) {
        let at = self.random.random_range(0..self.up.len());
        if !self.up[at] {
            return;
        }
        let known = self.registers[self.random.random_range(0..self.registers.len())].digest();
        let operation = match self.random.random_range(0..10) {
            0..4 => Operation::Read,
            4..6 => Operation::Put(self.value()),
            6 => Operation::Delete,
            _ => Operation::Swap { from: known, to: self.value() },
        };
        self.begin(client, at, operation);
    }

    fn value(&mut self) -> Digest {
        self.written += 1;
        Digest::sha256(&self.written.to_be_bytes())
    }

    fn begin(&mut self, client: usize, at: usize, operation: Operation<Digest>) {
        let change = match &operation {
            Operation::Read => Change::Keep,
            Operation::Put(digest) => {
                Change::Write { digest: Some(*digest), expected: TagExpectation::anything() }
            }
            Operation::Delete => Change::Write { digest: None, expected: TagExpectation::something() },
            Operation::Swap { from, to } => {
                let expected =
                    from.map_or_else(TagExpectation::nothing, |from| TagExpectation::one_of([from]));
                Change::Write { digest: Some(*to), expected }
            }
        };
        self.clients[client] = Some(Client {
            at,
            called: self.now,
            operation,
            change,
            attempts: Vec::new(),
            beyond: TagVersion::default(),
            ballots: 6,
            round: 0,
            phase: Phase::Poll(Poll::of(self.registers.len())),
            answers: 0,
        });
        self.ask_all(client, &What::Tell);
    }

    fn ask_all(&mut self, client: usize, what: &What) {
        self.rounds += 1;
        let asking = self.clients[client].as_mut().unwrap();
        (asking.round, asking.answers) = (self.rounds, 0);
        for place in 0..self.registers.len() {
            let what = what.clone();
            self.messages.push(Message { client, round: self.rounds, place, what });
        }
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let Message { client, round, place, what } =
            self.messages.swap_remove(self.random.random_range(0..self.messages.len()));
        let Some(at) = self.clients[client].as_ref().map(|asking| asking.at) else { return };
        let is_lost = self.side[at] != self.side[place] || self.random.random_range(0..100) < self.lost;
        if !self.up[place] || (at != place && is_lost) {
            return;
        }
        let register = &mut self.registers[place];
        let reply = match what {
            What::Tell => What::Told(register.vote.clone()),
            What::Promise(ballot) => What::Promised(register.promise(ballot)),
            What::Accept(vote) => What::Accepted(register.accept(&vote)),
            reply => return self.hear(client, round, reply),
        };
        self.messages.push(Message { client, round, place, what: reply });
    }

    fn hear(&mut self, client: usize, round: u64, reply: What) {
        let majority = majority(self.registers.len());
        let Some(asking) = self.clients[client].as_mut().filter(|asking| asking.round == round) else {
            return;
        };
        asking.answers += 1;
        let mut done = asking.answers == self.registers.len();
        match (&mut asking.phase, reply) {
            (Phase::Poll(poll), What::Told(vote)) => {
                poll.add(vote);
                done |= poll.agreed().is_some();
            }
            (Phase::Promises { votes, .. }, What::Promised(TagPromise::Promised(vote))) => {
                votes.push(vote);
                done |= votes.len() >= majority;
            }
            (Phase::Votes { yes, .. }, What::Accepted(TagAcceptance::Accepted)) => {
                *yes += 1;
                done |= *yes >= majority;
            }
            (
                _,
                What::Promised(TagPromise::Refused(promised))
                | What::Accepted(TagAcceptance::Refused(promised)),
            ) => {
                asking.beyond = asking.beyond.max(promised);
            }
            _ => unreachable!("an answer to another question"),
        }
        if done {
            self.conclude(client);
        }
    }

    /// No more answers are waited for.
    fn conclude(&mut self, client: usize) {
        let majority = majority(self.registers.len());
        let asking = self.clients[client].as_mut().unwrap();
        match &asking.phase {
            Phase::Poll(poll) => match poll.agreed() {
                Some(vote) if matches!(asking.change, Change::Keep) => {
                    let named = vote.as_ref().and_then(|vote| vote.value.digest);
                    self.end(client, &Outcome::Kept(named));
                }
                _ if poll.is_majority() => self.hold_ballot(client),
                _ => self.give_up(client),
            },
            Phase::Promises { votes, .. } if votes.len() < majority => self.hold_ballot(client),
            Phase::Promises { ballot, votes } => {
                let ballot = *ballot;
                match step(newest(votes), ballot, &asking.attempts, &asking.change) {
                    Step::Vote { value, outcome } => {
                        if value.version == ballot {
                            asking.attempts.push(ballot);
                        }
                        asking.phase = Phase::Votes { outcome, yes: 0 };
                        self.ask_all(client, &What::Accept(TagVote { ballot, value }));
                    }
                    Step::End(outcome) => self.end(client, &outcome),
                    Step::Lost => self.give_up(client),
                }
            }
            Phase::Votes { yes, .. } if *yes < majority => self.hold_ballot(client),
            Phase::Votes { outcome, .. } => {
                let outcome = outcome.clone();
                self.end(client, &outcome);
            }
        }
    }

    fn hold_ballot(&mut self, client: usize) {
        let asking = self.clients[client].as_mut().unwrap();
        if asking.ballots == 0 {
            return self.give_up(client);
        }
        asking.ballots -= 1;
        // Clocks that differ, and go back.
        let clock = self.now + self.random.random_range(0..50);
        let by = Some(PeerId::from_public_key([asking.at as u8 + 1; 32]));
        let own = &mut self.registers[asking.at];
        let mut ballot = TagVersion { stamp: clock.max(asking.beyond.stamp + 1), by };
        let vote = loop {
            match own.promise(ballot) {
                TagPromise::Promised(vote) => break vote,
                TagPromise::Refused(promised) => ballot.stamp = promised.stamp + 1,
            }
        };
        let at = asking.at;
        asking.phase = Phase::Promises { ballot, votes: vec![vote] };
        self.ask_all(client, &What::Promise(ballot));
        self.messages.retain(|message| {
            message.place != at || !matches!(message.what, What::Promise(asked) if asked == ballot)
        });
        self.clients[client].as_mut().unwrap().answers = 1;
    }

    fn give_up(&mut self, client: usize) {
        let Client { called, operation, attempts, .. } = self.clients[client].take().unwrap();
        if !attempts.is_empty() {
            self.history.push(Event { called, answered: 0, operation, answer: Answer::Lost });
        }
    }

    fn end(&mut self, client: usize, outcome: &Outcome) {
        let Client { called, operation, .. } = self.clients[client].take().unwrap();
        let answer = match outcome {
            Outcome::Kept(named) => Answer::Names(*named),
            Outcome::Written => Answer::Done,
            Outcome::Moved(_) => Answer::Refused,
        };
        self.history.push(Event { called, answered: self.now, operation, answer });
    }

    /// Everything works again, and each origin is asked.
    fn finish(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].is_some() {
                self.give_up(client);
            }
        }
        (self.lost, self.up) = (0, vec![true; self.up.len()]);
        self.side.fill(true);
        self.messages.clear();
        for at in 0..self.up.len() {
            self.begin(0, at, Operation::Read);
            while self.clients[0].is_some() {
                self.now += 1;
                self.deliver();
            }
        }
    }
}

#[test]
fn what_clients_see_of_a_tag_is_linearizable_whatever_is_lost() {
    let runs = std::env::var("ROUNDS").map_or(300, |rounds| rounds.parse().unwrap());
    let first: u64 = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let (mut answered, mut lost) = (0, 0);
    for run in 0..runs {
        let seed = first.wrapping_add(run);
        let (origins, losses) = ([3, 5, 4, 2][run as usize % 4], [0, 5, 30][run as usize % 3]);
        let mut world = World::new(seed, origins, 6, losses);
        world.run(2500);
        world.finish();
        let history = &world.history;
        let is_lost = history.iter().filter(|event| event.answer == Answer::Lost).count();
        (answered, lost) = (answered + history.len() - is_lost, lost + is_lost);
        let checked = check(None, history);
        assert_eq!(checked, Ok(()), "SEED={seed}: {origins} origins: {history:#?}");
        let named: Vec<_> = history[history.len() - origins..].iter().map(|event| &event.answer).collect();
        assert!(named.windows(2).all(|pair| pair[0] == pair[1]), "SEED={seed}: {named:?}");
    }
    assert!(answered > 10 * runs as usize && lost > 0, "{answered} answered, {lost} lost: nothing was tried");
}
