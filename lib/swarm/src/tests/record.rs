//! A record says all that an engine was told, and the same engine does the same again.

use std::time::Duration;

use proptest::prelude::*;
use shoal_core::{Bitfield, PieceIndex, Role, Zone};

use super::hostile::{event, tight};
use super::{blob, candidate, peer, pieces};
use crate::record::{
    DecodeError, End, EndReason, Input, Line, Mismatch, Progress, Replay, Start, Step, VERSION,
};
use crate::{Action, Config, Engine, Event, Message, Moment, Priority, Scope};

const SEED: u64 = u64::MAX - 1;

/// An engine of which everything is written down, as a driver does it.
struct Recorded {
    engine: Engine,
    progress: Progress,
    now: Moment,
    lines: Vec<String>,
    actions: Vec<Action>,
}

impl Recorded {
    fn new(config: Config) -> Self {
        let start = Start {
            record: VERSION,
            software: "test".into(),
            node: peer(0),
            unix_ms: 1_700_000_000_000,
            zone: Zone("rack".into()),
            seed: SEED,
            config,
        };
        let lines = vec![Line::Start(Box::new(start.clone())).encode()];
        let engine = start.engine();
        Self { engine, progress: Progress::default(), now: Moment::default(), lines, actions: Vec::new() }
    }

    fn note(&mut self, input: Input) {
        self.lines.push(Line::Step(Step { at: self.now, before: self.progress, input }).encode());
    }

    fn tell(&mut self, event: Event) {
        self.note(Input::Event(event.clone()));
        let _ = self.engine.handle(self.now, event);
    }

    fn take(&mut self, most: usize) {
        for _ in 0..most {
            let Some(action) = self.engine.poll() else { break };
            self.progress.add(&action);
            self.actions.push(action);
        }
    }

    fn wait(&mut self, wait: Duration) {
        self.now = self.now.after(wait);
        if self.engine.next_timeout().is_some_and(|next| next <= self.now) {
            self.note(Input::Timeout);
            self.engine.handle_timeout(self.now);
        }
    }

    fn end(mut self) -> (Vec<String>, Vec<Action>) {
        self.take(usize::MAX);
        self.lines.push(Line::End(End { reason: EndReason::Stopped, before: self.progress }).encode());
        (self.lines, self.actions)
    }
}

/// All that the lines make an engine do, or the number of the line (from 1) at which it differs.
fn replay(lines: &[String]) -> Result<Vec<Action>, (usize, Mismatch)> {
    let Ok(Line::Start(start)) = Line::decode(&lines[0]) else { panic!("no start: {}", lines[0]) };
    let mut replay = Replay::new(&start);
    let mut actions = Vec::new();
    for (at, line) in lines.iter().enumerate().skip(1) {
        let mut take = |replay: &mut Replay, before| -> Result<(), (usize, Mismatch)> {
            actions.extend(replay.actions(before).map_err(|mismatch| (at + 1, mismatch))?);
            Ok(())
        };
        match Line::decode(line).unwrap() {
            Line::Step(step) => {
                take(&mut replay, step.before)?;
                let _ = replay.tell(step.at, step.input);
            }
            Line::End(end) => take(&mut replay, end.before)?,
            Line::Start(_) => panic!("a second start"),
        }
    }
    assert_eq!(replay.rest(), []);
    Ok(actions)
}

#[test]
fn the_priority_of_an_upload_is_in_no_checksum() {
    let progress = |priority| {
        let mut progress = Progress::default();
        progress.add(&Action::Upload { peer: peer(1), digest: blob(0), piece: PieceIndex(0), priority });
        progress
    };
    assert_eq!(progress(Priority::Reader), progress(Priority::Repair));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the driver takes turns between events and actions.
    #[test]
    fn a_replay_does_what_was_done(
        steps in prop::collection::vec(
            (event(), 0..20usize, prop_oneof![5 => Just(0u64), 3 => 1..500_000u64, 1 => 500_000..30_000_000u64]),
            0..100,
        ),
        small: bool,
    ) {
        let mut recorded = Recorded::new(if small { tight() } else { Config::default() });
        for (event, take, wait_us) in steps {
            recorded.tell(event);
            recorded.take(take);
            recorded.wait(Duration::from_micros(wait_us));
        }
        let (lines, actions) = recorded.end();
        prop_assert_eq!(replay(&lines).unwrap(), actions);
    }

    #[test]
    fn a_line_reads_as_it_was_written(event in event(), at_ns: u64) {
        let at = Moment(Duration::from_nanos(at_ns));
        let mut before = Progress::default();
        before.add(&Action::Connect { peer: peer(3) });
        for input in [Input::Event(event), Input::Timeout] {
            let line = Line::Step(Step { at, before, input });
            prop_assert!(!line.encode().contains('\n'));
            prop_assert_eq!(Line::decode(&line.encode()).unwrap(), line);
        }
    }

    #[test]
    fn garbage_is_an_error(line: String) {
        prop_assert!(Line::decode(&line).is_err());
    }
}

