//! The glue of the one binary: reads arguments, environment and files, and wires roles together.
//!
//! It is a library so that the tests in `tests/` start the very clusters that people start.

pub mod admin;
mod bench;
mod ca;
mod cli;
pub mod client;
pub mod cluster;
pub mod config;
mod copies;
mod demo;
mod dev;
pub mod image;
mod prefetch;
mod replay;
mod roles;
mod simulate;
pub mod status;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Reads the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let cli = cli::Cli::parse();
    shoal_identity::install_crypto_provider();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line: what happened, to what, and why.
            eprintln!("shoal: {error:#}");
            ExitCode::from(copies::exit_code(&error))
        }
    }
}
