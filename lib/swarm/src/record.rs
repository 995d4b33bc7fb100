//! What an engine was told, as lines of JSON, and the same engine told it again.
//!
//! A record is a [`Start`] (seed and configuration), then a [`Step`] for each event and timeout, then an [`End`]. As the
//! engine is pure, that is all there is to know. Actions are not written: each line carries how many there were so far
//! and a checksum over them, by which [`Replay`] proves that it did the same. Files are the business of others.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_core::{Digest, PeerId, Zone};

use crate::config::Config;
use crate::engine::Engine;
use crate::event::{Action, Event, EventError, Moment};

/// The format of the lines that are written. A record of a later version is refused.
pub const VERSION: u32 = 2;

/// The first format. It knows no scope: all of a blob was fetched.
const FIRST_VERSION: u32 = 1;

/// No line is longer, in bytes: the largest bitfield takes 16 KiB, a thousand candidates 150 KiB.
pub const MAX_LINE: usize = 4 << 20;

/// One line of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first.
    Start(Box<Start>),
    /// Something happened.
    Step(Step),
    /// The last.
    End(End),
}

/// What an engine starts with, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// [`VERSION`] of who wrote it.
    pub record: u32,
    /// Name and version of the program.
    pub software: String,
    /// The node.
    pub node: PeerId,
    /// The wall clock at the engine's first moment: milliseconds since 1970.
    pub unix_ms: u64,
    /// Of [`Engine::new`].
    pub zone: Zone,
    /// Of [`Engine::new`].
    pub seed: u64,
    /// Of [`Engine::new`].
    pub config: Config,
}

/// One call of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Moment,
    /// What the engine had done before.
    pub before: Progress,
    /// What it was told.
    pub input: Input,
}

/// What an engine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// [`Engine::handle`].
    Event(Event),
    /// [`Engine::handle_timeout`].
    Timeout,
}

/// The end of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// What the engine had done until then.
    #[serde(flatten)]
    pub before: Progress,
}

/// Why a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The node was stopped.
    Stopped,
    /// The record has the size that it may have; the node went on.
    Full,
    /// Events came faster than they could be written; the node went on.
    Overrun,
}

/// What an engine has done: how many actions were taken from it, and a checksum over them in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How many.
    pub actions: u64,
    checksum: Checksum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Checksum(u64);

/// A line that is none.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is longer than any line that is written.
    #[error("it has {0} bytes, at most {MAX_LINE} are possible")]
    TooLong(usize),
    /// It is no JSON, or not with the fields that its event has.
    #[error("it is no line of a record: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another format.
    #[error(
        "the record has format {0}, this program reads {FIRST_VERSION} to {VERSION}: use the one that wrote it"
    )]
    Version(u32),
}

/// An engine did otherwise than the record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "until here {recorded} were recorded and {replayed} replayed: the engine of this program decides otherwise than the \
     one that was recorded, or the record was changed"
)]
pub struct Mismatch {
    recorded: Progress,
    replayed: Progress,
}

/// An engine that is told again what a record says.
#[derive(Debug)]
pub struct Replay {
    engine: Engine,
    progress: Progress,
}

impl Line {
    /// The line, without its end.
    #[must_use]
    pub fn encode(&self) -> String {
        let line = match self {
            Self::Start(start) => serde_json::to_string(&Named { event: START, line: start }),
            Self::End(end) => serde_json::to_string(&Named { event: END, line: end }),
            Self::Step(Step { at, before, input: Input::Timeout }) => serde_json::to_string(&Named {
                event: TIMEOUT,
                line: Timed { at_ns: nanos(*at), what: before },
            }),
            Self::Step(Step { at, before, input: Input::Event(event) }) => {
                let what = Told { event, before: *before };
                serde_json::to_string(&Timed { at_ns: nanos(*at), what })
            }
        };
        line.expect("a line has no map with other keys than strings")
    }