fn session() -> (Vec<String>, Vec<Action>) {
    let mut recorded = Recorded::new(Config::default());
    let (digest, geometry) = (blob(0), pieces(40));
    let candidates = vec![candidate(1, Role::Agent), candidate(2, Role::Origin)];
    recorded.tell(Event::Fetch {
        digest,
        geometry,
        have: Bitfield::empty(40),
        candidates,
        priority: Priority::Reader,
        scope: Scope::All,
    });
    for number in [1, 2] {
        recorded.tell(Event::Connected { peer: peer(number), role: Role::Agent, zone: Zone::default() });
        let message = Message::Join { digest, have: Bitfield::full(40) };
        recorded.tell(Event::Message { peer: peer(number), message });
        recorded.take(usize::MAX);
    }
    recorded.end()
}

#[test]
fn a_line_is_one_object_with_a_name_and_a_time() {
    let step = Step {
        at: Moment(Duration::from_millis(1500)),
        before: Progress::default(),
        input: Input::Event(Event::Message {
            peer: peer(0),
            message: Message::Have { digest: blob(0), pieces: vec![PieceIndex(7)] },
        }),
    };
    let expected = format!(
        r#"{{"at_ns":1500000000,"event":"message","peer":"{}","message":{{"kind":"have","digest":"{}","pieces":[7]}},"actions":0,"checksum":"0000000000000000"}}"#,
        peer(0),
        blob(0),
    );
    assert_eq!(Line::Step(step).encode(), expected);
}

#[test]
fn an_engine_that_decides_otherwise_is_found_out_at_the_line() {
    let (lines, actions) = session();
    assert!(actions.iter().filter(|action| matches!(action, Action::Send { .. })).count() > 8);
    assert_eq!(replay(&lines).unwrap(), actions);

    // Another seed asks for other pieces; the first of them is in the checksum of the line after the first Join.
    let mut other = lines.clone();
    other[0] = lines[0].replace(&SEED.to_string(), "1");
    assert_ne!(other[0], lines[0]);
    assert_eq!(replay(&other).unwrap_err().0, 5);

    // A line that is missing changes what follows.
    let mut short = lines;
    short.remove(2);
    assert!(replay(&short).is_err());
}

#[test]
fn a_record_of_the_first_format_is_replayed() {
    let (mut lines, actions) = session();
    let read_ahead = format!(r#""read_ahead":{},"#, Config::default().read_ahead);
    for (line, from, to) in
        [(0, r#""record":2"#, r#""record":1"#), (0, read_ahead.as_str(), ""), (1, r#","scope":"all""#, "")]
    {
        assert!(lines[line].contains(from), "{}", lines[line]);
        lines[line] = lines[line].replace(from, to);
    }
    assert_eq!(replay(&lines).unwrap(), actions);
}

#[test]
fn what_cannot_be_replayed_is_refused_by_its_reason() {
    let (lines, _) = session();
    let future = lines[0].replace(r#""record":2"#, r#""record":3"#);
    assert!(matches!(Line::decode(&future), Err(DecodeError::Version(3))));
    let message = Line::decode(&lines[1].replace(r#""geometry""#, r#""geology""#)).unwrap_err().to_string();
    assert!(message.contains("geometry"), "{message}");
    let message = Line::decode(&lines[1].replace("40:none", "40:zz")).unwrap_err().to_string();
    assert!(message.contains("a bitfield is written"), "{message}");
    let long = format!("{}{}", lines[1], " ".repeat(crate::record::MAX_LINE));
    assert!(matches!(Line::decode(&long), Err(DecodeError::TooLong(_))));
}
