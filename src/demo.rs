//! `shoal demo`: a cluster, an image pushed, all agents pull it at once, every byte is checked, a table says how it went.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use shoal_core::Digest;
use shoal_transfer::Stats;

use crate::cli;
use crate::client::{Client, Pulled};
use crate::cluster::{Cluster, Plan, Ports};
use crate::image::Image;
use crate::roles;

/// How large the demo is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How many agents pull at once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    agents: u16,
    /// How large the image is, such as 512MiB or 1GB. The origin and each agent keep a copy while the demo runs.
    #[arg(long, default_value = "1GiB", value_parser = cli::image_size, value_name = "BYTES")]
    size: u64,
    /// Where the cluster keeps its files; a temporary folder, removed at the end, if none is named.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

const REPOSITORY: &str = "demo/app";
const TAG: &str = "latest";
const LAYERS: u32 = 4;

/// What one agent did.
struct Row {
    agent: usize,
    elapsed: Duration,
    pulls: Vec<Pulled>,
    stats: Stats,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("shoal-demo-").tempdir()?;
    let directory = options.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    println!(
        "demo: a tracker, an origin and {} agent(s) on loopback, an image of {} in {LAYERS} layers, files in {}",
        options.agents,
        ByteSize(options.size),
        directory.display()
    );
    let plan = Plan { directory, agents: options.agents.into(), ports: Ports::Free };
    let cluster = Cluster::start(plan).await?;
    // Interrupted, it still takes its temporary folder away.
    let outcome = tokio::select! {
        outcome = push_and_pull(&cluster, options.size) => outcome,
        signal = roles::terminated() => signal.and_then(|()| bail!("interrupted")),
    };
    cluster.shutdown().await;
    let rows = outcome?;
    println!("{}", table(&rows));
    println!("{}", summary(&rows));
    Ok(())
}

async fn push_and_pull(cluster: &Cluster, size: u64) -> anyhow::Result<Vec<Row>> {
    let seed = std::process::id().into();
    let image = tokio::task::spawn_blocking(move || Image::generate(size, LAYERS, seed)).await?;
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());

    let bar = bar(&bars, "push to origin", image.length());
    let pushing = bar.clone();
    let origin = Client::new(cluster.origin().registry_address())?;
    origin
        .push(REPOSITORY, TAG, &image, move |bytes| pushing.inc(bytes))
        .await
        .context("push to the origin")?;
    bar.finish();
    if !std::io::stderr().is_terminal() {
        println!("pushed {} to the origin, pulling with all agents at once", ByteSize(image.length()));
    }

    let pulls = (0..cluster.agent_count()).map(|agent| {
        let bar = self::bar(&bars, &format!("agent {agent}"), image.length());
        pull(cluster, agent, bar)
    });
    let rows = futures_util::future::try_join_all(pulls).await?;
    for row in &rows {
        let bytes: u64 = row.pulls.iter().map(|pulled| pulled.bytes).sum();
        ensure!(bytes == image.length(), "agent {} gave {bytes} bytes of {}", row.agent, image.length());
    }
    Ok(rows)
}

/// Pulls the image through one agent as a runtime does: the manifest by tag, then all blobs at once.
async fn pull(cluster: &Cluster, agent: usize, bar: ProgressBar) -> anyhow::Result<Row> {
    let client = Client::new(cluster.agent(agent).registry_address())?;
    let started = Instant::now();
    let manifest = client.pull_manifest(REPOSITORY, TAG).await.with_context(|| format!("agent {agent}"))?;
    let first =
        Pulled { bytes: manifest.len() as u64, first_byte: started.elapsed(), whole: started.elapsed() };
    bar.inc(first.bytes);
    let blobs = blobs_of(&manifest)?;
    let pulls = blobs.iter().map(|digest| client.pull_blob(REPOSITORY, digest, |bytes| bar.inc(bytes)));
    let mut pulls =
        futures_util::future::try_join_all(pulls).await.with_context(|| format!("agent {agent}"))?;
    pulls.push(first);
    bar.finish();
    Ok(Row { agent, elapsed: started.elapsed(), pulls, stats: cluster.agent(agent).stats() })
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

fn blobs_of(manifest: &[u8]) -> anyhow::Result<Vec<Digest>> {
    let manifest: Manifest = serde_json::from_slice(manifest)?;
    Ok(std::iter::once(manifest.config).chain(manifest.layers).map(|descriptor| descriptor.digest).collect())
}

fn bar(bars: &MultiProgress, name: &str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix:16} {bar:40} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}",
    )
    .expect("the template is a constant");
    bars.add(ProgressBar::new(length).with_style(style).with_prefix(name.to_owned()))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["agent", "seconds", "MiB/s", "first byte ms", "MiB from peers", "MiB from the origin"]);
    for row in rows {
        let bytes: u64 = row.pulls.iter().map(|pulled| pulled.bytes).sum();
        table.add_row([
            row.agent.to_string(),
            format!("{:.2}", row.elapsed.as_secs_f64()),
            format!("{:.0}", mebibytes(bytes) / row.elapsed.as_secs_f64()),
            format!("{:.1}", milliseconds(median_first_byte(std::slice::from_ref(row)))),
            format!("{:.1}", mebibytes(row.stats.bytes_from_peers)),
            format!("{:.1}", mebibytes(row.stats.bytes_from_origins)),
        ]);
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn summary(rows: &[Row]) -> String {
    let peers: u64 = rows.iter().map(|row| row.stats.bytes_from_peers).sum();
    let origin: u64 = rows.iter().map(|row| row.stats.bytes_from_origins).sum();
    let bytes: u64 = rows.iter().flat_map(|row| &row.pulls).map(|pulled| pulled.bytes).sum();
    let blobs = rows.first().map_or(0, |row| row.pulls.len());
    format!(
        "demo: ok agents={} blobs={blobs} bytes={bytes} peers_pct={:.1} first_byte_ms={:.1}",
        rows.len(),
        100.0 * peers as f64 / (peers + origin).max(1) as f64,
        milliseconds(median_first_byte(rows)),
    )
}

/// The median, over all blobs, of the time to the first byte.
fn median_first_byte(rows: &[Row]) -> Duration {
    let mut times: Vec<Duration> =
        rows.iter().flat_map(|row| &row.pulls).map(|pulled| pulled.first_byte).collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
