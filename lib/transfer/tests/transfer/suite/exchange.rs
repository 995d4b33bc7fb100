//! Blobs that get where they should.

use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use shoal_core::{Bitfield, PieceIndex, Role};
use shoal_swarm::{Message, Priority};
use shoal_transfer::wire::Frame;
use shoal_transfer::{Config, FetchError, FetchEvent, RateLimits};

use super::node::{Node, authority, config, content, finish, read, until};
use super::puppet::{Answer, Puppet};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_gets_a_blob_from_an_origin() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(64 * MIB + 12_345, 1);
    let metainfo = origin.hold(&content).await;

    let blob = agent.pull(&metainfo, [origin.address()]).await.unwrap();

    assert!(read(&blob).await == content, "the bytes differ");
    let stats = agent.transfer.stats();
    assert_eq!(stats.bytes_from_origins, content.len() as u64);
    assert_eq!((stats.bytes_from_peers, stats.connections), (0, 1));
    let sent = || origin.transfer.stats().bytes_sent == content.len() as u64;
    until(sent).await;
}

#[tokio::test]
async fn an_empty_blob_and_one_of_a_single_byte_complete() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    for content in [Bytes::new(), Bytes::from_static(b"1")] {
        let metainfo = origin.hold(&content).await;
        let blob = agent.pull(&metainfo, [origin.address()]).await.unwrap();
        assert_eq!(read(&blob).await, content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_passes_on_what_it_has_when_the_origin_is_gone() {
    let authority = authority();
    let origin = Node::start(&authority, Role::Origin).await;
    let (first, second) =
        (Node::start(&authority, Role::Agent).await, Node::start(&authority, Role::Agent).await);
    let content = content(8 * MIB, 2);
    let metainfo = origin.hold(&content).await;
    first.pull(&metainfo, [origin.address()]).await.unwrap();
    origin.transfer.shutdown().await;

    let blob = second.pull(&metainfo, [origin.address(), first.address()]).await.unwrap();

    assert!(read(&blob).await == content);
    let stats = second.transfer.stats();
    assert_eq!((stats.bytes_from_peers, stats.bytes_from_origins), (content.len() as u64, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_pass_pieces_on_while_they_still_download() {
    let authority = authority();
    let origin = Node::start(&authority, Role::Origin).await;
    let content = content(16 * MIB, 3);
    let metainfo = origin.hold(&content).await;
    let (first, second) =
        (Node::start(&authority, Role::Agent).await, Node::start(&authority, Role::Agent).await);
    // The second knows only the first, which has nothing yet.
    let pulls = tokio::join!(
        first.pull(&metainfo, [origin.address(), second.address()]),
        second.pull(&metainfo, [first.address()]),
    );
    assert!(read(&pulls.0.unwrap()).await == content);
    assert!(read(&pulls.1.unwrap()).await == content);
    assert_eq!(second.transfer.stats().bytes_from_origins, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dies_costs_a_retry_and_not_the_fetch() {
    let authority = authority();
    let origin = Node::start(&authority, Role::Origin).await;
    let agent = Node::start(&authority, Role::Agent).await;
    let content = content(16 * MIB, 4);
    let metainfo = origin.hold(&content).await;
    let digest = *metainfo.metainfo.digest();
    let dying = Puppet::new(&authority, Role::Agent);

    let pull = agent.fetch(&metainfo, [dying.address(), origin.address()]).await;
    let dies = async {
        let mut strings = dying.accept().await;
        let piece = strings.pose_as_seed(&metainfo).await.unwrap();
        let at = piece.0 as usize * MIB;
        strings.send_piece(digest, piece, MIB as u32, content.slice(at..at + MIB)).await;
        // What else it was asked for never comes: its endpoint is gone.
        drop(strings);
        drop(dying);
    };
    let (blob, ()) = tokio::join!(finish(pull), dies);
    assert!(read(&blob.unwrap()).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_costs_a_retry_and_not_the_fetch() {
    let authority = authority();
    let origin = Node::start(&authority, Role::Origin).await;
    let mut hasty = config();
    hasty.swarm.piece_timeout = Duration::from_millis(200);
    let agent = Node::start_with(&authority, Role::Agent, hasty).await;
    let content = content(16 * MIB, 5);
    let metainfo = origin.hold(&content).await;
    let silent = Puppet::new(&authority, Role::Agent);

    let pull = agent.fetch(&metainfo, [silent.address(), origin.address()]).await;
    let mut strings = silent.accept().await;
    strings.pose_as_seed(&metainfo).await;
    let blob = finish(pull).await.unwrap();
    assert!(read(&blob).await == content);
}

#[tokio::test]
async fn a_partial_is_resumed_and_only_the_missing_bytes_are_transferred() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(10 * MIB - 7, 6);
    let metainfo = origin.hold(&content).await;
    let partial = agent.partial(&metainfo).await;
    for piece in [0, 3, 9] {
        let piece = metainfo.metainfo.geometry().piece(PieceIndex(piece)).unwrap();
        let range = piece.range();
        let bytes = content.slice(range.start as usize..range.end as usize);
        partial.write_piece(piece.index, bytes).await.unwrap();
    }

    let fetch = agent.transfer.fetch(partial, vec![origin.address()]).await.unwrap();

    assert!(read(&finish(fetch).await.unwrap()).await == content);
    assert_eq!(agent.transfer.stats().bytes_from_origins, 7 * MIB as u64);
}

#[tokio::test]
async fn a_fetch_that_nobody_answers_asks_for_peers_and_then_fails() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let metainfo = origin.hold(&content(2 * MIB, 7)).await;
    let partial = agent.partial(&metainfo).await;
    let mut reader = partial.reader(0..u64::MAX);
    let mut fetch = agent.transfer.fetch(partial, Vec::new()).await.unwrap();

    assert!(matches!(fetch.next().await, Some(FetchEvent::FindPeers)));
    fetch.add_peers(Vec::new()).await;

    assert!(matches!(finish(fetch).await, Err(FetchError::NoProgress { .. })));
    assert!(reader.next().await.unwrap().is_err(), "the reader was not told");
}

#[tokio::test]
async fn peers_that_are_found_later_complete_the_fetch() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(3 * MIB, 8);
    let metainfo = origin.hold(&content).await;
    let mut fetch = agent.fetch(&metainfo, []).await;
    assert!(matches!(fetch.next().await, Some(FetchEvent::FindPeers)));
    fetch.add_peers(vec![origin.address()]).await;
    assert!(read(&finish(fetch).await.unwrap()).await == content);
}

#[tokio::test]
async fn a_dropped_fetch_stops_the_traffic_and_can_be_taken_up_again() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(8 * MIB, 9);
    let metainfo = origin.hold(&content).await;
    let digest = *metainfo.metainfo.digest();
    let seed = Puppet::new(&authority, Role::Agent);

    let fetch = agent.fetch(&metainfo, [seed.address()]).await;
    let mut strings = seed.accept().await;
    let asked = strings.pose_as_seed(&metainfo).await.unwrap();
    let partial = agent.partial(&metainfo).await;
    let mut reader = partial.reader(0..u64::MAX);
    drop(fetch);
    assert!(reader.next().await.unwrap().is_err(), "the reader was not told");

    // A piece that was asked for before is not wanted any more, and not the peer's fault.
    while !matches!(strings.hear().await.unwrap(), Frame::Message(Message::Absent { .. })) {}
    let at = asked.0 as usize * MIB;
    strings.send_piece(digest, asked, MIB as u32, content.slice(at..at + MIB)).await;
    assert_eq!(agent.transfer.stats().bytes_from_peers, 0);
    assert!(strings.is_open().await);

    let blob = agent.pull(&metainfo, [origin.address()]).await.unwrap();
    assert!(read(&blob).await == content);
}

#[tokio::test]
async fn a_second_fetch_of_the_same_blob_is_refused_and_leaves_the_first_alone() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let metainfo = origin.hold(&content(MIB, 10)).await;
    let first = agent.fetch(&metainfo, []).await;
    let second = agent.transfer.fetch(agent.partial(&metainfo).await, Vec::new()).await;
    assert!(matches!(second, Err(FetchError::UnderWay { .. })));
    first.add_peers(vec![origin.address()]).await;
    finish(first).await.unwrap();
}

#[tokio::test]
async fn a_blob_that_was_closed_is_not_served_until_it_is_asked_for_again() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let metainfo = origin.hold(&content(MIB, 11)).await;
    let digest = *metainfo.metainfo.digest();
    origin.transfer.close(&digest).await;
    assert!(origin.store.delete(&digest).await.unwrap());
    let pull = agent.pull(&metainfo, [origin.address()]).await;
    assert!(matches!(pull, Err(FetchError::NoProgress { .. })));

    let fetch = agent.fetch(&metainfo, []).await;
    agent.transfer.close(&digest).await;
    assert!(matches!(finish(fetch).await, Err(FetchError::Closed { .. })));
}

#[tokio::test]
async fn a_swarm_hears_that_the_store_gave_the_blob_up_and_a_fetch_that_began_since_goes_on() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(MIB, 13);
    let metainfo = origin.hold(&content).await;
    agent.hold(&content).await;
    let digest = *metainfo.metainfo.digest();
    let puppet = Puppet::new(&authority, Role::Agent);
    let mut strings = puppet.connect(agent.transfer.local_address(), 1).await;
    strings.say(Frame::Message(Message::Join { digest, have: Bitfield::empty(1) })).await;
    while !matches!(strings.hear().await.unwrap(), Frame::Message(Message::Join { .. })) {}
    assert!(agent.store.delete(&digest).await.unwrap());
    agent.transfer.forget(&digest).await;
    let heard = tokio::time::timeout(Duration::from_secs(20), strings.hear())
        .await
        .expect("nothing was heard")
        .unwrap();
    assert!(matches!(heard, Frame::Message(Message::Absent { digest: gone }) if gone == digest), "{heard:?}");

    let fetch = agent.fetch(&metainfo, []).await;
    // Late, as of a blob that was given up before.
    agent.transfer.forget(&digest).await;
    fetch.add_peers(vec![origin.address()]).await;
    assert_eq!(read(&finish(fetch).await.unwrap()).await, content);
}

#[tokio::test]
async fn a_piece_that_is_cancelled_and_asked_for_again_is_answered() {
    let authority = authority();
    let origin = Node::start(&authority, Role::Origin).await;
    let metainfo = origin.hold(&content(4 * MIB, 12)).await;
    let (digest, piece) = (*metainfo.metainfo.digest(), PieceIndex(0));
    let puppet = Puppet::new(&authority, Role::Agent);
    let mut strings = puppet.connect(origin.transfer.local_address(), 1).await;
    strings.say(Frame::Message(Message::Join { digest, have: Bitfield::empty(4) })).await;
    while !matches!(strings.hear().await.unwrap(), Frame::Message(Message::Join { .. })) {}

    for _ in 0..20 {
        for message in [
            Message::Request { digest, piece, priority: Priority::Reader },
            Message::Cancel { digest, piece },
            Message::Request { digest, piece, priority: Priority::Reader },
        ] {
            strings.say(Frame::Message(message)).await;
        }
        match tokio::time::timeout(Duration::from_secs(10), strings.answer()).await.expect("no answer") {
            Answer::Piece | Answer::Frame(Frame::Message(Message::Reject { .. })) => {}
            Answer::Frame(frame) => panic!("{frame:?}"),
        }
    }
}

/// That limits are exact is tested in virtual time; that all bytes go through them is tested here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_faster_than_its_limit() {
    const RATE: u64 = 4_000_000;
    let limits = RateLimits { rate: Some(ByteSize::b(RATE)), ..RateLimits::default() };
    for (egress, ingress) in [(limits, RateLimits::default()), (RateLimits::default(), limits)] {
        let authority = authority();
        let sending = Config { egress, ..config() };
        let receiving = Config { ingress, ..config() };
        let origin = Node::start_with(&authority, Role::Origin, sending).await;
        let agent = Node::start_with(&authority, Role::Agent, receiving).await;
        let content = content(3 * MIB, 14);
        let metainfo = origin.hold(&content).await;
        let began = std::time::Instant::now();
        assert!(read(&agent.pull(&metainfo, [origin.address()]).await.unwrap()).await == content);
        // A tenth of a second's worth may go at the start.
        let least = Duration::from_secs_f64(content.len() as f64 / RATE as f64 - 0.1);
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    }
}
