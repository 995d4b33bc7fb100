//! What a node's engine is told is on record, and an engine that is told it again does the same.

use std::num::NonZeroUsize;
use std::path::Path;

use bytesize::ByteSize;
use shoal_core::{PieceIndex, Role, Zone};
use shoal_swarm::record::{EndReason, Input, Line, Replay};
use shoal_swarm::{Action, Event, PieceOutcome};
use shoal_transfer::{BindError, Config, RecordConfig, Transfer};

use super::node::{Node, authority, config, content, read};

const MIB: usize = 1 << 20;

fn recording(file: &Path) -> Config {
    let queue = NonZeroUsize::new(100_000).unwrap();
    Config {
        record: Some(RecordConfig { file: file.to_owned(), max_size: ByteSize::mib(16), queue }),
        ..config()
    }
}

/// What was told, and what an engine does that is told it again: the same as on record, or this panics.
struct Replayed {
    told: Vec<Input>,
    actions: Vec<Action>,
    reason: EndReason,
}

fn replay(file: &Path) -> Replayed {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines().map(|line| Line::decode(line).unwrap());
    let Some(Line::Start(start)) = lines.next() else { panic!("{text:.200} does not begin with a start") };
    let (mut engine, mut told, mut actions) = (Replay::new(&start), Vec::new(), Vec::new());
    loop {
        match lines.next().expect("a record ends with an end") {
            Line::Step(step) => {
                actions.extend(engine.actions(step.before).unwrap());
                told.push(step.input.clone());
                let _ = engine.tell(step.at, step.input);
            }
            Line::End(end) => {
                actions.extend(engine.actions(end.before).unwrap());
                assert!(lines.next().is_none(), "something follows the end");
                return Replayed { told, actions, reason: end.reason };
            }
            Line::Start(_) => panic!("a second start"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_on_record_at_both_ends_and_replays_to_the_same_actions() {
    let folder = tempfile::tempdir().unwrap();
    let (seed_record, leech_record) = (folder.path().join("seed"), folder.path().join("leech"));
    let authority = authority();
    let origin = Node::start_with(&authority, Role::Origin, recording(&seed_record)).await;
    let agent = Node::start_with(&authority, Role::Agent, recording(&leech_record)).await;
    let content = content(12 * MIB, 1);
    let metainfo = origin.hold(&content).await;
    let blob = agent.pull(&metainfo, [origin.address()]).await.unwrap();
    assert!(read(&blob).await == content);
    agent.transfer.shutdown().await;
    origin.transfer.shutdown().await;

    let leech = replay(&leech_record);
    assert_eq!(leech.reason, EndReason::Stopped);
    for piece in (0..12).map(PieceIndex) {
        assert!(leech.told.iter().any(|input| {
            matches!(input, Input::Event(Event::Received { piece: of, outcome: PieceOutcome::Good, .. }) if *of == piece)
        }));
    }
    assert!(leech.actions.iter().any(|action| matches!(action, Action::Complete { .. })));
    let seed = replay(&seed_record);
    let uploads = seed.actions.iter().filter(|action| matches!(action, Action::Upload { .. }));
    assert!(uploads.count() >= 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_are_on_record_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");
    let authority = authority();
    let agent = Node::start_with(&authority, Role::Agent, recording(&file)).await;
    let origin = Node::start(&authority, Role::Origin).await;
    let metainfo = origin.hold(&content(MIB, 2)).await;
    // Nobody has it: only time ends this fetch.
    assert!(agent.pull(&metainfo, []).await.is_err());
    agent.transfer.shutdown().await;

    let replayed = replay(&file);
    assert!(replayed.told.contains(&Input::Timeout));
    assert!(replayed.actions.iter().any(|action| matches!(action, Action::GiveUp { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_ends_at_its_size_and_the_node_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");
    let mut config = recording(&file);
    let size = ByteSize::kib(64);
    config.record.as_mut().unwrap().max_size = size;
    let authority = authority();
    let agent = Node::start_with(&authority, Role::Agent, config).await;
    let origin = Node::start(&authority, Role::Origin).await;
    for seed in (3..15).step_by(2) {
        let content = content(40 * MIB, seed);
        let metainfo = origin.hold(&content).await;
        assert!(read(&agent.pull(&metainfo, [origin.address()]).await.unwrap()).await == content);
    }
    agent.transfer.shutdown().await;

    assert_eq!(replay(&file).reason, EndReason::Full);
    let length = std::fs::metadata(&file).unwrap().len();
    assert!((size.as_u64() - 2048..=size.as_u64()).contains(&length), "{length} bytes");
}

#[tokio::test]
async fn a_node_s_last_record_outlives_its_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");
    let authority = authority();
    for _ in 0..2 {
        Node::start_with(&authority, Role::Agent, recording(&file)).await.transfer.shutdown().await;
    }
    assert_eq!(replay(&folder.path().join("record.1")).reason, EndReason::Stopped);
    assert_ne!(
        std::fs::read_to_string(folder.path().join("record.1")).unwrap(),
        std::fs::read_to_string(file).unwrap()
    );
}

#[tokio::test]
async fn a_record_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing").join("record");
    let store = shoal_store::Config { directory: folder.path().join("store") };
    let store = shoal_store::Store::open(store).await.unwrap();
    let identity = authority().issue(Role::Agent, "node").unwrap();
    let refused =
        Transfer::bind(recording(&file), identity, Zone::default(), store, &prometheus::Registry::new())
            .await;
    let Err(error @ BindError::Record { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}
