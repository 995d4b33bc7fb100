//! Hand-outs that name hosts which are gone.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use shoal_control::{Holding, TrackerClient};
use shoal_core::{PeerAddress, Role, Zone};
use shoal_identity::Authority;

use crate::faults::push;
use crate::process::Processes;
use crate::support::{MIB, REPOSITORY};

const HOLDERS: usize = 3;

/// A host that hangs: its system takes connections, and nothing ever answers on them.
fn hanging_port() -> (TcpListener, UdpSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind(listener.local_addr().unwrap()).unwrap();
    (listener, socket)
}

/// The origin hangs too, so of seven that are named three answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_comes_within_a_second_though_half_of_those_named_are_dead() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 93).await;
    let mut holders = Vec::new();
    for number in 0..HOLDERS {
        let holder = cluster.agent(&format!("holder-{number}")).await;
        holder.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
        holders.push(holder);
    }
    let authority = Authority::load(&cluster.folder("ca")).unwrap();
    let ports: Vec<_> = (0..HOLDERS).map(|_| hanging_port()).collect();
    for (number, (listener, _)) in ports.iter().enumerate() {
        let dead = authority.issue(Role::Agent, &format!("dead-{number}")).unwrap();
        let addresses: Vec<SocketAddr> = vec![listener.local_addr().unwrap()];
        let address = PeerAddress { id: dead.id(), role: Role::Agent, addresses, zone: Zone::default() };
        let tracker = TrackerClient::new(&dead, vec![cluster.tracker_url().to_owned()]).unwrap();
        let holds = [Holding { digest: layer.digest, complete: true }];
        tracker.announce(&address, None, &holds, &[], true).await.unwrap();
    }
    let seeker = cluster.agent("seeker").await;
    cluster.origin.freeze();
    let pulled = seeker.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    cluster.origin.thaw();
    assert_eq!(pulled.bytes, layer.length());
    println!("first byte after {:?}, all after {:?}", pulled.first_byte, pulled.whole);
    assert!(pulled.first_byte < Duration::from_secs(1), "{:?}", pulled.first_byte);
}
