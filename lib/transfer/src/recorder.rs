//! The engine, and on request a record of all that it is told (`shoal_swarm::record`).
//!
//! The node never waits for the record: what is to be written goes to a blocking thread over a bounded queue, and where
//! that is full the record ends there, and says so in its last line. Encoding and checksums are that thread's work too.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use shoal_core::{PeerId, Zone};
use shoal_swarm::record::{self, End, EndReason, Input, Line, Progress, Start, Step};
use shoal_swarm::{Action, Engine, Event, EventError, Moment};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::task::JoinHandle;

use crate::config::{Config, RecordConfig};
use crate::endpoint::BindError;

/// An [`Engine`] that is overheard, if the configuration says so.
#[derive(Debug)]
pub(crate) struct RecordedEngine {
    engine: Engine,
    recorder: Option<Recorder>,
}

/// Where the record is written from.
#[derive(Debug)]
struct Recorder {
    /// None once the record has ended before the node.
    queue: Option<mpsc::Sender<Noted>>,
    overrun: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

/// One call of the engine.
#[derive(Debug)]
enum Noted {
    Told(Moment, Input),
    Did(Action),
}

/// The file of a record.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes that may still be written, the last line not counted.
    left: u64,
    progress: Progress,
    overrun: Arc<AtomicBool>,
}

impl RecordedEngine {
    /// An engine of its own randomness, for the node of that name and zone.
    pub(crate) fn open(config: &Config, node: PeerId, zone: Zone) -> Result<Self, BindError> {
        let start = start(config.swarm.clone(), node, zone);
        let open = |record: &RecordConfig| {
            Recorder::open(record, &start)
                .map_err(|source| BindError::Record { file: record.file.clone(), source })
        };
        let recorder = config.record.as_ref().map(open).transpose()?;
        Ok(Self { engine: start.engine(), recorder })
    }

    pub(crate) fn handle(&mut self, now: Moment, event: Event) -> Result<(), EventError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(Noted::Told(now, Input::Event(event.clone())));
        }
        self.engine.handle(now, event)
    }

    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(Noted::Told(now, Input::Timeout));
        }
        self.engine.handle_timeout(now);
    }

    pub(crate) fn poll(&mut self) -> Option<Action> {
        let action = self.engine.poll()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.note(Noted::Did(action.clone()));
        }
        Some(action)
    }

    /// The engine, to look at.
    pub(crate) fn look(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn next_timeout(&self) -> Option<Moment> {
        self.engine.next_timeout()
    }

    /// Ends the record, and waits until it is written.
    pub(crate) async fn end(self) {
        let Some(Recorder { queue, writer, .. }) = self.recorder else { return };
        drop(queue);
        if let Err(error) = writer.await {
            tracing::error!(%error, "the record's task failed");
        }
    }
}

impl Recorder {
    fn open(config: &RecordConfig, start: &Start) -> io::Result<Self> {
        keep_earlier(&config.file)?;
        let (queue, noted) = mpsc::channel(config.queue.get());
        let overrun = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            path: config.file.clone(),
            file: BufWriter::new(File::create(&config.file)?),
            left: config.max_size.as_u64().saturating_sub(LAST_LINE),
            progress: Progress::default(),
            overrun: Arc::clone(&overrun),
        };
        writer.line(&Line::Start(Box::new(start.clone())))?;
        writer.file.flush()?;
        let writer = tokio::task::spawn_blocking(move || writer.run(noted));
        Ok(Self { queue: Some(queue), overrun, writer })
    }

    fn note(&mut self, noted: Noted) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(noted) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => self.overrun.store(true, Ordering::Release),
            // It has ended, and has said why.
            Err(TrySendError::Closed(_)) => {}
        }
        self.queue = None;
    }
}

impl Writer {
    fn run(mut self, mut noted: mpsc::Receiver<Noted>) {
        let path = self.path.clone();
        match self.write_all(&mut noted) {
            Ok(EndReason::Stopped) => {}
            Ok(reason) => {
                tracing::warn!(path = %path.display(), ?reason, "the record of the engine has ended early");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the record of the engine cannot be written");
            }
        }
    }

    fn write_all(&mut self, noted: &mut mpsc::Receiver<Noted>) -> io::Result<EndReason> {
        let reason = loop {
            let Some(noted) = self.next(noted)? else { break self.why_ended() };
            if !self.write(noted)? {
                break EndReason::Full;
            }
        };
        let end = Line::End(End { reason, before: self.progress }).encode();
        writeln!(self.file, "{end}")?;
        self.file.flush()?;
        Ok(reason)
    }

    /// The next; what is written reaches the file whenever there is nothing to do.
    fn next(&mut self, noted: &mut mpsc::Receiver<Noted>) -> io::Result<Option<Noted>> {
        match noted.try_recv() {
            Ok(noted) => Ok(Some(noted)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => {
                self.file.flush()?;
                Ok(noted.blocking_recv())
            }
        }
    }

    /// Says whether there was room.
    fn write(&mut self, noted: Noted) -> io::Result<bool> {
        match noted {
            Noted::Told(at, input) => self.line(&Line::Step(Step { at, before: self.progress, input })),
            Noted::Did(action) => {
                self.progress.add(&action);
                Ok(true)
            }
        }
    }

    fn line(&mut self, line: &Line) -> io::Result<bool> {
        let line = line.encode();
        let length = line.len() as u64 + 1;
        if length > self.left {
            return Ok(false);
        }
        self.left -= length;
        writeln!(self.file, "{line}")?;
        Ok(true)
    }

    fn why_ended(&self) -> EndReason {
        if self.overrun.load(Ordering::Acquire) { EndReason::Overrun } else { EndReason::Stopped }
    }
}

fn start(config: shoal_swarm::Config, node: PeerId, zone: Zone) -> Start {
    let unix_ms = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_millis());
    Start {
        record: record::VERSION,
        software: concat!("shoal/", env!("CARGO_PKG_VERSION")).to_owned(),
        node,
        unix_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
        zone,
        seed: rand::random(),
        config,
    }
}

/// The record of the node's last life is often the one that is wanted.
fn keep_earlier(file: &Path) -> io::Result<()> {
    let mut earlier = file.as_os_str().to_owned();
    earlier.push(".1");
    match std::fs::rename(file, earlier) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Room for the last line.
const LAST_LINE: u64 = 256;

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use bytesize::ByteSize;

    use super::*;

    #[tokio::test]
    async fn a_record_that_falls_behind_ends_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record");
        let record =
            RecordConfig { file: file.clone(), max_size: ByteSize::gib(1), queue: NonZeroUsize::MIN };
        let config = Config { record: Some(record), ..Config::default() };
        let peer = PeerId::from_public_key([1; 32]);
        let mut engine = RecordedEngine::open(&config, peer, Zone::default()).unwrap();
        // As fast as can be: sooner or later the writer is busy.
        while engine.recorder.as_ref().is_some_and(|recorder| recorder.queue.is_some()) {
            engine.handle(Moment::default(), Event::Disconnected { peer }).unwrap();
        }
        engine.handle(Moment::default(), Event::Disconnected { peer }).unwrap();
        engine.end().await;

        let text = std::fs::read_to_string(&file).unwrap();
        let last = Line::decode(text.lines().last().unwrap()).unwrap();
        assert!(matches!(last, Line::End(End { reason: EndReason::Overrun, .. })), "{last:?}");
    }
}