    /// Reads what [`Line::encode`] gives.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        if line.len() > MAX_LINE {
            return Err(DecodeError::TooLong(line.len()));
        }
        let Name { event, record } = serde_json::from_str(line)?;
        match event.as_str() {
            START if !record.is_some_and(|record| (FIRST_VERSION..=VERSION).contains(&record)) => {
                Err(DecodeError::Version(record.unwrap_or(0)))
            }
            START => Ok(Self::Start(serde_json::from_str::<Named<String, _>>(line)?.line)),
            END => Ok(Self::End(serde_json::from_str::<Named<String, _>>(line)?.line)),
            TIMEOUT => {
                let Timed { at_ns, what: before } = serde_json::from_str(line)?;
                Ok(Self::Step(Step { at: moment(at_ns), before, input: Input::Timeout }))
            }
            _ => {
                let Timed { at_ns, what: Told { before, event } } = serde_json::from_str(line)?;
                Ok(Self::Step(Step { at: moment(at_ns), before, input: Input::Event(event) }))
            }
        }
    }
}

impl Start {
    /// The engine as it was in the beginning.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine::new(self.config.clone(), self.zone.clone(), self.seed)
    }
}

impl Progress {
    /// One action more.
    pub fn add(&mut self, action: &Action) {
        let action = serde_json::to_vec(action).expect("an action has no map with other keys than strings");
        let chained = [self.checksum.0.to_be_bytes().as_slice(), &action].concat();
        let digest = Digest::sha256(&chained);
        let (head, _) = digest.as_bytes().split_first_chunk().expect("SHA-256 has 32 bytes");
        self.checksum = Checksum(u64::from_be_bytes(*head));
        self.actions += 1;
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} actions with checksum {}", self.actions, String::from(self.checksum))
    }
}

impl Replay {
    /// The engine as it was in the beginning.
    #[must_use]
    pub fn new(start: &Start) -> Self {
        Self { engine: start.engine(), progress: Progress::default() }
    }

    /// What was done until the record's next line, which says that it was `before`.
    pub fn actions(&mut self, before: Progress) -> Result<Vec<Action>, Mismatch> {
        let mut actions = Vec::new();
        while self.progress.actions < before.actions
            && let Some(action) = self.engine.poll()
        {
            self.progress.add(&action);
            actions.push(action);
        }
        if self.progress == before {
            Ok(actions)
        } else {
            Err(Mismatch { recorded: before, replayed: self.progress })
        }
    }

    /// What is left to do after the last step, where no line says how much of it was done.
    pub fn rest(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.engine.poll()).inspect(|action| self.progress.add(action)).collect()
    }

    /// Tells the engine what comes next. What it did before was taken by [`Replay::actions`]. An error is the engine's:
    /// it refused the event then, too.
    pub fn tell(&mut self, at: Moment, input: Input) -> Result<(), EventError> {
        match input {
            Input::Event(event) => self.engine.handle(at, event),
            Input::Timeout => {
                self.engine.handle_timeout(at);
                Ok(())
            }
        }
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        format!("{:016x}", checksum.0)
    }
}

impl TryFrom<String> for Checksum {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self).map_err(|_| "a checksum is 16 hexadecimal digits")
    }
}

const START: &str = "start";
const TIMEOUT: &str = "timeout";
const END: &str = "end";

/// What tells the kinds of lines apart.
#[derive(Deserialize)]
struct Name {
    event: String,
    record: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct Named<Event, Line> {
    event: Event,
    #[serde(flatten)]
    line: Line,
}

#[derive(Serialize, Deserialize)]
struct Timed<What> {
    at_ns: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize, Deserialize)]
struct Told<Event> {
    #[serde(flatten)]
    event: Event,
    #[serde(flatten)]
    before: Progress,
}

/// Exactly, since the engine compares moments; 64 bits last for 584 years.
fn nanos(at: Moment) -> u64 {
    u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX)
}

fn moment(at_ns: u64) -> Moment {
    Moment(Duration::from_nanos(at_ns))
}
