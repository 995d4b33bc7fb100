//! The lines of a record, one at a time: nothing longer than a line is held. Errors name file and line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use shoal_swarm::record::{Line, MAX_LINE};

/// A record that is being read.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    number: u64,
}

/// What comes next in a record.
pub(super) enum Next {
    /// A line.
    Line(Line),
    /// The file ends, perhaps in the middle of a line: whoever wrote it was killed, or writes still.
    Nothing,
}

impl Lines {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), file: BufReader::new(super::open(path)?), number: 0 })
    }

    pub(super) fn next(&mut self) -> anyhow::Result<Next> {
        let mut line = Vec::new();
        self.number += 1;
        let most = MAX_LINE as u64 + 1;
        self.file.by_ref().take(most).read_until(b'\n', &mut line).with_context(|| self.place())?;
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        if line.is_empty() && !is_whole {
            return Ok(Next::Nothing);
        }
        let decoded = std::str::from_utf8(&line)
            .map_err(anyhow::Error::from)
            .and_then(|line| Line::decode(line).map_err(anyhow::Error::from));
        match decoded {
            Ok(line) => Ok(Next::Line(line)),
            Err(_) if !is_whole && line.len() <= MAX_LINE && self.number > 1 => Ok(Next::Nothing),
            Err(error) => Err(error.context(self.place())),
        }
    }

    /// File and number of the last line.
    pub(super) fn place(&self) -> String {
        format!("{}: line {}", self.path.display(), self.number)
    }
}
