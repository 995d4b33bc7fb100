//! Pulls for a while through agents that have room for a fraction of what they are asked for. Every byte is checked; memory
//! and descriptors must stay flat, and the store within its capacity, all the time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use shoal::image::Layer;

use crate::process::{Process, Processes};
use crate::support::{MIB, REPOSITORY, blob_path, eventually, slice};

/// For each agent; all blobs together are five times as much.
const CAPACITY: u64 = 40 * MIB;
const BLOBS: u64 = 64;
const CLIENTS_PER_AGENT: u64 = 3;
/// Between two looks at the agent.
const PULLS_PER_SAMPLE: u32 = 4;

/// What an agent needed at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    memory: u64,
    descriptors: usize,
}

struct Soak {
    agents: Vec<Process>,
    layers: Vec<Layer>,
    started: Instant,
    duration: Duration,
}

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(15, |text| text.parse().unwrap())
}

impl Soak {
    fn is_over(&self) -> bool {
        self.started.elapsed() >= self.duration
    }

    /// One client's life: whole blobs mostly, ranges, and downloads that are cut.
    async fn run(&self, number: usize, seed: u64) -> Vec<Sample> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let agent = &self.agents[number];
        let (client, mut samples) = (agent.client(), Vec::new());
        while !self.is_over() {
            for _ in 0..PULLS_PER_SAMPLE {
                let layer = self.layers[rng.random_range(0..self.layers.len())];
                match rng.random_range(0..8) {
                    0 => self.cut(agent, layer).await,
                    1 => self.read_range(agent, layer, &mut rng).await,
                    _ => {
                        let pulled = client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
                        assert_eq!(pulled.bytes, layer.length());
                    }
                }
            }
            samples.push(self.look(agent).await);
        }
        samples
    }

    async fn cut(&self, agent: &Process, layer: Layer) {
        let mut body = agent.client().get(&blob_path(&layer.digest)).await.unwrap().bytes_stream();
        body.next().await.unwrap().unwrap();
    }

    async fn read_range(&self, agent: &Process, layer: Layer, rng: &mut SmallRng) {
        let start = rng.random_range(0..layer.length());
        let end = rng.random_range(start..layer.length()).min(start + MIB);
        let range = format!("bytes={start}-{end}");
        let response = agent.client().get_range(&blob_path(&layer.digest), &range).await.unwrap();
        assert_eq!(response.status(), 206);
        assert!(response.bytes().await.unwrap() == slice(layer, start, end + 1), "a wrong byte in {range}");
    }

    async fn look(&self, agent: &Process) -> Sample {
        let bytes = agent.metric("shoal_store_bytes").await;
        assert!(bytes <= CAPACITY as f64, "{bytes} bytes in a store of {CAPACITY}");
        Sample { at: self.started.elapsed(), memory: agent.memory(), descriptors: agent.descriptors() }
    }
}

/// The greatest after the first third must be in its second third, but for noise: what leaks is greatest at the end.
fn assert_flat(what: &str, samples: &[Sample], duration: Duration, of: impl Fn(&Sample) -> f64, noise: f64) {
    let most = |from: f64, to: f64| {
        let span = duration.mul_f64(from)..duration.mul_f64(to);
        samples.iter().filter(|sample| span.contains(&sample.at)).map(&of).fold(0.0, f64::max)
    };
    let (middle, end) = (most(0.33, 0.66), most(0.66, 10.0));
    eprintln!("soak: {what}: at most {middle} in the middle, {end} at the end");
    assert!(middle > 0.0 && end > 0.0, "too few samples");
    assert!(end <= middle + noise, "{what} grows: {middle}, then {end}");
}

/// Bytes of blobs, or parts of them, in a folder and those below it. What is told of them has a name with a dot.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(_) if entry.path().extension().is_some() => 0,
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_with_little_room_serve_every_byte_for_as_long_as_they_are_asked() {
    let cluster = Processes::start().await;
    let mut layers = Vec::new();
    for seed in 0..BLOBS {
        let layer = Layer::generate(MIB / 2 + seed * MIB / 12, 1000 + seed);
        cluster.origin.client().push_layer(REPOSITORY, layer, |_| ()).await.unwrap();
        layers.push(layer);
    }
    assert!(layers.iter().map(Layer::length).sum::<u64>() > 4 * CAPACITY);
    let mut agents = Vec::new();
    for name in ["one", "two"] {
        let keys = format!("capacity = {CAPACITY}\nhigh_watermark = \"90%\"\nlow_watermark = \"75%\"\n");
        agents.push(cluster.agent_with(name, &keys, "").await);
    }
    let duration = Duration::from_secs(seconds());
    let soak = Arc::new(Soak { agents, layers, started: Instant::now(), duration });
    let clients: Vec<_> = (0..2 * CLIENTS_PER_AGENT)
        .map(|client| {
            let (soak, number) = (soak.clone(), client as usize % 2);
            (number, tokio::spawn(async move { soak.run(number, client).await }))
        })
        .collect();
    let mut samples = [Vec::new(), Vec::new()];
    for (number, client) in clients {
        samples[number].extend(client.await.unwrap());
    }
    for (number, (agent, name)) in soak.agents.iter().zip(["one", "two"]).enumerate() {
        let of_agent = &samples[number];
        assert_flat("descriptors", of_agent, duration, |sample| sample.descriptors as f64, 64.0);
        assert_flat("MiB of memory", of_agent, duration, |sample| (sample.memory / MIB) as f64, 24.0);
        let evicted = agent.metric("shoal_store_evictions_total{kind=\"blob\"}").await;
        eprintln!("soak: {} samples, {evicted} evictions", of_agent.len());
        assert!(evicted >= duration.as_secs_f64(), "{evicted} evictions");
        assert_eq!(agent.metric("shoal_store_refusals_total").await, 0.0);
        let data = cluster.folder(name).join("data");
        eventually("files and metrics agree", async || {
            // A blob of which ranges were read stays a partial, with the length of the whole.
            let on_disk = bytes_below(&data.join("blobs")) + bytes_below(&data.join("partial"));
            (on_disk as f64 == agent.metric("shoal_store_bytes").await).then_some(())
        })
        .await;
        assert!(agent.complaints().is_empty(), "{:?}", agent.complaints());
    }
}
