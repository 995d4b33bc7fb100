//! What can be typed.

use std::future::Future;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use shoal_core::Role;

use crate::telemetry::{self, LogFormat};
use crate::{bench, ca, copies, demo, dev, prefetch, replay, roles, simulate, status};

/// Peer-to-peer storage driver and registry for container images.
#[derive(Debug, Parser)]
#[command(version, about, long_about = LONG_ABOUT)]
pub(crate) struct Cli {
    /// What is logged, to standard error: a level (error, warn, info, debug, trace), or filters such as
    /// `info,shoal_transfer=debug`. [default: info for roles, warn elsewhere]
    #[arg(long, global = true, env = "SHOAL_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How log lines are written.
    #[arg(long, global = true, env = "SHOAL_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "Shoal hands container images out peer to peer. A host pulls from localhost; behind that \
port an agent fetches each blob in pieces from every other host that has some of it, checks each piece, and streams it \
on while it arrives. Origins take pushes and seed the blobs, trackers introduce peers to each other.\n\n\
Start with `shoal demo`: it runs all of it on this machine and proves it in a minute.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster in this process, push a generated image, pull it with all agents at once, check every byte.
    Demo(demo::Options),
    /// Keep a whole cluster running on this machine for a real docker, containerd or podman, until Ctrl-C.
    Dev(dev::Options),
    /// Run an agent: the registry on localhost that pulls through the swarm.
    Agent(RoleOptions),
    /// Run an origin: takes pushes, keeps and seeds every blob.
    Origin(RoleOptions),
    /// Run a tracker: introduces peers to each other.
    Tracker(RoleOptions),
    /// Show what an agent, an origin or a tracker is and does: trackers that answer, what is stored, what is on its way.
    Status(status::Options),
    /// Show whom a role knows: connected peers of an agent or origin with their traffic, all nodes of a tracker.
    Peers(status::Options),
    /// Show who has what of a blob: pieces here and at each peer, or all holders at a tracker.
    Swarm(status::SwarmOptions),
    /// Have an origin try again what it gave up (see its queues in `shoal status`).
    Retry(status::Options),
    /// Have agents fetch an image before anybody pulls it, and show how far they are.
    Prefetch(prefetch::Options),
    /// Have an origin take no writes until it is told otherwise or starts anew, for maintenance; pulls go on.
    ReadOnly(status::ReadOnlyOptions),
    /// Push an image from files to a registry.
    Push(copies::PushOptions),
    /// Pull an image from a registry into files.
    Pull(copies::PullOptions),
    /// Copy an image from one registry to another, with all its platforms.
    Copy(copies::CopyOptions),
    /// Give an image of a registry another tag.
    Tag(copies::TagOptions),
    /// Delete a tag or a manifest at a registry.
    Delete(copies::DeleteOptions),
    /// Rehearse a roll-out to thousands of hosts in virtual time, with the engine and the tracker's policy that run in
    /// production, and say how long each host takes.
    Simulate(simulate::Options),
    /// The cluster's certificate authority.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Replay the record of a node (`transfer.record` of its configuration), and say what it did and what it waited for.
    Replay(replay::Options),
    /// Measure what this host can do: hashes, files, streams, transfers from agent to agent and registry hits, each beside
    /// its ceiling.
    Bench(bench::Options),
    /// One end of a measurement of `bench`.
    #[command(name = BENCH_END, hide = true)]
    BenchEnd,
}

/// What `bench` starts its processes with.
pub(crate) const BENCH_END: &str = "bench-end";

/// How a role is configured: the file, then the environment (`SHOAL_…`), then `--set`; the later one wins.
#[derive(Debug, Args)]
pub(crate) struct RoleOptions {
    /// The configuration file (TOML). `config/` of the source has a complete, commented one for each role.
    #[arg(long, env = "SHOAL_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Sets a key of the configuration, for example `--set transfer.listen=0.0.0.0:16002`. May be repeated. The
    /// environment does the same: SHOAL_TRANSFER__LISTEN=0.0.0.0:16002 (two underscores between the parts of a key).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl Cli {
    /// Carries the command out; comes back when it has ended.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let quiet = !matches!(self.command, Command::Agent(_) | Command::Origin(_) | Command::Tracker(_));
        // `s3s` takes each 404 and 403 for an error of the server; those that are one come by `shoal_s3`.
        // The verifier's own line says what the command's error says.
        let default = if quiet { "warn,s3s=off,rustls_platform_verifier=off" } else { "info,s3s=off" };
        telemetry::init(self.log.as_deref().unwrap_or(default), self.log_format)?;
        match self.command {
            Command::Demo(options) => block_on(demo::run(options)),
            Command::Dev(options) => block_on(dev::run(options)),
            Command::Agent(options) => block_on(roles::agent(options)),
            Command::Origin(options) => block_on(roles::origin(options)),
            Command::Tracker(options) => block_on(roles::tracker(options)),
            Command::Status(options) => block_on(status::status(options)),
            Command::Peers(options) => block_on(status::peers(options)),
            Command::Swarm(options) => block_on(status::swarm(options)),
            Command::Retry(options) => block_on(status::retry(options)),
            Command::Prefetch(options) => block_on(prefetch::prefetch(options)),
            Command::ReadOnly(options) => block_on(status::read_only(options)),
            Command::Push(options) => block_on(copies::push(options)),
            Command::Pull(options) => block_on(copies::pull(options)),
            Command::Copy(options) => block_on(copies::copy(options)),
            Command::Tag(options) => block_on(copies::tag(options)),
            Command::Delete(options) => block_on(copies::delete(options)),
            Command::Simulate(options) => simulate::run(&options),
            Command::Ca(command) => ca::run(command),
            Command::Replay(options) => replay::run(&options),
            Command::Bench(options) => block_on(bench::run(options)),
            Command::BenchEnd => bench::run_end(),
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Reads the size of an image, such as `512MiB` or `1GB`.
pub(crate) fn image_size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "expected a size in bytes, such as 1000000, 512MiB or 1GB".to_owned())?;
    if size > MAX_IMAGE_SIZE {
        return Err(format!("at most {MAX_IMAGE_SIZE}: every agent keeps a copy on this machine"));
    }
    Ok(size.as_u64())
}

/// The largest image that is made up: some minutes of work, and a typing error is seen before a disk is full.
const MAX_IMAGE_SIZE: ByteSize = ByteSize::gib(256);

/// Reads a role.
pub(crate) fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "expected agent, origin or tracker".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_size_that_cannot_be_meant_is_refused_with_what_can() {
        assert_eq!(image_size("10MB"), Ok(10_000_000));
        assert_eq!(image_size("0"), Ok(0));
        assert!(image_size("banana").unwrap_err().contains("such as"));
        for too_large in ["257GiB", "99999999999TB", "18446744073709551615"] {
            assert!(image_size(too_large).unwrap_err().contains("at most 256"), "{too_large}");
        }
    }

    #[test]
    fn every_option_and_command_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
