use shoal_core::{Digest, PeerId, Role};

use super::*;
use crate::status::{FetchStatus, HolderStatus, Own, ServerStatus, StoreStatus};

const MIB: u64 = 1 << 20;

fn id(number: u8) -> PeerId {
    PeerId::from_public_key([number; 32])
}

fn list<T>(entries: Vec<T>, total: usize) -> List<T> {
    List { truncated: entries.len() < total, entries, total, next: None }
}

fn status() -> Status {
    Status {
        role: Role::Agent,
        id: id(1),
        name: "host-1".into(),
        cluster: "shoal".into(),
        version: "1.2.3".into(),
        uptime_s: 3_723,
        certificate_ends: "2030-01-01T00:00:00Z".into(),
        not_ready: None,
        node: None,
        tracker: None,
    }
}

fn node() -> NodeStatus {
    let fetch = FetchStatus {
        digest: Digest::Sha256([7; 32]),
        length: 100 * MIB,
        bytes: 99 * MIB + 1,
        peers: 3,
        rate: Some(12 * MIB + MIB / 2),
    };
    NodeStatus {
        zone: Zone("berlin/rack-7".into()),
        peer_port: "10.0.0.1:16002".parse().unwrap(),
        trackers: vec![
            ServerStatus { url: "https://tracker-1:1".into(), error: None },
            ServerStatus { url: "https://tracker-2:1".into(), error: Some("no connection".into()) },
        ],
        overlay_peers: Some(4),
        store: StoreStatus {
            used: 3 << 30,
            capacity: Some(4 << 30),
            free: Some(9 << 30),
            blobs: 12,
            partials: 1,
        },
        connections: 2,
        received_from_agents: 5 * MIB,
        received_from_origins: 512,
        sent: 0,
        rates: Some(Rates { received: MIB, sent: 0 }),
        fetches: list(vec![fetch], 1),
        queues: vec![],
    }
}

#[test]
fn an_agents_status_says_what_it_is_and_does() {
    let text = Status { node: Some(node()), ..status() }.render();
    let expected = format!(
        "role              agent of cluster shoal\n\
         name              host-1\n\
         id                {}\n\
         version           1.2.3\n\
         up for            1h 2m 3s\n\
         ready             yes\n\
         certificate ends  2030-01-01T00:00:00Z\n\
         zone              berlin/rack-7\n\
         peer port         10.0.0.1:16002\n\
         tracker           https://tracker-1:1 answers\n\
         tracker           https://tracker-2:1 away: no connection\n\
         overlay           4 peers\n\
         store             3.0 GiB of 4.0 GiB (75 %), 9.0 GiB left on the file system\n\
         blobs             12 whole, 1 in part\n\
         connections       2\n\
         received          5.0 MiB from agents, 512 B from origins, 1.0 MiB/s now\n\
         sent              0 B, 0 B/s now\n\n",
        id(1)
    );
    let (head, fetches) = text.split_at(expected.len().min(text.len()));
    assert_eq!(head, expected);
    let rows: Vec<&str> = fetches.lines().collect();
    assert!(
        rows[2].contains("sha256:0707") && rows[2].ends_with("| 100.0 MiB |     99 | 12.5 MiB/s |     3 |"),
        "{fetches}"
    );
    assert_eq!(rows[3], "1 of 1");
}

#[test]
fn a_tracker_and_a_node_that_is_not_ready_say_so() {
    let tracker = TrackerStatus { agents: 15_000, origins: 5, blobs: 7, holdings: 9, waiting: 3 };
    let text = Status { role: Role::Tracker, tracker: Some(tracker), ..status() }.render();
    assert!(text.contains("nodes             15000 agents, 5 origins\n"), "{text}");
    assert!(text.ends_with("waiting           3 for somebody new"), "{text}");
    let text = Status { not_ready: Some("no tracker".into()), ..status() }.render();
    assert!(text.contains("ready             no: no tracker\n"), "{text}");
}

