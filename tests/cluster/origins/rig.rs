//! Three origins that keep every blob twice, a tracker, and an agent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use shoal::client::Client;
use shoal::image::Image;
use shoal_control::ClusterClient;
use shoal_core::{Digest, Role};
use shoal_identity::Authority;
use tempfile::TempDir;

use super::network::{Network, client_address, peer_address};
use crate::process::{Process, binary, free_port, issue, shoal, stored};

pub(super) const COUNT: usize = 3;
pub(super) const REPLICAS: usize = 2;
const LOOPBACK: &str = "127.0.0.1";

/// A cluster of processes.
pub(super) struct Rig {
    folder: TempDir,
    tracker_url: String,
    urls: Vec<String>,
    _tracker: Process,
    origins: Vec<Option<Process>>,
    /// How many there are in the configuration.
    members: usize,
    /// More keys of `[cluster]`, and tables after it, for those that start from now on.
    more: String,
    /// Where each origin has a host of its own.
    network: Option<Network>,
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::start_with(COUNT).await
    }

    /// The first `members` of the origins, which know of no others.
    pub(super) async fn start_with(members: usize) -> Self {
        Self::start_configured(members, "").await
    }

    /// The same with more keys of `[cluster]`, and tables.
    pub(super) async fn start_configured(members: usize, more: &str) -> Self {
        Self::start_in(None, members, |_| more.to_owned()).await
    }

    /// With more tables in their configuration, which may name the rig's folder.
    pub(super) async fn configured(members: usize, more: impl FnOnce(&Path) -> String) -> Self {
        Self::start_in(None, members, more).await
    }

    /// Each origin on its host.
    pub(super) async fn start_apart(network: Network) -> Self {
        Self::start_in(Some(network), COUNT, |_| String::new()).await
    }

    async fn start_in(network: Option<Network>, members: usize, more: impl FnOnce(&Path) -> String) -> Self {
        shoal_identity::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        shoal(&["ca", "init", "--directory", ca.to_str().unwrap()]);
        let tracker_port = free_port();
        let is_apart = network.is_some();
        let tracker_host = if is_apart { client_address(COUNT) } else { LOOPBACK.to_owned() };
        let config = format!(
            "listen = \"{tracker_host}:{tracker_port}\"\nannounce_interval = \"500ms\"\nlease = \"5s\"\n"
        );
        let tracker = Process::spawn(folder.path(), Role::Tracker, "tracker", &config);
        let api_host = |place| if is_apart { peer_address(place) } else { LOOPBACK.to_owned() };
        let urls = (0..COUNT).map(|place| format!("https://{}:{}", api_host(place), free_port())).collect();
        let tracker_url = format!("https://{tracker_host}:{tracker_port}");
        let origins = Vec::new();
        let more = more(folder.path());
        let mut rig = Self { folder, tracker_url, urls, _tracker: tracker, origins, members, more, network };
        rig.origins = (0..COUNT).map(|place| (place < members).then(|| rig.spawn(place))).collect();
        rig.all_well().await;
        rig
    }

    fn spawn(&self, place: usize) -> Process {
        let (name, api) = (name(place), self.urls[place].trim_start_matches("https://"));
        let (client_host, peer_host) = match self.network {
            Some(_) => (client_address(place), peer_address(place)),
            None => (LOOPBACK.to_owned(), LOOPBACK.to_owned()),
        };
        let config = format!(
            "admin = \"{client_host}:0\"\nlisten = \"{client_host}:0\"\napi_listen = {api:?}\ntracker = [{:?}]\n{}\
             [cluster]\norigins = {:?}\nreplicas = {REPLICAS}\nprobe_interval = \"200ms\"\n\
             stall_timeout = \"5s\"\nrepair_interval = \"2s\"\n{}",
            self.tracker_url,
            stored(self.folder.path(), &name, "").replace(LOOPBACK, &peer_host),
            &self.urls[..self.members],
            self.more,
        );
        issue(self.folder.path(), Role::Origin, &name);
        let folder = self.folder.path();
        let command = match &self.network {
            Some(network) => network.command(place, &binary(folder)),
            None => Command::new(binary(folder)),
        };
        Process::spawn_by(command, folder, Role::Origin, &name, &config)
    }

    pub(super) fn network(&self) -> &Network {
        self.network.as_ref().expect("each origin has a host")
    }

    pub(super) async fn agent(&self, name: &str) -> Process {
        self.agent_with(name, "").await
    }

    /// The same with more keys.
    pub(super) async fn agent_with(&self, name: &str, keys: &str) -> Process {
        self.agent_by(name, keys, "").await
    }

    /// The same with more tables.
    pub(super) async fn agent_by(&self, name: &str, keys: &str, tables: &str) -> Process {
        let config = format!(
            "listen = \"127.0.0.1:0\"\ntracker = [{:?}]\norigins = {:?}\n{keys}{}{tables}",
            self.tracker_url,
            self.urls,
            stored(self.folder.path(), name, "min_free = 0\ncapacity = \"100%\"\n")
        );
        let agent = Process::spawn(self.folder.path(), Role::Agent, name, &config);
        agent.ready().await;
        agent
    }

    /// A client of the origins' words for each other, in that role.
    pub(super) fn asker(&self, role: Role) -> ClusterClient {
        let authority = Authority::load(&self.folder.path().join("ca")).unwrap();
        let asker = authority.issue(role, "asker").unwrap();
        ClusterClient::new(&asker, self.urls.clone(), Duration::from_secs(10)).unwrap()
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, place: usize) {
        self.origins[place].take().expect("it runs").kill();
    }

    pub(super) fn restart(&mut self, place: usize) {
        self.origins[place] = Some(self.spawn(place));
    }

    /// Makes all origins members: those that run are started anew, one after the other.
    pub(super) fn grow(&mut self) {
        self.members = COUNT;
        for place in 0..COUNT {
            self.origins[place] = None;
            self.restart(place);
        }
    }

    /// Forgets the blobs of all origins, whose links stay, and begins again with those tables in their configuration.
    pub(super) async fn start_without_blobs(&mut self, more: String) {
        self.more = more;
        for place in 0..COUNT {
            self.kill(place);
            for tree in ["blobs", "metainfo"] {
                std::fs::remove_dir_all(self.folder.path().join(name(place)).join("data").join(tree))
                    .unwrap();
            }
            self.restart(place);
        }
        self.all_well().await;
    }

    /// Loses the disks of all origins, and begins again.
    pub(super) async fn wipe(&mut self) {
        self.wipe_with(|| ());
        self.all_well().await;
    }

    /// The same without waiting, with something done after each has begun again.
    pub(super) fn wipe_with(&mut self, mut after: impl FnMut()) {
        for place in self.live() {
            self.kill(place);
        }
        for place in 0..COUNT {
            self.delete_store(place);
            self.restart(place);
            after();
        }
    }

    /// Begins again with other tables.
    pub(super) async fn reconfigure(&mut self, more: String) {
        self.more = more;
        for place in self.live() {
            self.kill(place);
            self.restart(place);
        }
        self.all_well().await;
    }

    /// A folder that is there as long as the rig.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn origin(&self, place: usize) -> &Process {
        self.origins[place].as_ref().expect("it runs")
    }

    pub(super) fn client(&self, place: usize) -> Client {
        self.origin(place).client()
    }

    /// The places of those that run.
    pub(super) fn live(&self) -> Vec<usize> {
        (0..COUNT).filter(|&place| self.origins[place].is_some()).collect()
    }

    /// Waits until every origin that runs sees that just these are well, and trackers know them.
    pub(super) async fn all_well(&self) {
        let live = self.live();
        for &place in &live {
            let origin = self.origin(place);
            origin.ready().await;
            in_time("origins see each other", async || {
                let well = origin.metric("shoal_origin_cluster_origins_well").await;
                ensure!(well == live.len() as f64, "origin {place} sees {well} origins that are well");
                Ok(())
            })
            .await;
        }
    }

    /// How many origins have the blob whole in their stores, running or not.
    pub(super) fn copies(&self, digest: &Digest) -> usize {
        (0..COUNT).filter(|&place| self.has(place, digest)).count()
    }

    pub(super) fn has(&self, place: usize, digest: &Digest) -> bool {
        let (hex, store) = (digest.hex(), self.folder.path().join(name(place)).join("data"));
        store.join("blobs/sha256").join(&hex[..2]).join(&hex).exists()
    }

    /// Waits until every blob of the image is at as many origins as it should be.
    pub(super) async fn replicated(&self, image: &Image) {
        for digest in blobs(image) {
            in_time("enough copies", async || {
                let copies = self.copies(&digest);
                ensure!(copies >= REPLICAS, "{digest} has {copies} copies");
                Ok(())
            })
            .await;
        }
    }

    pub(super) fn delete_store(&self, place: usize) {
        std::fs::remove_dir_all(self.folder.path().join(name(place)).join("data")).unwrap();
    }
}

