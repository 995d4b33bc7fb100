//! `shoal ca`: makes the cluster's authority and the nodes' certificates.

use std::path::PathBuf;

use clap::Subcommand;
use shoal_core::Role;
use shoal_identity::Authority;

use crate::cli;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new certificate authority: ca.pem, which every node gets, and ca-key.pem, which stays here.
    Init {
        /// Where the two files go. Nothing is overwritten.
        #[arg(long, value_name = "FOLDER")]
        directory: PathBuf,
        /// The cluster's name; certificates of a cluster of another name are refused.
        #[arg(long, default_value = "shoal", value_name = "NAME")]
        cluster: String,
    },
    /// Make a node's key and certificate: ca.pem, cert.pem and key.pem, the folder that `identity.directory` names.
    Issue {
        /// The folder that `shoal ca init` wrote.
        #[arg(long, value_name = "FOLDER")]
        ca: PathBuf,
        /// What the node may do: agent, origin or tracker.
        #[arg(long, value_parser = cli::role, value_name = "ROLE")]
        role: Role,
        /// The operator's name for the node, for logs.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Where the three files go. Nothing is overwritten.
        #[arg(long, value_name = "FOLDER")]
        directory: PathBuf,
    },
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { directory, cluster } => {
            Authority::generate(&cluster)?.save(&directory)?;
            println!("authority of cluster {cluster} written to {}", directory.display());
            println!(
                "next: shoal ca issue --ca {} --role agent --name host-1 --directory host-1",
                directory.display()
            );
        }
        Command::Issue { ca, role, name, directory } => {
            let identity = Authority::load(&ca)?.issue(role, &name)?;
            identity.save(&directory)?;
            println!("{role} {name} is {}, written to {}", identity.id(), directory.display());
        }
    }
    Ok(())
}
