//! Where nodes are: over IPv6 and IPv4, by names, and elsewhere after a restart. (Another address without a restart:
//! `tests/cluster/partition`, where a host has addresses to change.)

use std::net::{Ipv6Addr, TcpListener};

use crate::faults::push;
use crate::process::{Process, Processes, free_port};
use crate::support::{MIB, REPOSITORY};
use shoal::image::Layer;

const FROM_PEERS: &str = "shoal_piece_bytes_received_total{source=\"peer\"}";

/// Pulls a blob with which no origin can help any more.
async fn pull_from_peers(agent: &Process, layer: Layer) {
    let pulled = agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert_eq!(pulled.bytes, layer.length());
    assert!(agent.metric(FROM_PEERS).await >= layer.length() as f64);
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        println!("this machine has no IPv6: nothing was tested");
    }
    has
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_either_family_and_of_both_exchange_pieces() {
    if !has_ipv6() {
        return;
    }
    let mut cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 201).await;
    let six = cluster.agent_at("six", "[::1]:0", "").await;
    six.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    cluster.origin.stop();
    // One that listens for both families hears of the one that has IPv6 only, and is heard of by one that has IPv4 only.
    let both = cluster.agent_at("both", "[::]:0", "").await;
    pull_from_peers(&both, layer).await;
    six.kill();
    let four = cluster.agent_at("four", "127.0.0.1:0", "").await;
    pull_from_peers(&four, layer).await;
    both.kill();
    let again = cluster.agent_at("again", "[::]:0", "").await;
    pull_from_peers(&again, layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_found_by_its_name_and_at_another_port_after_a_restart() {
    let mut cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 202).await;
    let named = async |port: u16| {
        let advertise = format!("advertise = [\"localhost:{port}\", \"no-such-name.invalid:{port}\"]\n");
        cluster.agent_at("named", &format!("127.0.0.1:{port}"), &advertise).await
    };
    let holder = named(free_port()).await;
    holder.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    let first = cluster.agent("first").await;
    let second = cluster.agent("second").await;
    assert!(holder.terminate().await);
    let holder = named(free_port()).await;
    cluster.origin.stop();
    pull_from_peers(&first, layer).await;
    holder.kill();
    pull_from_peers(&second, layer).await;
}
