//! What one tracker carries: hosts that announce at its interval, then all ask for one blob. Real processes, TLS, kept
//! connections, the agents' own client.
//!
//! By `cargo test` it is small, and only says whether all is answered. The figures:
//! `HOSTS=15000 TRACKER_CPU=0 cargo test --release --test tracker-load -- --nocapture`
//!
//! `HOSTS` (default 30), `BLOBS` a host (50), `SECONDS` of steady announces (3), `FIND_SECONDS` within which each host asks
//! once (1), `BLOB_MIB` of that blob (8), `TRACKER_CPU`: the only processor that the tracker may use (any).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[allow(dead_code, reason = "shared with the tests of clusters")]
#[path = "../../cluster/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with the tests of clusters")]
#[path = "../../cluster/support.rs"]
mod support;

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use process::{Process, Processes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal::image::Layer;
use shoal_control::{Holding, TrackerClient};
use shoal_core::{Digest, PeerAddress, Role, Zone};
use shoal_identity::Authority;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Hosts that connect at once at the beginning: a roll-out of agents, not an attack.
const CONNECTING: usize = 64;

struct Host {
    tracker: TrackerClient,
    address: PeerAddress,
    number: usize,
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_answers_every_host() {
    let (count, blobs) = (setting("HOSTS", 30), setting("BLOBS", 50));
    let within = |name, default| Duration::from_secs(setting(name, default) as u64);
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let cluster = Processes::start().await;
    if let Ok(cpu) = std::env::var("TRACKER_CPU") {
        let id = cluster.tracker.id().to_string();
        assert!(Command::new("taskset").args(["-a", "-p", "-c", &cpu, &id]).status().unwrap().success());
    }
    let hosts = hosts(&cluster, count);
    let load = Load { tracker: &cluster.tracker };

    let all = |host: &Host| (0..blobs).map(|blob| holding(host.number, blob)).collect::<Vec<_>>();
    let connecting = Arc::new(Semaphore::new(CONNECTING));
    load.measure("join", &hosts, |host| {
        let (connecting, added) = (Arc::clone(&connecting), all(&host));
        async move {
            let _turn = connecting.acquire().await.unwrap();
            let began = Instant::now();
            host.tracker.announce(&host.address, None, &added, &[], true).await.unwrap();
            began.elapsed()
        }
    })
    .await;

    let (steady, interval) = (within("SECONDS", 3), Duration::from_secs(20).min(within("SECONDS", 3)));
    let rounds = (steady.as_secs_f64() / interval.as_secs_f64()).ceil() as usize;
    let started = Instant::now();
    for round in 0..rounds {
        let began = started + interval * round as u32;
        load.measure("announce", &hosts, |host| async move {
            let at = began + interval.mul_f64(host.number as f64 / count as f64);
            tokio::time::sleep_until(at).await;
            // What a host pulls in that time, and evicts.
            let (added, removed) = (holding(host.number, blobs + round), holding(host.number, round).digest);
            let said = host.tracker.announce(&host.address, None, &[added], &[removed], false).await.unwrap();
            assert!(!said.send_all, "the tracker forgot host {}", host.number);
            at.elapsed()
        })
        .await;
    }

    let layer = Layer::generate(setting("BLOB_MIB", 8) as u64 * support::MIB, 1);
    cluster.origin.client().push_layer(support::REPOSITORY, layer, |_| ()).await.unwrap();
    let digest = layer.digest;
    let (began, spread) = (Instant::now(), within("FIND_SECONDS", 1));
    load.measure("find", &hosts, |host| async move {
        let at = began + spread.mul_f64(host.number as f64 / count as f64);
        tokio::time::sleep_until(at).await;
        let found = host.tracker.find(None, &digest).await.unwrap();
        assert!(!found.peers.is_empty());
        at.elapsed()
    })
    .await;
}

fn hosts(cluster: &Processes, count: usize) -> Vec<Arc<Host>> {
    let authority = Authority::load(&cluster.folder("ca")).unwrap();
    let host = |number| {
        let identity = authority.issue(Role::Agent, &format!("host-{number}")).unwrap();
        let address = PeerAddress {
            id: identity.id(),
            role: Role::Agent,
            addresses: vec![(Ipv4Addr::LOCALHOST, 16002).into()],
            zone: Zone(format!("rack-{}", number % 100)),
        };
        let tracker = TrackerClient::new(&identity, vec![cluster.tracker_url().to_owned()]).unwrap();
        Arc::new(Host { tracker, address, number })
    };
    (0..count).map(host).collect()
}

/// A hundred hosts share an image.
fn holding(host: usize, blob: usize) -> Holding {
    let mut name = [0; 32];
    name[..8].copy_from_slice(&(host as u64 / 100).to_be_bytes());
    name[8..16].copy_from_slice(&(blob as u64).to_be_bytes());
    Holding { digest: Digest::Sha256(name), complete: true }
}

struct Load<'a> {
    tracker: &'a Process,
}

impl Load<'_> {
    /// Lets each host do something, and prints how long it took them, and what it cost the tracker.
    async fn measure<F: Future<Output = Duration> + Send + 'static>(
        &self,
        what: &str,
        hosts: &[Arc<Host>],
        act: impl Fn(Arc<Host>) -> F,
    ) {
        let (began, before) = (Instant::now(), self.tracker.processor_time());
        let mut acts: JoinSet<Duration> = hosts.iter().map(|host| act(Arc::clone(host))).collect();
        let mut times = Vec::with_capacity(hosts.len());
        while let Some(time) = acts.join_next().await {
            times.push(time.unwrap());
        }
        times.sort();
        let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "tracker-load: {what} hosts={} seconds={:.1} p50_ms={:.2} p99_ms={:.2} max_ms={:.2} tracker_cpu_us={:.0} tracker_mib={:.1}",
            hosts.len(),
            began.elapsed().as_secs_f64(),
            quantile(0.5),
            quantile(0.99),
            quantile(1.0),
            (self.tracker.processor_time() - before).as_secs_f64() * 1e6 / hosts.len() as f64,
            self.tracker.memory() as f64 / support::MIB as f64,
        );
    }
}
