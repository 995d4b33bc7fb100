//! One connection a pair of nodes, from the first dial to the end.

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use bytes::BytesMut;
use shoal_core::{Digest, PieceIndex, Role, Zone};
use shoal_swarm::{Message, Priority};
use shoal_transfer::wire::{CloseReason, Frame, Hello};
use shoal_transfer::{Fetch, FetchError};

use super::node::{Node, authority, config, content, finish, read, until};
use super::puppet::{Puppet, Strings};

const MIB: usize = 1 << 20;

/// The close codes that a test looks at.
const SHUTDOWN: u64 = 0;
const DUPLICATE: u64 = 5;
const REFUSED: u64 = 6;
const TOO_SLOW: u64 = 7;
const BUSY: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_dial_each_other_at_once_keep_one_connection() {
    for round in 0..4 {
        let authority = authority();
        let (a, b) = (Node::start(&authority, Role::Agent).await, Node::start(&authority, Role::Agent).await);
        let (at_a, at_b) = (content(2 * MIB, 30 + round), content(2 * MIB, 60 + round));
        let (from_a, from_b) = (a.hold(&at_a).await, b.hold(&at_b).await);

        let pulls = tokio::join!(a.pull(&from_b, [b.address()]), b.pull(&from_a, [a.address()]));

        assert!(read(&pulls.0.unwrap()).await == at_b);
        assert!(read(&pulls.1.unwrap()).await == at_a);
        assert_eq!((a.transfer.stats().connections, b.transfer.stats().connections), (1, 1));
        assert!(a.metric("shoal_peer_dials_failed_total") + b.metric("shoal_peer_dials_failed_total") == 0.0);
    }
}

/// A node that dials a puppet and waits for its answer, while the puppet dials it and waits too.
struct Crossing {
    node: Node,
    by_node: Strings,
    by_puppet: Strings,
    puppet: Puppet,
    _fetch: Fetch,
}

impl Crossing {
    /// `puppet_is` says how the puppet's id compares to the node's.
    async fn new(puppet_is: Ordering) -> Self {
        let authority = authority();
        let node = Node::start(&authority, Role::Agent).await;
        let puppet = loop {
            let puppet = Puppet::new(&authority, Role::Agent);
            if puppet.address().id.cmp(&node.address().id) == puppet_is {
                break puppet;
            }
        };
        let origin = Node::start(&authority, Role::Origin).await;
        let metainfo = origin.hold(&content(MIB, 91)).await;
        let fetch = node.fetch(&metainfo, [puppet.address()]).await;
        let by_node = puppet.hear().await;
        let by_puppet = puppet.call(node.transfer.local_address(), 2).await;
        Self { node, by_node, by_puppet, puppet, _fetch: fetch }
    }

    /// The puppet's call is being held: another one took the place of its first.
    async fn held() -> Self {
        let mut crossing = Self::new(Ordering::Greater).await;
        let again = crossing.puppet.call(crossing.node.transfer.local_address(), 3).await;
        let mut first = std::mem::replace(&mut crossing.by_puppet, again);
        assert_eq!(first.closed().await, DUPLICATE);
        assert!(crossing.by_node.is_open().await);
        assert_eq!(crossing.node.transfer.stats().connections, 0);
        crossing
    }
}

#[tokio::test]
async fn of_crossing_dials_the_smaller_caller_is_answered_and_the_own_dial_dropped() {
    let mut crossing = Crossing::new(Ordering::Less).await;
    crossing.by_puppet.expect_hello().await;
    crossing.by_node.ended().await;
    assert!(crossing.by_puppet.is_open().await);
    assert_eq!(crossing.node.transfer.stats().connections, 1);
}

#[tokio::test]
async fn of_crossing_dials_the_larger_caller_waits_and_is_turned_away_when_the_own_dial_succeeds() {
    let mut crossing = Crossing::held().await;
    crossing.by_node.say(Frame::Hello(Hello::new(4, &Zone::default()))).await;
    assert_eq!(crossing.by_puppet.closed().await, DUPLICATE);
    assert!(matches!(crossing.by_node.hear().await, Some(Frame::Message(Message::Join { .. }))));
    assert_eq!(crossing.node.transfer.stats().connections, 1);
}

#[tokio::test]
async fn of_crossing_dials_the_larger_caller_is_answered_when_the_own_dial_fails() {
    let mut crossing = Crossing::held().await;
    crossing.by_node.close(CloseReason::Duplicate).await;
    crossing.by_puppet.expect_hello().await;
    assert!(matches!(crossing.by_puppet.hear().await, Some(Frame::Message(Message::Join { .. }))));
}

