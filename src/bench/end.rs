//! One end of a measurement: a process that `shoal bench` starts. It is told one task, and ends with its standard input,
//! so never later than who started it.

use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::task::{Protocol, Said, Serve, Task, Work};
use super::usage::{Meter, Usage};
use super::{files, hash, http, quic, registry, store, stream, transfer};

/// Does what standard input says.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let task: Task = serde_json::from_str(&line).context("only `shoal bench` says what to do here")?;
    let (alive, mut input_ended) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(alive);
    });
    let used = runtime(&task)?.block_on(async {
        match task {
            Task::Serve(serve) => meter_serving(serve, &mut input_ended).await,
            Task::Work(work) => tokio::select! {
                used = work.run() => used,
                _ = &mut input_ended => bail!("nobody waits for it any more"),
            },
        }
    });
    say(Said::Used(used?))
}

/// Ceilings have one thread, which is the fastest; the product has what it has in production.
fn runtime(task: &Task) -> io::Result<Runtime> {
    let mut builder = match task {
        Task::Serve(Serve::Stream { .. }) | Task::Work(Work::Stream { .. } | Work::Get { .. }) => {
            Builder::new_current_thread()
        }
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

async fn meter_serving(serve: Serve, input_ended: &mut oneshot::Receiver<()>) -> anyhow::Result<Usage> {
    let mut meter = None;
    let serving = serve.run(|address| {
        meter = Some(Meter::start());
        say(Said::Listening(address))
    });
    tokio::select! {
        ended = serving => ended?,
        _ = input_ended => {}
    }
    meter.map(|meter| meter.stop()).context("ended before anything was served")
}

impl Serve {
    /// Serves until it is dropped; says where as soon as it does.
    async fn run(self, listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>) -> anyhow::Result<()> {
        match self {
            Self::Stream { over: Protocol::Quic, identity, bytes } => {
                quic::send(&identity, bytes, listening).await
            }
            Self::Stream { over, identity, bytes } => stream::send(over, &identity, bytes, listening).await,
            Self::Seed { transport, identity, store } => {
                transfer::seed(transport, &identity, store, listening).await
            }
            Self::Registry { directory } => registry::serve(directory, listening).await,
        }
    }
}

impl Work {
    async fn run(self) -> anyhow::Result<Usage> {
        match self {
            Self::Hash { hash, bytes } => blocking(move || hash::run(hash, bytes)).await,
            Self::FileWrite { file, bytes } => blocking(move || files::write(&file, bytes)).await,
            Self::FileRead { file, bytes } => blocking(move || files::read(&file, bytes)).await,
            Self::StoreWrite { store, verify, metainfo, bytes } => {
                store::write(store, verify, &metainfo, bytes).await
            }
            Self::StoreRead { store, bytes } => store::read(store, bytes).await,
            Self::StorePieces { store, bytes } => store::read_pieces(store, bytes).await,
            Self::Stream { over: Protocol::Quic, identity, address, bytes } => {
                quic::receive(&identity, address, bytes).await
            }
            Self::Stream { over, identity, address, bytes } => {
                stream::receive(over, &identity, address, bytes).await
            }
            Self::Fetch(fetch) => transfer::fetch(fetch).await,
            Self::Get { address, path, bytes } => http::get(address, &path, bytes).await,
        }
    }
}

fn blocking<Outcome: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<Outcome> + Send + 'static,
) -> impl Future<Output = anyhow::Result<Outcome>> {
    let task = tokio::task::spawn_blocking(work);
    async { task.await? }
}

fn say(said: Said) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, &said)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}
