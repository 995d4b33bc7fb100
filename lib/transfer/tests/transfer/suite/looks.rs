//! What a node shows of itself, and whom it names as unreachable.

use std::num::NonZeroUsize;
use std::time::Duration;

use shoal_core::{PeerAddress, Role, Zone};
use shoal_transfer::{Config, MemberView};

use super::node::{Node, authority, config, content, until};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_of_a_connection_show_what_it_moved() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(5 * MIB + 7, 71);
    let metainfo = origin.hold(&content).await;
    let fetch = agent.fetch(&metainfo, [origin.address()]).await;
    let at_work = agent.transfer.view().await.fetches;
    assert_eq!((at_work[0].length, at_work[0].pieces), (content.len() as u64, 6));
    assert!(at_work[0].have <= 6 && at_work[0].bytes <= content.len() as u64);
    super::node::finish(fetch).await.unwrap();

    let view = agent.transfer.view().await;
    assert!(view.fetches.is_empty());
    let [peer] = &view.peers[..] else { panic!("{view:?}") };
    assert_eq!((peer.id, peer.role), (origin.address().id, Role::Origin));
    assert_eq!((peer.received, peer.sent, peer.requests), (content.len() as u64, 0, 0));
    let digest = *metainfo.metainfo.digest();
    let member = MemberView { peer: origin.address().id, role: Role::Origin, have: Some(6) };
    assert_eq!(agent.transfer.members(&digest).await, [member]);
    // It hears that the last piece was taken a moment later.
    until(|| origin.transfer.stats().bytes_sent == content.len() as u64).await;
    let view = origin.transfer.view().await;
    assert_eq!((view.peers[0].received, view.peers[0].sent), (0, content.len() as u64));
    agent.transfer.shutdown().await;
    assert!(agent.transfer.view().await.peers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_is_named_and_who_has_no_place_is_not() {
    let authority = authority();
    let one = NonZeroUsize::new(1).unwrap();
    let crowded = Config { max_connections: one, ..config() };
    let crowded = Node::start_with(&authority, Role::Origin, crowded).await;
    let metainfo = crowded.hold(&content(MIB, 72)).await;
    let guest = Node::start(&authority, Role::Agent).await;
    guest.pull(&metainfo, [crowded.address()]).await.unwrap();

    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let id = authority.issue(Role::Agent, "dead").unwrap().id();
    let dead = PeerAddress { id, role: Role::Agent, addresses: vec![dead], zone: Zone::default() };
    let seeker = Config { dial_timeout: Duration::from_millis(300), ..config() };
    let seeker = Node::start_with(&authority, Role::Agent, seeker).await;
    let mut unreachable = seeker.transfer.unreachable();
    let _fetch = seeker.fetch(&metainfo, [crowded.address(), dead]).await;
    for _ in 0..3 {
        assert_eq!(unreachable.recv().await, Ok(id));
    }
    assert!(seeker.metric("shoal_peer_dials_failed_total") > 3.0, "the other was dialled in vain, too");
}