#[tokio::test]
async fn a_call_that_arrives_after_the_answer_to_the_own_dial_is_turned_away() {
    let mut crossing = Crossing::new(Ordering::Greater).await;
    crossing.by_node.say(Frame::Hello(Hello::new(5, &Zone::default()))).await;
    assert!(matches!(crossing.by_node.hear().await, Some(Frame::Message(Message::Join { .. }))));
    let mut late = crossing.puppet.call(crossing.node.transfer.local_address(), 4).await;
    assert_eq!(late.closed().await, DUPLICATE);
    assert!(crossing.by_node.is_open().await);
}

#[tokio::test]
async fn a_peer_that_does_not_take_its_messages_is_let_go() {
    let authority = authority();
    let mut impatient = config();
    impatient.message_queue = NonZeroUsize::new(4).unwrap();
    let node = Node::start_with(&authority, Role::Agent, impatient).await;
    let puppet = Puppet::new(&authority, Role::Agent);
    let mut strings = puppet.connect_narrow(node.transfer.local_address()).await;
    let message = Message::Request {
        digest: Digest::sha256(b"not there"),
        piece: PieceIndex(0),
        priority: Priority::Reader,
    };
    let mut request = BytesMut::new();
    Frame::Message(message).encode(&mut request);
    strings.say_bytes(&request.repeat(20_000)).await;
    assert_eq!(strings.closed().await, TOO_SLOW);
    assert_eq!(node.transfer.stats().connections, 0);
}

#[tokio::test]
async fn a_peer_that_restarted_replaces_its_connection() {
    let authority = authority();
    let node = Node::start(&authority, Role::Agent).await;
    let puppet = Puppet::new(&authority, Role::Agent);
    let address = node.transfer.local_address();
    let mut before = puppet.connect(address, 10).await;
    let mut after = puppet.connect(address, 11).await;
    assert_eq!(before.closed().await, DUPLICATE);
    assert!(after.is_open().await);
    assert_eq!(node.transfer.stats().connections, 1);
}

#[tokio::test]
async fn a_tracker_gets_no_connection() {
    let authority = authority();
    let node = Node::start(&authority, Role::Agent).await;
    let tracker = Puppet::new(&authority, Role::Tracker);
    let mut strings = tracker.dial(node.transfer.local_address()).await;
    assert_eq!(strings.closed().await, REFUSED);
    assert_eq!(node.transfer.stats().connections, 0);
}

#[tokio::test]
async fn a_caller_beyond_the_limit_is_turned_away() {
    let authority = authority();
    let mut narrow = config();
    narrow.max_connections = NonZeroUsize::MIN;
    let node = Node::start_with(&authority, Role::Agent, narrow).await;
    let (first, second) = (Puppet::new(&authority, Role::Agent), Puppet::new(&authority, Role::Agent));
    let mut first = first.connect(node.transfer.local_address(), 1).await;
    let mut second = second.call(node.transfer.local_address(), 1).await;
    assert_eq!(second.closed().await, BUSY);
    assert!(first.is_open().await);
}

#[tokio::test]
async fn shutdown_ends_fetches_connections_and_tasks() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let metainfo = origin.hold(&content(4 * MIB, 90)).await;
    let puppet = Puppet::new(&authority, Role::Agent);
    let idle = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let fetch = agent.fetch(&metainfo, [puppet.address()]).await;
    let mut strings = puppet.accept().await;
    strings.pose_as_seed(&metainfo).await;

    agent.transfer.shutdown().await;
    agent.transfer.shutdown().await;

    assert_eq!(strings.closed().await, SHUTDOWN);
    assert!(matches!(finish(fetch).await, Err(FetchError::Stopped { .. })));
    assert_eq!(agent.transfer.stats().connections, 0);
    let partial = agent.partial(&metainfo).await;
    let again = agent.transfer.fetch(partial, Vec::new()).await;
    assert!(matches!(again, Err(FetchError::Stopped { .. })));
    drop((strings, puppet, again));
    until(|| tokio::runtime::Handle::current().metrics().num_alive_tasks() <= idle).await;
}

#[tokio::test]
async fn the_node_stops_when_nobody_holds_it() {
    let authority = authority();
    let node = Node::start(&authority, Role::Agent).await;
    let puppet = Puppet::new(&authority, Role::Agent);
    let mut strings = puppet.connect(node.transfer.local_address(), 1).await;
    drop(node);
    assert_eq!(strings.closed().await, SHUTDOWN);
}
