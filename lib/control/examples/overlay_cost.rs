//! What the overlay costs a node that does nothing: bytes a second on the wire and memory, for a cluster on one machine.
//!
//! ```text
//! cargo run --release -p shoal-control --example overlay_cost -- NODES BLOBS SETTLE_SECONDS MEASURE_SECONDS
//! ```
//!
//! Every node is the real one, on loopback, with a certificate of its own; all join by the first three. Each holds that many
//! blobs of its own and announces them. After the time to settle, the bytes of all connections are counted for as long as
//! is asked; at the end nodes ask for blobs of others, and the time that takes is printed as well.
//!
//! Nodes have some ninety connections each: they are dealt out to processes, of which none comes near the usual limit of
//! open files.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says so by a panic")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
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
/// How many nodes share a process.
const OF_A_PROCESS: usize = 100;
/// What a process of nodes is started with, before the rest.
const PART: &str = "part";

fn main() {
    shoal_identity::install_crypto_provider();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [PART, authority, first, count, blobs, join] => {
            let join = join.split(',').filter(|address| !address.is_empty()).map(str::to_owned).collect();
            let numbers = [first, count, blobs].map(|text| text.parse().unwrap());
            tokio::runtime::Runtime::new().unwrap().block_on(run_part(Path::new(authority), numbers, join));
        }
        numbers => measure(&numbers.iter().map(|text| text.parse().unwrap()).collect::<Vec<u64>>()),
    }
}

/// Starts the processes, waits, and adds up what they count.
fn measure(numbers: &[u64]) {
    let number = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    let (count, blobs) = (usize::try_from(number(0, 100)).unwrap(), number(1, 20));
    let (settle, seconds) = (Duration::from_secs(number(2, 90)), Duration::from_secs(number(3, 120)));
    let directory = tempfile::tempdir().unwrap();
    Authority::generate("cost").unwrap().save(directory.path()).unwrap();
    let mut parts: Vec<Part> = Vec::new();
    for first in (0..count).step_by(OF_A_PROCESS) {
        let join = parts.first().map_or("", |part| &part.meeting);
        let of_part = OF_A_PROCESS.min(count - first);
        let part = Part::start(directory.path(), [first, of_part, usize::try_from(blobs).unwrap()], join);
        parts.push(part);
        eprintln!("{} of {count} nodes are up", first + of_part);
    }
    std::thread::sleep(settle);
    let (started, before) = (Instant::now(), Counts::sum(&mut parts));
    std::thread::sleep(seconds);
    let (after, took, each) = (Counts::sum(&mut parts), started.elapsed().as_secs_f64(), count as f64);
    println!("nodes {count}, blobs of each {blobs}, after {} s, over {took:.0} s, a node:", settle.as_secs());
    println!("  sent          {:8.0} B/s", (after.sent - before.sent) / took / each);
    println!("  received      {:8.0} B/s", (after.received - before.received) / took / each);
    println!("  processor     {:8.3} % of one", (after.processor - before.processor) / took / each * 100.0);
    println!("  memory        {:8.0} KiB", after.memory / 1024.0 / each);
    println!("  connections   {:8.1}", after.connections / each);
    println!("  records       {:8.1}", after.records / each);
    println!("  to get there, sent {:.0} KiB", before.sent / each / 1024.0);
    if blobs == 0 {
        return;
    }
    let share = SEARCHES.div_ceil(parts.len());
    let mut times: Vec<f64> =
        parts.iter_mut().flat_map(|part| part.ask(&format!("search {share}"))).collect();
    times.sort_unstable_by(f64::total_cmp);
    let failed = times.iter().filter(|time| time.is_infinite()).count();
    let at = |share: usize| times[(times.len() - 1) * share / 100] * 1e3;
    println!(
        "  a search      p50 {:.1} ms, p95 {:.1} ms, {failed} of {} failed",
        at(50),
        at(95),
        times.len()
    );
}

/// A process of nodes, which answers a line with a line.
struct Part {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// By which others join.
    meeting: String,
}

impl Part {
    fn start(authority: &Path, numbers: [usize; 3], join: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(PART)
            .arg(authority)
            .args(numbers.map(|number| number.to_string()))
            .arg(join)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = process.stdin.take().unwrap();
        let from = BufReader::new(process.stdout.take().unwrap());
        let mut part = Self { process, to, from, meeting: String::new() };
        part.meeting = part.line();
        part
    }

    fn ask(&mut self, question: &str) -> Vec<f64> {
        writeln!(self.to, "{question}").unwrap();
        self.line().split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "a process of nodes has ended");
        line.trim().to_owned()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What nodes have counted so far, or have now.
#[derive(Default)]
struct Counts {
    sent: f64,
    received: f64,
    connections: f64,
    records: f64,
    /// Seconds of a processor.
    processor: f64,
    /// Bytes.
    memory: f64,
}

impl Counts {
    fn sum(parts: &mut [Part]) -> Self {
        let mut sum = Self::default();
        for part in parts {
            let numbers: [f64; 6] = part.ask("count").try_into().unwrap();
            let [sent, received, connections, records, processor, memory] = numbers;
            sum.sent += sent;
            sum.received += received;
            sum.connections += connections;
            sum.records += records;
            sum.processor += processor;
            sum.memory += memory;
        }
        sum
    }
}

struct Node {
    overlay: Overlay,
    metrics: Registry,
}

/// Starts nodes, prints by which others join, and answers the lines that come in until there are no more.
async fn run_part(authority: &Path, [first, count, blobs]: [usize; 3], join: Vec<String>) {
    let authority = Authority::load(authority).unwrap();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let before = memory();
    let mut nodes: Vec<Node> = Vec::new();
    for number in first..first + count {
        let identity = authority.issue(Role::Agent, &format!("agent-{number}")).unwrap();
        let join = if join.is_empty() { meeting(&nodes) } else { join.clone() };
        let node = start(identity, &origin, join).await;
        for blob in 0..blobs {
            node.overlay.handle().used(digest(number, blob));
        }
        nodes.push(node);
    }
    println!("{}", meeting(&nodes).join(","));
    for question in std::io::stdin().lines().map_while(Result::ok) {
        let numbers = match question.split_once(' ') {
            None => {
                let names = [SENT, RECEIVED, "shoal_overlay_peers", "shoal_overlay_records"];
                let counted = names.map(|name| total(&nodes, name));
                [counted.as_slice(), &[processor(), memory() - before]].concat()
            }
            Some((_, count)) => search(&nodes, count.parse().unwrap()).await,
        };
        println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    }
}

fn meeting(nodes: &[Node]) -> Vec<String> {
    nodes.iter().take(MEETING).map(|node| node.overlay.local_address().to_string()).collect()
}

const SENT: &str = "shoal_overlay_sent_bytes_total";
const RECEIVED: &str = "shoal_overlay_received_bytes_total";

async fn start(identity: Identity, origin: &Identity, join: Vec<String>) -> Node {
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.join = join;
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

/// Seconds that searches took, infinite where nobody was found. What all have is asked for, because only that has a true
/// metainfo here.
async fn search(nodes: &[Node], count: usize) -> Vec<f64> {
    let mut times = Vec::new();
    for node in nodes.iter().cycle().step_by(7).take(count) {
        let asked = Instant::now();
        let found = node.overlay.handle().find(None, &digest(0, 0)).await;
        times.push(if found.is_ok() { asked.elapsed().as_secs_f64() } else { f64::INFINITY });
    }
    times
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
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// Seconds of a processor that this process took.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime are the 14th and 15th of all (proc(5)), in hundredths.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
