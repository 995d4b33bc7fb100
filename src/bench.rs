//! `shoal bench`: what this host can do. Each figure stands beside its ceiling: the most that the libraries and the
//! hardware below that path gave in the same round.
//!
//! Both ends of a path are processes of their own, new ones for each run (`end`), so that CPU time and memory are each
//! side's own. Each round measures everything once, in turn: a noisy minute spoils a round, and no comparison.

mod content;
mod end;
mod figure;
mod files;
mod hash;
mod host;
mod http;
mod process;
mod quic;
mod registry;
mod report;
mod round;
mod sample;
mod store;
mod stream;
mod task;
mod transfer;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytesize::ByteSize;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shoal_store::Verify;

use figure::{Figure, Group};
use host::Host;
use report::Report;
use round::Bench;
use sample::Sample;

pub(crate) use end::run as run_end;

use crate::roles;

/// What is measured, how often, and with how much.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = METHOD)]
pub(crate) struct Options {
    /// What to measure, and with it its ceilings. [default: everything]
    #[arg(value_enum, value_name = "WHAT")]
    what: Vec<Group>,
    /// Rounds; each measures everything once. The medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    runs: u16,
    /// How much goes through each stream, file and transfer, such as 512MiB or 2GiB.
    #[arg(long, default_value = "2GiB", value_parser = size, value_name = "BYTES")]
    size: u64,
    /// How large the blob is that the registry serves.
    #[arg(long, default_value = "1GiB", value_parser = size, value_name = "BYTES")]
    blob_size: u64,
    /// Where blobs are stored: a new folder in this one, removed at the end, also on Ctrl-C. [default: the system's folder
    /// for temporary files]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// What a store checks of a blob that comes in (`store.verify` of an agent): each piece and the blob's own digest, or
    /// the pieces alone.
    #[arg(long, default_value = "full", value_parser = verify(), value_name = "WHAT")]
    verify: Verify,
    /// Writes every sample and the medians to that file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const METHOD: &str = "\
What the figures are:
  hash      One thread, from memory: sha256, sha512 (digests of blobs), blake3 (hashes of pieces).
  store     file-write: 1 MiB at a time into a preallocated file, synced at the end. file-read: the same blob, 1 MiB at a
            time, from the page cache. store-write: pieces from memory, checked, written, committed. store-read: a reader
            from the first to the last byte. store-pieces: each piece by its number, as for a peer.
  tcp       One stream from memory to nowhere, 256 KiB at a time, over loopback.
  tls       The same in TLS 1.3, both ends with certificates of one authority.
  quic      The same in QUIC (quinn) with the windows and the datagram size of the product, a stream for each MiB.
  transfer  transfer-tcp, transfer-quic: an agent fetches a blob from an agent: files are read, sent, checked piece by piece,
            written and committed. From the start of the fetch until the blob is committed.
  registry  A client reads a blob from the HTTP port of an agent that has it.

Each side is a process of its own. Its CPU time is user and system time during the run, its memory the peak of what was
resident (VmHWM). Where the host of a virtual machine takes free memory back, whatever writes files pays for each new page:
file-write shows how much. Ceilings run on one thread a side, which is the fastest; what the product does runs as in the
product. A share is the median over all rounds of the figure by its ceiling in the same round. Everything is on one machine:
two hosts have twice the processors, and a network between them.";

/// Measures and reports.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let figures = figure::chosen(&options.what);
    require_space(&parent, round::space(&figures, options.size, options.blob_size))?;
    let folder = tempfile::Builder::new()
        .prefix("shoal-bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let host = Host::look(&parent);
    println!("{host}");
    // Interrupted, it still ends the processes and takes its folder away. Signals first: they count from the first process on.
    let samples = tokio::select! {
        biased;
        signal = roles::terminated() => return signal.and_then(|()| bail!("interrupted")),
        samples = measure(&options, &figures, folder.path()) => samples?,
    };
    let report = Report::new(host, &options, &samples);
    println!("{}", report.table());
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", report.summary());
    Ok(())
}

/// All samples by figure, those of the first round first.
async fn measure(
    options: &Options,
    figures: &[Figure],
    folder: &Path,
) -> anyhow::Result<BTreeMap<Figure, Vec<Sample>>> {
    let bar = progress_bar(u64::from(options.runs) * figures.len() as u64);
    bar.set_message("preparing blobs");
    let bench = Bench::prepare(folder, figures, options).await?;
    let mut samples = BTreeMap::<Figure, Vec<Sample>>::new();
    for round in 1..=options.runs {
        for &figure in figures {
            bar.set_message(format!("round {round} of {}: {figure}", options.runs));
            let sample = bench.measure(figure).await.with_context(|| format!("{figure}, round {round}"))?;
            samples.entry(figure).or_default().push(sample);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(samples)
}

fn progress_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {msg}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

fn require_space(folder: &Path, needed: u64) -> anyhow::Result<()> {
    let free = host::free_space(folder).with_context(|| {
        format!("cannot use {}: name a folder that exists by --directory", folder.display())
    })?;
    if free < needed {
        bail!(
            "{} has {} free and {} are needed: name another folder by --directory, or less by --size and --blob-size",
            folder.display(),
            ByteSize(free),
            ByteSize(needed)
        );
    }
    Ok(())
}

fn verify() -> impl TypedValueParser<Value = Verify> {
    PossibleValuesParser::new(["full", "pieces"]).map(|text| match text.as_str() {
        "pieces" => Verify::Pieces,
        _ => Verify::Full,
    })
}

/// Reads how much is to be moved.
fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "expected a size in bytes, such as 512MiB or 2GiB".to_owned())?;
    if (MIN_SIZE..=MAX_SIZE).contains(&size) {
        Ok(size.as_u64())
    } else {
        Err(format!("expected {MIN_SIZE} to {MAX_SIZE}"))
    }
}

/// A piece: less says nothing.
const MIN_SIZE: ByteSize = ByteSize::mib(1);
/// Minutes a run; a typing error is seen before a disk is full.
const MAX_SIZE: ByteSize = ByteSize::gib(64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_cannot_be_meant_is_refused_with_what_can() {
        assert_eq!(size("8MiB"), Ok(8 << 20));
        for wrong in ["0", "1023KiB", "65GiB", "99999999999TB"] {
            assert!(size(wrong).unwrap_err().contains("1.0 MiB to 64.0 GiB"), "{wrong}");
        }
        assert!(size("much").unwrap_err().contains("such as"));
    }

    #[test]
    fn a_full_disk_is_said_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = require_space(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("are needed") && error.contains(folder.path().to_str().unwrap()), "{error}");
        let error = require_space(&folder.path().join("none"), 0).unwrap_err().to_string();
        assert!(error.contains("--directory"), "{error}");
    }
}
