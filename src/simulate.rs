//! `shoal simulate`: a roll-out rehearsed in virtual time, by the code that runs in production.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shoal_simulation::{Fault, Report, Scenario, chart};

/// A roll-out. Without options it is the one for which Kraken publishes p50 10 s, p99 18 s and p99.9 22 s.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = MODEL)]
pub(crate) struct Options {
    /// Agents that pull everything.
    #[arg(long, default_value_t = 2600, value_name = "N")]
    hosts: u32,
    /// A blob of the image; repeat it for more. [default: two of 1.5 GB]
    #[arg(long = "blob", value_parser = bytes, value_name = "BYTES")]
    blobs: Vec<u64>,
    /// Origins, which have everything.
    #[arg(long, default_value_t = 5, value_name = "N")]
    origins: u32,
    /// What each host's link carries a second, in each direction.
    #[arg(long, default_value = "300MB", value_parser = bytes, value_name = "BYTES")]
    rate: u64,
    /// What each origin's link does. [default: as the hosts']
    #[arg(long, value_parser = bytes, value_name = "BYTES")]
    origin_rate: Option<u64>,
    /// Zones, among which hosts and origins are dealt out evenly.
    #[arg(long, default_value_t = 1, value_name = "N")]
    zones: u32,
    /// What each zone can exchange with the others a second, in each direction. [default: no limit]
    #[arg(long, value_parser = bytes, value_name = "BYTES")]
    trunk_rate: Option<u64>,
    /// Round trip within a zone.
    #[arg(long, default_value = "500us", value_parser = humantime::parse_duration, value_name = "TIME")]
    rtt: Duration,
    /// Round trip between zones.
    #[arg(long, default_value = "2ms", value_parser = humantime::parse_duration, value_name = "TIME")]
    far_rtt: Duration,
    /// Processor time that the tracker takes for a request.
    #[arg(long, default_value = "300us", value_parser = humantime::parse_duration, value_name = "TIME")]
    tracker_service: Duration,
    /// Processors of the tracker.
    #[arg(long, default_value_t = 4, value_name = "N")]
    tracker_processors: u32,
    /// Hosts start at random within that time.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    start_within: Duration,
    /// One more host starts after that time; the report says how soon it is at the rate of its link.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    late_joiner: Option<Duration>,
    /// Nobody reads the blobs while they arrive: all pieces are chosen by their rarity.
    #[arg(long)]
    no_readers: bool,
    /// What goes wrong; may be repeated. crash:10%@5s (hosts lose power 5 s after their start), crash:10%@5s+3s (and are
    /// back 3 s later), churn:1%@2s (each second some restart), slow:5%/10 (a tenth of the link), slow-disk:5%/50,
    /// corrupt:5% (each of their pieces), tracker:2s..10s (no tracker answers), cut:1@3s..6s (zone 1 is cut off).
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// The seed of all chance: the same one gives the same run.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Runs it with that many seeds, from `--seed` on, as many at once as there are processors; medians count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    runs: u16,
    /// Ends a run after that virtual time, whatever is missing.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration, value_name = "TIME")]
    limit: Duration,
    /// Keys of the exchange engine, as under `[transfer.swarm]` of an agent's configuration: a TOML file.
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Writes all figures to that file; those of several runs as a list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws when hosts had everything, against what the links alone take, to that file. Of several runs, the first.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

const MODEL: &str = "What is real: the exchange engine of every host and origin, and the tracker's state and hand-out policy.\n\
What is a model: each host has a pipe out and a pipe in, of the given rate. Uploads of a host share its pipe out frame by \
frame, by turns, each with at most 1 MiB under way. A frame enters the receiver's pipe as it leaves the sender's, half a round \
trip later, behind what came before it; between zones it passes both zones' trunks too. A whole piece is checked and written at \
1.5 GB/s, one after the other. Messages take half a round trip and no bandwidth. A connection takes three round trips and 1 ms \
of cryptography; a tracker 0.3 ms a request on each of its 4 processors; a host without power is noticed after 5 s of silence, and a dial to it fails after \
as long.\nNot modelled: packet loss, congestion control, busy processors, protocol overhead (give the rate of the payload).";

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let scenario = options.scenario()?;
    let began = Instant::now();
    let reports = rehearse(&scenario, options.runs)?;
    println!("{}", table(&scenario, &reports));
    eprintln!("took {:.0} s of real time", began.elapsed().as_secs_f64());
    if let Some(path) = &options.json {
        write_json(path, &reports)?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, chart(&reports[0]))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", summary(&reports));
    Ok(())
}

