use std::io::Write as _;

use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Role, Zone};
use shoal_swarm::record::{End, EndReason, Input, VERSION};
use shoal_swarm::{Action, Candidate, Config, Engine, Event, Message, PieceOutcome, Priority, Scope};
use tempfile::NamedTempFile;

use super::*;

const COUNT: u32 = 20;

/// An engine of which everything is written down.
struct Recorded {
    engine: Engine,
    progress: Progress,
    now: Duration,
    text: String,
}

impl Recorded {
    fn new() -> Self {
        let start = Start {
            record: VERSION,
            software: "shoal/test".into(),
            node: peer(0),
            unix_ms: 1_700_000_000_000,
            zone: Zone::default(),
            seed: 5,
            config: Config::default(),
        };
        let text = Line::Start(Box::new(start.clone())).encode() + "\n";
        Self { engine: start.engine(), progress: Progress::default(), now: Duration::ZERO, text }
    }

    fn line(&mut self, input: Input) {
        let step = Step { at: Moment(self.now), before: self.progress, input };
        self.text += &(Line::Step(step).encode() + "\n");
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.line(Input::Event(event.clone()));
        self.engine.handle(Moment(self.now), event).unwrap();
        self.actions()
    }

    fn say(&mut self, from: u8, message: Message) -> Vec<Action> {
        self.tell(Event::Message { peer: peer(from), message })
    }

    fn receive(&mut self, from: u8, piece: PieceIndex, outcome: PieceOutcome) -> Vec<Action> {
        self.tell(Event::Received { peer: peer(from), digest: blob(), piece, outcome })
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions: Vec<_> = std::iter::from_fn(|| self.engine.poll()).collect();
        actions.iter().for_each(|action| self.progress.add(action));
        actions
    }

    /// Lets time pass, and says what was done at the timeouts on the way.
    fn wait(&mut self, wait: Duration) -> Vec<Action> {
        let end = self.now + wait;
        let mut actions = Vec::new();
        while let Some(next) = self.engine.next_timeout().filter(|next| next.0 <= end) {
            self.now = self.now.max(next.0);
            self.line(Input::Timeout);
            self.engine.handle_timeout(Moment(self.now));
            actions.extend(self.actions());
        }
        self.now = end;
        actions
    }

