//! What all rounds say together: medians, and shares of ceilings.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use shoal_store::Verify;

use super::Options;
use super::figure::Figure;
use super::host::Host;
use super::sample::{Cost, MIB, Sample, median};

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    host: Host,
    runs: u16,
    size: u64,
    blob_size: u64,
    verify: Verify,
    figures: BTreeMap<Figure, Line>,
}

/// One figure: medians of all rounds, and the rounds.
#[derive(Clone, Debug, Serialize)]
struct Line {
    mib_per_second: f64,
    ceiling: Option<Ceiling>,
    /// Of both sides together.
    cpu_seconds_per_gib: f64,
    sender: Option<Cost>,
    receiver: Cost,
    samples: Vec<Sample>,
}

/// What a figure cannot pass.
#[derive(Clone, Debug, Serialize)]
struct Ceiling {
    figure: Figure,
    mib_per_second: f64,
    /// The figure's part of it: the median over the rounds, of each with its own ceiling.
    share: f64,
}

impl Report {
    pub(super) fn new(host: Host, options: &Options, samples: &BTreeMap<Figure, Vec<Sample>>) -> Self {
        let line = |(&figure, own): (&Figure, &Vec<Sample>)| {
            let ceiling =
                figure.ceiling().and_then(|ceiling| Ceiling::new(ceiling, own, samples.get(&ceiling)?));
            Some((figure, Line::new(own, ceiling)?))
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            host,
            runs: options.runs,
            size: options.size,
            blob_size: options.blob_size,
            verify: options.verify,
            figures: samples.iter().filter_map(line).collect(),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN).set_header([
            "figure",
            "MiB/s",
            "ceiling",
            "its MiB/s",
            "share %",
            "CPU s/GiB",
            "sender",
            "receiver",
            "sender MiB",
            "receiver MiB",
        ]);
        for (figure, line) in &self.figures {
            table.add_row(line.row(*figure));
        }
        table.column_iter_mut().for_each(|column| {
            let is_name = matches!(column.index, 0 | 2);
            column.set_cell_alignment(if is_name { CellAlignment::Left } else { CellAlignment::Right });
        });
        table
    }

    /// For scripts: rates in MiB/s, shares, and CPU seconds for each GiB of both sides together.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("bench: runs={} size={} verify={}", self.runs, self.size, name(self.verify));
        for (figure, line) in &self.figures {
            let key = figure.name().replace('-', "_");
            text += &format!(" {key}={:.0} {key}_cpu={:.3}", line.mib_per_second, line.cpu_seconds_per_gib);
            if let Some(ceiling) = &line.ceiling {
                text += &format!(" {key}_share={:.3}", ceiling.share);
            }
        }
        text
    }
}

impl Line {
    fn new(samples: &[Sample], ceiling: Option<Ceiling>) -> Option<Self> {
        let senders: Option<Vec<Cost>> = samples.iter().map(|sample| sample.sender).collect();
        Some(Self {
            mib_per_second: median(samples.iter().map(|sample| sample.mib_per_second))?,
            ceiling,
            cpu_seconds_per_gib: median(samples.iter().map(Sample::cpu))?,
            sender: senders.and_then(|costs| median_cost(&costs)),
            receiver: median_cost(&samples.iter().map(|sample| sample.receiver).collect::<Vec<_>>())?,
            samples: samples.to_vec(),
        })
    }

    fn row(&self, figure: Figure) -> [String; 10] {
        let ceiling = self.ceiling.as_ref();
        let cpu = |cost: Option<Cost>| shown(cost, |cost| format!("{:.2}", cost.cpu_seconds_per_gib));
        let memory = |cost: Option<Cost>| {
            shown(cost.and_then(|cost| cost.peak_memory), |bytes| format!("{:.0}", bytes as f64 / MIB))
        };
        [
            figure.to_string(),
            format!("{:.0}", self.mib_per_second),
            shown(ceiling, |ceiling| ceiling.figure.to_string()),
            shown(ceiling, |ceiling| format!("{:.0}", ceiling.mib_per_second)),
            shown(ceiling, |ceiling| format!("{:.0}", 100.0 * ceiling.share)),
            format!("{:.2}", self.cpu_seconds_per_gib),
            cpu(self.sender),
            cpu(Some(self.receiver)),
            memory(self.sender),
            memory(Some(self.receiver)),
        ]
    }
}

impl Ceiling {
    fn new(figure: Figure, own: &[Sample], ceiling: &[Sample]) -> Option<Self> {
        let rates =
            |samples: &[Sample]| samples.iter().map(|sample| sample.mib_per_second).collect::<Vec<_>>();
        let (own, ceiling) = (rates(own), rates(ceiling));
        let shares = own.iter().zip(&ceiling).map(|(own, ceiling)| own / ceiling);
        Some(Self { figure, share: median(shares)?, mib_per_second: median(ceiling.iter().copied())? })
    }
}

/// Time and memory each by themselves.
fn median_cost(costs: &[Cost]) -> Option<Cost> {
    Some(Cost {
        cpu_seconds_per_gib: median(costs.iter().map(|cost| cost.cpu_seconds_per_gib))?,
        peak_memory: median(costs.iter().filter_map(|cost| cost.peak_memory).map(|bytes| bytes as f64))
            .map(|bytes| bytes as u64),
    })
}

fn shown<Value>(value: Option<Value>, show: impl FnOnce(Value) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

fn name(verify: Verify) -> &'static str {
    match verify {
        Verify::Full => "full",
        Verify::Pieces => "pieces",
    }
}
