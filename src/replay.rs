//! `shoal replay`: feeds the record of a node's engine to a fresh one, sees that it does the same, and says what it did.

mod diagnosis;
mod lines;
mod observer;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use shoal_swarm::Moment;
use shoal_swarm::record::{Line, Mismatch, Progress, Replay, Start, Step};

use self::diagnosis::{Diagnosis, Ending};
use self::lines::{Lines, Next};
use self::observer::Observer;

/// What is replayed, and how much of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The record: what `transfer.record.file` of a node's configuration names.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the diagnosis as JSON.
    #[arg(long)]
    json: bool,
    /// Stop there, in seconds (or as `1m 30s`) after the node's start, and say what was under way.
    #[arg(long, value_parser = time, value_name = "TIME")]
    until: Option<Duration>,
    /// For how long a fetch gets no piece until that counts as a stall, in seconds (or as `500ms`).
    #[arg(long, value_parser = time, default_value = "1", value_name = "TIME")]
    stall: Duration,
}

/// A replay under way.
struct Session {
    replay: Replay,
    observer: Observer,
    until: Option<Moment>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (diagnosis, outcome) = replay(options)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print!("{}", report::Report(&diagnosis));
    }
    outcome
}

/// What was found out, and whether the engine did as it is on record. Where it did not, the diagnosis ends there.
fn replay(options: &Options) -> anyhow::Result<(Diagnosis, anyhow::Result<()>)> {
    let mut lines = Lines::open(&options.file)?;
    let Next::Line(Line::Start(start)) = lines.next()? else {
        bail!("{}: it does not begin with the start of an engine: is it a record?", lines.place());
    };
    let mut session = Session::new(&start, options);
    let ending = match session.play(&mut lines) {
        Ok(ending) => ending,
        Err(error) if error.is::<Mismatch>() => {
            let written = format!("written by {}", start.software);
            let error = error.context(format!("{}: {written}", lines.place()));
            return Ok((session.observer.finish(Ending::Mismatch), Err(error)));
        }
        Err(error) => return Err(error),
    };
    Ok((session.observer.finish(ending), Ok(())))
}

impl Session {
    fn new(start: &Start, options: &Options) -> Self {
        let observer = Observer::new(start, options.stall);
        Self { replay: Replay::new(start), observer, until: options.until.map(Moment) }
    }

    fn play(&mut self, lines: &mut Lines) -> anyhow::Result<Ending> {
        loop {
            match lines.next()? {
                Next::Line(Line::Step(step)) if self.until.is_some_and(|until| step.at > until) => {
                    self.watch(step.before)?;
                    return Ok(Ending::Until);
                }
                Next::Line(Line::Step(step)) => self.step(step)?,
                Next::Line(Line::End(end)) => {
                    self.watch(end.before)?;
                    return Ok(end.reason.into());
                }
                Next::Line(Line::Start(_)) => bail!("{}: an engine starts a second time", lines.place()),
                Next::Nothing => {
                    for action in self.replay.rest() {
                        self.observer.did(&action);
                    }
                    return Ok(Ending::BrokenOff);
                }
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Mismatch> {
        self.watch(step.before)?;
        let observed = step.input.clone();
        let refused = self.replay.tell(step.at, step.input).err();
        self.observer.told(step.at, &observed, refused.as_ref());
        Ok(())
    }

    /// Watches what is done until the next line.
    fn watch(&mut self, before: Progress) -> Result<(), Mismatch> {
        for action in self.replay.actions(before)? {
            self.observer.did(&action);
        }
        Ok(())
    }
}

/// Reads `12.5`, or a duration with units.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .or_else(|| humantime::parse_duration(text).ok())
        .ok_or_else(|| "expected seconds, such as 12.5, or a time such as 1m 30s".to_owned())
}

/// Opens a record.
fn open(file: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(file).with_context(|| {
        format!(
            "{}: cannot be read; `transfer.record.file` of the node's configuration names it",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests;
