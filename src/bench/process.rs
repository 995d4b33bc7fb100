//! An end of a measurement, as `shoal bench` holds it: killed when dropped.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe;

use super::task::{Said, Serve, Task, Work};
use super::usage::Usage;
use crate::cli::BENCH_END;

/// A process with a task.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<pipe::Receiver>>,
}

/// One that serves.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub(super) async fn start(task: Serve) -> anyhow::Result<Self> {
        let mut process = Process::start(&Task::Serve(task))?;
        match process.next().await? {
            Said::Listening(address) => Ok(Self { process, address }),
            Said::Used(_) => bail!("the serving process ended before it listened"),
        }
    }

    /// Ends it, and says what it took since it was ready.
    pub(super) async fn stop(mut self) -> anyhow::Result<Usage> {
        drop(self.process.input.take());
        self.process.used().await.context("the serving process")
    }
}

/// Has a process do some work.
pub(super) async fn work(task: Work) -> anyhow::Result<Usage> {
    Process::start(&Task::Work(task))?.used().await.context("the working process")
}

impl Process {
    fn start(task: &Task) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program again")?;
        let mut child = Command::new(program)
            .arg(BENCH_END)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start this program again")?;
        let mut input = child.stdin.take().context("no standard input")?;
        let output = OwnedFd::from(child.stdout.take().context("no standard output")?);
        let output = BufReader::new(pipe::Receiver::from_owned_fd(output)?).lines();
        // Far below what a pipe holds: it does not block.
        input.write_all(format!("{}\n", serde_json::to_string(task)?).as_bytes())?;
        Ok(Self { child, input: Some(input), output })
    }

    async fn used(&mut self) -> anyhow::Result<Usage> {
        match self.next().await? {
            Said::Used(usage) => Ok(usage),
            Said::Listening(address) => bail!("it listens on {address} and was to measure something"),
        }
    }

    async fn next(&mut self) -> anyhow::Result<Said> {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line());
        let line =
            line.await.with_context(|| format!("nothing came of it in {} s", PATIENCE.as_secs()))??;
        let line = line.context("it failed: what it says of it stands above")?;
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The largest blob on a slow disk; what stalls is ended.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
