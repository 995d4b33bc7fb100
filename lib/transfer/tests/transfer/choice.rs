//! Which transport a node speaks, and what it does where the one that it would like gives nothing.

use std::time::Duration;

use shoal_core::Role;
use shoal_transfer::{Config, FetchError, TransportChoice};

use crate::over_quic::suite::node::{Node, authority, config, content, read};

const MIB: usize = 1 << 20;

fn speaking(transport: TransportChoice) -> Config {
    Config { transport, ..config() }
}

#[tokio::test]
async fn a_node_that_speaks_both_reaches_one_that_speaks_either() {
    for other in [TransportChoice::Auto, TransportChoice::Quic, TransportChoice::Tcp] {
        let authority = authority();
        let agent = Node::start_with(&authority, Role::Agent, speaking(TransportChoice::Auto)).await;
        let origin = Node::start_with(&authority, Role::Origin, speaking(other)).await;
        let content = content(3 * MIB, 1);
        let metainfo = origin.hold(&content).await;
        let blob = agent.pull(&metainfo, [origin.address()]).await.unwrap();
        assert!(read(&blob).await == content, "{other:?}");
        assert!(agent.metric("shoal_peer_dials_failed_total") == 0.0, "{other:?}");
    }
}

#[tokio::test]
async fn nodes_without_a_common_transport_do_not_meet() {
    let authority = authority();
    let mut hasty = speaking(TransportChoice::Tcp);
    hasty.dial_timeout = Duration::from_millis(200);
    let agent = Node::start_with(&authority, Role::Agent, hasty).await;
    let origin = Node::start_with(&authority, Role::Origin, speaking(TransportChoice::Quic)).await;
    let metainfo = origin.hold(&content(MIB, 1)).await;
    let pull = agent.pull(&metainfo, [origin.address()]).await;
    assert!(matches!(pull, Err(FetchError::NoProgress { .. })));
    assert!(agent.metric("shoal_peer_dials_failed_total") > 0.0);
}

#[tokio::test]
async fn both_halves_of_the_port_have_one_number() {
    let node = Node::start_with(&authority(), Role::Agent, speaking(TransportChoice::Auto)).await;
    let address = node.transfer.local_address();
    let taken = std::net::UdpSocket::bind(address).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let taken = std::net::TcpListener::bind(address).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}