    fn end(mut self) -> String {
        self.text += &(Line::End(End { reason: EndReason::Stopped, before: self.progress }).encode() + "\n");
        self.text
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::from_public_key([number; 32])
}

fn blob() -> Digest {
    Digest::sha256(b"blob")
}

fn asked(actions: &[Action], of: u8) -> Vec<PieceIndex> {
    let asked = actions.iter().filter_map(|action| match action {
        Action::Send { peer: to, message: Message::Request { piece, .. } } if *to == peer(of) => Some(*piece),
        _ => None,
    });
    asked.collect()
}

/// A fetch from an agent that falls silent after a piece, and an origin that brings the rest.
fn session() -> Recorded {
    let mut recorded = Recorded::new();
    let geometry = Geometry::for_blob(u64::from(COUNT) << 20).unwrap();
    let candidate = |number, role| Candidate { peer: peer(number), role, zone: Zone::default() };
    let candidates = vec![candidate(1, Role::Agent), candidate(2, Role::Origin)];
    recorded.tell(Event::Fetch {
        digest: blob(),
        geometry,
        have: Bitfield::empty(COUNT),
        candidates,
        priority: Priority::Reader,
        scope: Scope::All,
    });
    recorded.tell(Event::Connected { peer: peer(1), role: Role::Agent, zone: Zone::default() });
    let join = Message::Join { digest: blob(), have: Bitfield::full(COUNT) };
    let first = asked(&recorded.say(1, join.clone()), 1);
    recorded.wait(Duration::from_millis(100));
    recorded.receive(1, first[0], PieceOutcome::Good);
    recorded.wait(Duration::from_secs(30));

    recorded.tell(Event::Connected { peer: peer(2), role: Role::Origin, zone: Zone::default() });
    let mut asked_origin = asked(&recorded.say(2, join), 2);
    while let Some(piece) = asked_origin.pop() {
        recorded.wait(Duration::from_millis(10));
        let actions = recorded.receive(2, piece, PieceOutcome::Good);
        asked_origin.extend(asked(&actions, 2));
    }
    recorded
}

fn file(text: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    file
}

fn options(file: &NamedTempFile) -> Options {
    Options { file: file.path().to_owned(), json: false, until: None, stall: Duration::from_secs(1) }
}

fn diagnose(text: &str) -> Diagnosis {
    let (diagnosis, outcome) = replay(&options(&file(text.as_bytes()))).unwrap();
    outcome.unwrap();
    diagnosis
}

fn error(text: &[u8]) -> String {
    match replay(&options(&file(text))) {
        Ok((_, outcome)) => format!("{:#}", outcome.unwrap_err()),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_silent_peer_is_found_and_the_rest_is_counted() {
    let diagnosis = diagnose(&session().end());
    assert_eq!(diagnosis.ending, Ending::Stopped);
    let swarm = &diagnosis.swarms[0];
    assert_eq!((swarm.digest, swarm.pieces, swarm.have), (blob(), COUNT, COUNT));
    assert_eq!((swarm.from_agents.pieces, swarm.from_origins.pieces), (1, u64::from(COUNT) - 1));
    assert_eq!(swarm.from_origins.bytes, (u64::from(COUNT) - 1) << 20);
    assert!(swarm.completed_at.is_some_and(|at| (30.1..30.5).contains(&at)), "{:?}", swarm.completed_at);
    assert!(swarm.requests.timed_out > 0);
    assert_eq!(swarm.stalls.len(), 1);
    let stall = &swarm.stalls[0];
    assert!((stall.from - 0.1).abs() < 1e-9 && (stall.to - 30.11).abs() < 1e-9, "{stall:?}");

    let [silent, origin] = &diagnosis.peers[..] else { panic!("{:?}", diagnosis.peers) };
    assert_eq!((silent.peer, silent.role), (peer(1), Some(Role::Agent)));
    assert_eq!((silent.requests.good, silent.mean_seconds), (1, Some(0.1)));
    assert_eq!(silent.requests.timed_out, swarm.requests.timed_out);
    assert_eq!(origin.requests.good, u64::from(COUNT) - 1);
    let requests: u64 = diagnosis.peers.iter().map(|peer| peer.requests.sent).sum();
    assert_eq!(requests, swarm.requests.sent);

    let text = report::Report(&diagnosis).to_string();
    assert!(text.contains("STALL     30.010 s, from 0.100 s to 30.110 s"), "{text}");
    assert!(text.contains("2023-11-14T22:13:20.000Z"), "{text}");
}

#[test]
fn what_nobody_reads_is_not_waited_for() {
    let mut recorded = Recorded::new();
    let demand = |pieces: Option<std::ops::Range<u32>>| Event::Demand {
        digest: blob(),
        pieces: pieces.into_iter().collect(),
    };
    recorded.tell(Event::Fetch {
        digest: blob(),
        geometry: Geometry::for_blob(u64::from(COUNT) << 20).unwrap(),
        have: Bitfield::empty(COUNT),
        candidates: vec![],
        priority: Priority::Reader,
        scope: Scope::Demand,
    });
    recorded.tell(Event::Connected { peer: peer(1), role: Role::Agent, zone: Zone::default() });
    recorded.say(1, Message::Join { digest: blob(), have: Bitfield::full(COUNT) });
    recorded.wait(Duration::from_secs(60));
    recorded.tell(demand(Some(2..3)));
    recorded.wait(Duration::from_millis(10));
    recorded.receive(1, PieceIndex(2), PieceOutcome::Good);
    // The reader has all it wants, and stays.
    recorded.wait(Duration::from_secs(60));
    recorded.tell(demand(None));
    recorded.wait(Duration::from_secs(60));
    recorded.tell(demand(Some(5..6)));
    recorded.wait(Duration::from_secs(3));
    recorded.receive(1, PieceIndex(5), PieceOutcome::Good);
    recorded.wait(Duration::from_secs(60));

    let diagnosis = diagnose(&recorded.end());
    let [stall] = &diagnosis.swarms[0].stalls[..] else { panic!("{:?}", diagnosis.swarms[0].stalls) };
    assert!((stall.to - stall.from - 3.0).abs() < 1e-9, "{stall:?}");
}

#[test]
fn until_shows_what_was_under_way() {
    let text = session().end();
    let record = file(text.as_bytes());
    let (diagnosis, outcome) =
        replay(&Options { until: Some(Duration::from_secs(1)), ..options(&record) }).unwrap();
    outcome.unwrap();
    assert_eq!(diagnosis.ending, Ending::Until);
    assert_eq!(diagnosis.swarms[0].have, 1);
    assert!(!diagnosis.open.is_empty());
    assert!(diagnosis.open.iter().all(|open| open.peer == peer(1) && open.since <= 0.1));
    assert!(report::Report(&diagnosis).to_string().contains("requests are open"));
}

#[test]
fn a_record_that_breaks_off_is_replayed_as_far_as_it_goes() {
    let text = session().text;
    assert_eq!(diagnose(&text).ending, Ending::BrokenOff);
    let torn = &text[..text.len() - 20];
    assert_eq!(diagnose(torn).ending, Ending::BrokenOff);
}

#[test]
fn an_engine_that_does_otherwise_is_named_with_the_line_and_the_rest_is_still_said() {
    let text = session().end().replace(r#""seed":5"#, r#""seed":6"#);
    let record = file(text.as_bytes());
    let (diagnosis, outcome) = replay(&options(&record)).unwrap();
    assert_eq!(diagnosis.ending, Ending::Mismatch);
    assert_eq!(diagnosis.swarms.len(), 1);
    let error = format!("{:#}", outcome.unwrap_err());
    let place = format!("{}: line 5: written by shoal/test", record.path().display());
    assert!(error.starts_with(&place) && error.contains("decides otherwise"), "{error}");
}

#[test]
fn garbage_is_named_with_its_line() {
    assert!(error(b"").contains("line 1: it does not begin"), "{}", error(b""));
    assert!(error(b"\x7fELF\x02\x01\x01\n\xff\xfe").contains("line 1: "));
    assert!(error(b"\xff\xfe\n").contains("line 1: invalid utf-8"));
    let text = session().end();
    let second = text.lines().nth(1).unwrap();
    assert!(error(format!("{second}\n").as_bytes()).contains("line 1: it does not begin"));

    let bad_line = text.replacen("\"geometry\"", "\"geology\"", 1);
    assert!(
        error(bad_line.as_bytes()).contains("line 2: it is no line of a record: missing field `geometry`")
    );
    let twice = format!("{}\n{text}", text.lines().next().unwrap());
    assert!(error(twice.as_bytes()).contains("line 2: an engine starts a second time"));
    let mut long = text.lines().next().unwrap().as_bytes().to_vec();
    long.push(b'\n');
    long.resize(long.len() + shoal_swarm::record::MAX_LINE + 100, b' ');
    assert!(error(&long).contains("line 2: it has"), "{}", error(&long));
    let future = text.replacen("\"record\":2", "\"record\":9", 1);
    assert!(error(future.as_bytes()).contains("line 1: the record has format 9"));
}

#[test]
fn times_are_read_as_seconds_and_with_units() {
    assert_eq!(time("12.5"), Ok(Duration::from_millis(12_500)));
    assert_eq!(time("1m 30s"), Ok(Duration::from_secs(90)));
    for bad in ["soon", "-1", "NaN", "1e300"] {
        assert!(time(bad).unwrap_err().contains("such as"), "{bad}");
    }
}