fn name(place: usize) -> String {
    format!("origin-{place}")
}

/// Every blob of an image, the manifest among them.
pub(super) fn blobs(image: &Image) -> Vec<Digest> {
    let layers = image.layers.iter().map(|layer| layer.digest);
    layers.chain([Digest::sha256(&image.config), Digest::sha256(&image.manifest)]).collect()
}

/// Pulls all of an image by its tag, and checks that it is that image.
pub(super) async fn pull(client: &Client, repository: &str, tag: &str, image: &Image) -> anyhow::Result<()> {
    let manifest = client.pull_manifest(repository, tag).await?;
    ensure!(manifest == image.manifest, "{repository}:{tag} is another image");
    client.pull_manifest(repository, &Digest::sha256(&image.manifest).to_string()).await?;
    for layer in &image.layers {
        client.pull_blob(repository, &layer.digest, |_| ()).await?;
    }
    client.pull_blob(repository, &Digest::sha256(&image.config), |_| ()).await.map(drop)
}

/// Tries again and again until it works, for at most two minutes.
pub(super) async fn in_time<T>(what: &str, mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    let started = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    loop {
        pause.tick().await;
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                assert!(started.elapsed() < Duration::from_secs(120), "{what}: not in time: {error:#}");
            }
        }
    }
}
