//! What the overlay costs a node that does nothing: bytes a second on the wire and memory, for a cluster in one process.
//!
//! ```text
//! cargo run --release -p shoal-control --example overlay_cost -- NODES BLOBS SETTLE_SECONDS MEASURE_SECONDS
//! ```
//!
//! Every node is the real one, on loopback, with a certificate of its own; all join by the first three. Each holds that many
//! blobs of its own and announces them. After the time to settle, the bytes of all connections are counted for as long as
//! is asked; at the end nodes ask for blobs of others, and the time that takes is printed as well.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says so by a panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use shoal_control::overlay::{Config, Holder, Library, MAX_LENT, Member, Overlay};
use shoal_core::{Digest, Metainfo, PeerAddress, Role, SignedMetainfo, Zone};
use shoal_identity::{Authority, Identity};

/// How many nodes are joined by.
const MEETING: usize = 3;
/// How many searches are timed.
const SEARCHES: usize = 50;

struct Node {
    overlay: Overlay,
    metrics: Registry,
}

#[tokio::main]
async fn main() {
    shoal_identity::install_crypto_provider();
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let count = numbers.next().unwrap_or(100);
    let blobs = numbers.next().unwrap_or(20);
    let settle = Duration::from_secs(numbers.next().unwrap_or(90) as u64);
    let measure = Duration::from_secs(numbers.next().unwrap_or(120) as u64);

    let authority = Authority::generate("cost").unwrap();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let before = memory();
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..count {
        let identity = authority.issue(Role::Agent, &format!("agent-{number}")).unwrap();
        let node = start(identity, &origin, &nodes).await;
        for blob in 0..blobs {
            node.overlay.handle().used(digest(number, blob));
        }
        nodes.push(node);
    }
    tokio::time::sleep(settle).await;
    let (started, sent, received) = (Instant::now(), total(&nodes, SENT), total(&nodes, RECEIVED));
    let processor = processor();
    tokio::time::sleep(measure).await;
    let (seconds, each) = (started.elapsed().as_secs_f64(), count as f64);
    let rate = |name, then| (total(&nodes, name) - then) / seconds / each;
    println!(
        "nodes {count}, blobs of each {blobs}, after {} s, over {seconds:.0} s, a node:",
        settle.as_secs()
    );
    println!("  sent          {:8.0} B/s", rate(SENT, sent));
    println!("  received      {:8.0} B/s", rate(RECEIVED, received));
    println!("  processor     {:8.3} % of one", (self::processor() - processor) / seconds / each * 100.0);
    println!("  memory        {:8.0} KiB", (memory() - before) as f64 / 1024.0 / each);
    println!("  connections   {:8.1}", total(&nodes, "shoal_overlay_peers") / each);
    println!("  records       {:8.1}", total(&nodes, "shoal_overlay_records") / each);
    println!("  to get there, sent {:.0} KiB", sent / each / 1024.0);
    search(&nodes, blobs).await;
}

const SENT: &str = "shoal_overlay_sent_bytes_total";
const RECEIVED: &str = "shoal_overlay_received_bytes_total";

async fn start(identity: Identity, origin: &Identity, others: &[Node]) -> Node {
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    let meeting = others.iter().take(MEETING);
    config.join = meeting.map(|node| node.overlay.local_address().to_string()).collect();
    let address = PeerAddress {
        id: identity.id(),
        role: identity.role(),
        addresses: vec![([127, 0, 0, 1], 9).into()],
        zone: Zone::default(),
    };
    let metainfo = Metainfo::of(b"content").unwrap();
    let signed = SignedMetainfo { proof: origin.sign(&metainfo), metainfo };
    let library: Library = Arc::new(move |_, _| {
        let held = Holder { metainfo: signed.clone(), lent: MAX_LENT };
        Box::pin(std::future::ready(Some(held)))
    });
    let address = tokio::sync::watch::channel(address).1;
    let member = Member { identity, address, library, trackers: None, tracker_url: None };
    let metrics = Registry::new();
    Node { overlay: Overlay::start(&config, member, &metrics).await.unwrap(), metrics }
}

/// Each node has the first blob in common, and is alone with its others.
fn digest(node: usize, blob: usize) -> Digest {
    if blob == 0 { Digest::sha256(b"content") } else { Digest::sha256(format!("{node} {blob}").as_bytes()) }
}

/// What all have is asked for, because only that has a true metainfo here.
async fn search(nodes: &[Node], blobs: usize) {
    if blobs == 0 {
        return;
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    for node in nodes.iter().cycle().step_by(7).take(SEARCHES) {
        let asked = Instant::now();
        match node.overlay.handle().find(None, &digest(0, 0)).await {
            Ok(_) => times.push(asked.elapsed()),
            Err(_) => failed += 1,
        }
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("  a search      p50 {:?}, p95 {:?}, {failed} of {SEARCHES} failed", at(50), at(95));
}

fn total(nodes: &[Node], name: &str) -> f64 {
    let families = nodes.iter().flat_map(|node| node.metrics.gather());
    let of_name = families.filter(|family| family.name() == name);
    of_name
        .map(|family| {
            let metrics = family.get_metric().iter();
            metrics
                .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
                .sum::<f64>()
        })
        .sum()
}

/// Bytes that this process has in memory.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Seconds of a processor that this process took.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime are the 14th and 15th of all (proc(5)), in hundredths.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
