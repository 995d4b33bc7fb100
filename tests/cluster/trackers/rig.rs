//! A cluster of processes with several trackers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use shoal::image::Layer;
use shoal_control::TrackerClient;
use shoal_core::{Digest, Role};
use shoal_identity::{Authority, Identity};
use tempfile::TempDir;

use crate::faults::push;
use crate::process::{Process, free_port, shoal, stored};
use crate::support::{REPOSITORY, eventually};

/// Trackers whose nodes announce themselves often, an origin that knows them all, and whoever asks.
pub(super) struct Rig {
    folder: TempDir,
    pub(super) trackers: Vec<Option<Process>>,
    configs: Vec<String>,
    urls: Vec<String>,
    pub(super) origin: Process,
    origin_url: String,
    asker: Identity,
}

const ENTRIES: &str = "shoal_tracker_swarm_entries";

impl Rig {
    /// `tables`: more of each tracker's configuration.
    pub(super) async fn start(count: usize, tables: &str) -> Self {
        shoal_identity::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        shoal(&["ca", "init", "--directory", ca.to_str().unwrap()]);
        let ports: Vec<_> = (0..count).map(|_| free_port()).collect();
        let urls: Vec<_> = ports.iter().map(|port| format!("https://127.0.0.1:{port}")).collect();
        let config = |port| {
            format!("listen = \"127.0.0.1:{port}\"\nannounce_interval = \"500ms\"\nlease = \"10s\"\n{tables}")
        };
        let configs: Vec<_> = ports.iter().map(config).collect();
        let trackers = configs.iter().enumerate();
        let trackers =
            trackers.map(|(number, config)| Some(tracker(folder.path(), number, config))).collect();
        let api_port = free_port();
        let stored = stored(folder.path(), "origin", "");
        let config = format!(
            "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:{api_port}\"\ntracker = {urls:?}\n{stored}"
        );
        let origin = Process::spawn(folder.path(), Role::Origin, "origin", &config);
        origin.ready().await;
        let asker = Authority::load(&ca).unwrap().issue(Role::Agent, "asker").unwrap();
        let origin_url = format!("https://127.0.0.1:{api_port}");
        Self { folder, trackers, configs, urls, origin, origin_url, asker }
    }

    /// An agent that knows these trackers.
    pub(super) async fn agent(&self, name: &str, trackers: &[usize]) -> Process {
        let urls: Vec<_> = trackers.iter().map(|&number| &self.urls[number]).collect();
        let stored = stored(self.folder.path(), name, "min_free = 0\ncapacity = \"100%\"\n");
        let config = format!(
            "listen = \"127.0.0.1:0\"\ntracker = {urls:?}\norigins = [{:?}]\n{stored}",
            self.origin_url
        );
        let agent = Process::spawn(self.folder.path(), Role::Agent, name, &config);
        agent.ready().await;
        agent
    }

    pub(super) async fn push(&self, seed: u64) -> Layer {
        push(&self.origin.client(), 64 << 10, seed).await
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, number: usize) {
        self.trackers[number].take().expect("it runs").kill();
    }

    pub(super) fn restart(&mut self, number: usize) {
        self.trackers[number] = Some(tracker(self.folder.path(), number, &self.configs[number]));
    }

    pub(super) fn tracker(&self, number: usize) -> &Process {
        self.trackers[number].as_ref().expect("it runs")
    }

    /// How many holdings of nodes the trackers know.
    pub(super) async fn entries(&self, trackers: &[usize]) -> f64 {
        let mut sum = 0.0;
        for &number in trackers {
            sum += self.tracker(number).metric(ENTRIES).await;
        }
        sum
    }

    /// Which agents these trackers hand out for a blob, by where they are.
    pub(super) async fn handed_out(&self, trackers: &[usize], digest: &Digest) -> BTreeSet<SocketAddr> {
        let urls = trackers.iter().map(|&number| self.urls[number].clone()).collect();
        let client = TrackerClient::new(&self.asker, urls).unwrap();
        let found = match client.find(None, digest).await {
            Ok(found) => found,
            Err(error) => {
                eprintln!("find: {error:?}");
                return BTreeSet::new();
            }
        };
        let agents = found.peers.iter().filter(|peer| peer.role == Role::Agent);
        agents.flat_map(|peer| peer.addresses.iter().copied()).collect()
    }

    /// Waits until that tracker hands out just these agents for a blob.
    pub(super) async fn hands_out(&self, number: usize, layer: &Layer, agents: &[&Process]) {
        let expected: BTreeSet<_> = agents.iter().map(|agent| agent.peers()).collect();
        eventually(&format!("tracker {number} hands out {expected:?}"), async || {
            (self.handed_out(&[number], &layer.digest).await == expected).then_some(())
        })
        .await;
    }
}

fn tracker(folder: &Path, number: usize, config: &str) -> Process {
    Process::spawn(folder, Role::Tracker, &format!("tracker-{number}"), config)
}

pub(super) async fn pull(agent: &Process, layer: &Layer) {
    agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
}