#[test]
fn peers_are_a_table_and_what_is_left_out_is_said() {
    let peer = PeerStatus {
        id: id(2),
        role: Role::Origin,
        zone: Zone::default(),
        address: "10.0.0.2:1".parse().unwrap(),
        transport: "quic".into(),
        round_trip_us: Some(1_250),
        connected_s: 61,
        received: 3 * MIB,
        sent: 0,
        rates: None,
        requests: 24,
        blobs: 2,
    };
    let text = Peers::Node(list(vec![peer], 2)).render();
    let rows: Vec<&str> = text.lines().collect();
    let cells: Vec<&str> = rows[2].trim_matches('|').split('|').map(str::trim).collect();
    let name = id(2).to_string();
    let expected = [
        &name,
        "origin",
        "-",
        "10.0.0.2:1",
        "quic",
        "1.2 ms",
        "1m 1s",
        "3.0 MiB",
        "0 B",
        "-",
        "-",
        "24",
        "2",
    ];
    assert_eq!(cells, expected);
    assert_eq!(rows[3], "1 of 2, and there are more: see --limit");
    assert!(rows.iter().take(3).all(|row| row.len() == rows[0].len()), "{text}");
}

#[test]
fn a_trackers_nodes_show_whom_it_keeps_out() {
    let node = |number, removed| KnownNode {
        id: id(number),
        role: Role::Agent,
        zone: Zone("oslo".into()),
        addresses: vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()],
        lease_s: 41,
        blobs: 3,
        removed,
    };
    let text = Peers::Tracker(list(vec![node(1, false), node(2, true)], 2)).render();
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[2].contains("| 10.0.0.1:1 +1 |") && rows[2].contains("| yes "), "{text}");
    assert!(rows[3].contains("no: others cannot reach it"), "{text}");
}

#[test]
fn a_swarm_shows_pieces_here_and_there() {
    let digest = Digest::Sha256([1; 32]);
    let member = |number, have| MemberStatus { id: id(number), role: Role::Agent, have, rates: None };
    let own = Some(Own { length: 8 * MIB, pieces: 8, have: 2 });
    let members = list(vec![member(1, Some(8)), member(2, None)], 2);
    let text = Swarm::Node(NodeSwarm { digest, own, members }).render();
    assert!(text.contains("here  2 of 8 pieces (25 %)\n"), "{text}");
    let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('|')).collect();
    assert!(rows[2].ends_with("|      8 |    100 |  - |   - |"), "{text}");
    assert!(rows[3].ends_with("|      - |      - |  - |   - |"), "{text}");
    let nothing = Swarm::Node(NodeSwarm { digest, own: None, members: list(vec![], 0) }).render();
    assert!(nothing.contains("here  nothing"), "{nothing}");

    let holder = |number, state| HolderStatus {
        id: id(number),
        role: Role::Agent,
        zone: Zone::default(),
        addresses: vec!["10.0.0.1:1".parse().unwrap()],
        state,
        since_s: 5,
    };
    let holders =
        list(vec![holder(1, Holds::Asked), holder(2, Holds::Partial), holder(3, Holds::Complete)], 9);
    let text = Swarm::Tracker(TrackerSwarm { digest, holders }).render();
    for expected in
        ["| asked for it |  5s |", "| a part       |  5s |", "| all          |  5s |", "3 of 9, and"]
    {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn what_is_printed_as_json_is_read_again() {
    let said = Status { node: Some(node()), ..status() };
    let text = serde_json::to_string(&said).unwrap();
    let read: Status = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let peers = Peers::Tracker(list(vec![], 0));
    let text = serde_json::to_string(&peers).unwrap();
    assert_eq!(text, r#"{"of":"tracker","entries":[],"total":0,"truncated":false}"#);
    assert!(matches!(serde_json::from_str(&text).unwrap(), Peers::Tracker(_)));
}