impl Options {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let defaults = Scenario::default();
        let engine = match &self.engine {
            None => defaults.engine.clone(),
            Some(path) => engine(path)?,
        };
        Ok(Scenario {
            hosts: self.hosts,
            origins: self.origins,
            blobs: if self.blobs.is_empty() { defaults.blobs.clone() } else { self.blobs.clone() },
            host_rate: self.rate,
            origin_rate: self.origin_rate.unwrap_or(self.rate),
            zones: self.zones,
            trunk_rate: self.trunk_rate,
            round_trip: self.rtt,
            far_round_trip: self.far_rtt,
            tracker_service: self.tracker_service,
            tracker_processors: self.tracker_processors,
            start_within: self.start_within,
            late_joiner: self.late_joiner,
            readers: !self.no_readers,
            faults: self.faults.clone(),
            seed: self.seed,
            limit: self.limit,
            engine,
            ..defaults
        })
    }
}

fn engine(path: &Path) -> anyhow::Result<shoal_swarm::Config> {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};
    Figment::from(Toml::file_exact(path))
        .extract()
        .with_context(|| format!("{} is no configuration of the exchange engine", path.display()))
}

/// One run a seed, in as many threads as there are processors.
fn rehearse(scenario: &Scenario, runs: u16) -> anyhow::Result<Vec<Report>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(runs.into());
    let (next, bars) = (AtomicUsize::new(0), MultiProgress::new());
    let mut reports = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(scenario, runs, &next, &bars))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a run panicked"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?
    .concat();
    reports.sort_by_key(|(run, _)| *run);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

fn work(
    scenario: &Scenario,
    runs: u16,
    next: &AtomicUsize,
    bars: &MultiProgress,
) -> anyhow::Result<Vec<(usize, Report)>> {
    let mut reports = Vec::new();
    loop {
        let run = next.fetch_add(1, Ordering::Relaxed);
        if run >= usize::from(runs) {
            return Ok(reports);
        }
        let scenario = Scenario { seed: scenario.seed.wrapping_add(run as u64), ..scenario.clone() };
        let bar = bars.add(progress_bar(scenario.seed));
        let report = shoal_simulation::run(&scenario, |share| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1,000")]
            bar.set_position((share * 1000.0) as u64);
        })?;
        bar.finish_and_clear();
        reports.push((run, report));
    }
}

fn progress_bar(seed: u64) -> ProgressBar {
    let bar = ProgressBar::new(1000).with_message(format!("seed {seed}"));
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {percent} % of the pieces, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn table(scenario: &Scenario, reports: &[Report]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "seed",
        "p50 s",
        "p90 s",
        "p99 s",
        "p99.9 s",
        "makespan s",
        "origin copies",
        "twice %",
        "wasted %",
        "far copies",
        "tracker peak/s",
        "unfinished",
    ]);
    for (run, report) in reports.iter().enumerate() {
        let times = report.seconds;
        let mut row = vec![scenario.seed.wrapping_add(run as u64).to_string()];
        row.extend(
            [times.p50, times.p90, times.p99, times.p999, report.makespan].map(|time| format!("{time:.2}")),
        );
        row.push(format!("{:.2}", report.origin_copies));
        row.extend(
            [report.duplicate_share, report.wasted_share].map(|share| format!("{:.3}", share * 100.0)),
        );
        row.push(far(report));
        row.push(report.tracker_peak.to_string());
        row.push(report.unfinished.to_string());
        table.add_row(row);
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// Of the zone into which most came from the others.
fn far(report: &Report) -> String {
    if report.far_copies.len() < 2 {
        return "-".into();
    }
    format!("{:.2}", report.far_copies.iter().copied().fold(0.0, f64::max))
}

fn write_json(path: &Path, reports: &[Report]) -> anyhow::Result<()> {
    let text = match reports {
        [only] => serde_json::to_string(only)?,
        several => serde_json::to_string(several)?,
    };
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// For scripts: the medians.
fn summary(reports: &[Report]) -> String {
    let median = |of: fn(&Report) -> f64| {
        let mut values: Vec<_> = reports.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut line = format!(
        "simulate: p50={:.2} p99={:.2} p999={:.2} makespan={:.2} bound={:.2} origin_copies={:.2} duplicates_pct={:.3} \
         unfinished={}",
        median(|report| report.seconds.p50),
        median(|report| report.seconds.p99),
        median(|report| report.seconds.p999),
        median(|report| report.makespan),
        median(|report| report.bound),
        median(|report| report.origin_copies),
        median(|report| report.duplicate_share * 100.0),
        reports.iter().map(|report| report.unfinished).max().unwrap_or(0),
    );
    if reports.iter().any(|report| report.late_joiner_to_cap.is_some()) {
        let late = median(|report| report.late_joiner_to_cap.unwrap_or(f64::INFINITY));
        line.push_str(&format!(" late_joiner_to_cap={late:.1}"));
    }
    line
}

/// Reads an amount of bytes, such as 1500000000, 512MiB or 1.5GB.
fn bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "expected bytes, such as 1500000000, 512MiB or 1.5GB".to_owned())?;
    if size.as_u64() == 0 { Err("expected at least one byte".into()) } else { Ok(size.as_u64()) }
}
