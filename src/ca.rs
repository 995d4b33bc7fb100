//! `shoal ca`: makes the cluster's authority, the nodes' certificates, tokens to join by, and the list of the revoked.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Args, Subcommand};
use shoal_core::{PeerId, Role};
use shoal_identity::{Authority, Ledger, NamePattern, Outcast, Serial, TokenOrder};

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
    /// Print a join token: a secret line with which nodes get their certificates at a tracker that enrols.
    Token {
        /// The folder that `shoal ca init` wrote.
        #[arg(long, value_name = "FOLDER")]
        ca: PathBuf,
        /// What the nodes may do: agent, origin or tracker.
        #[arg(long, value_parser = cli::role, value_name = "ROLE")]
        role: Role,
        /// What the node is called; with a *, for which each node's own id is put in.
        #[arg(long, default_value = "*", value_name = "NAME", value_parser = NamePattern::parse)]
        name: NamePattern,
        /// How many nodes may use it.
        #[arg(long, default_value_t = 1, value_name = "COUNT")]
        uses: u32,
        /// How long it is good for, such as 30m or 2d; 30 days at most.
        #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = humantime::parse_duration)]
        valid: Duration,
    },
    /// Keep nodes out from now on: adds them to revoked.list, which trackers hand on to everybody.
    Revoke {
        /// The folder that `shoal ca init` wrote.
        #[arg(long, value_name = "FOLDER")]
        ca: PathBuf,
        #[command(flatten)]
        outcast: Revoked,
    },
}

/// Whom to keep out.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Revoked {
    /// The node of that id (12D3KooW…), as logs and metrics name it, with every certificate that it has or gets.
    #[arg(long, value_name = "ID", value_parser = PeerId::parse)]
    node: Option<PeerId>,
    /// Every node that this authority gave that name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// One certificate, by its serial number in hexadecimal.
    #[arg(long, value_name = "SERIAL", value_parser = Serial::parse)]
    serial: Option<Serial>,
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
            Ledger::of(&ca).note(&identity.own())?;
            println!("{role} {name} is {}, written to {}", identity.id(), directory.display());
        }
        Command::Token { ca, role, name, uses, valid } => {
            let order = TokenOrder { id: rand::random(), role, name, uses, lifetime: valid };
            println!("{}", Authority::load(&ca)?.token(order, SystemTime::now())?.as_str());
        }
        Command::Revoke { ca, outcast } => revoke(&ca, outcast)?,
    }
    Ok(())
}

fn revoke(ca: &Path, revoked: Revoked) -> anyhow::Result<()> {
    let authority = Authority::load(ca)?;
    let mut list = authority.load_revocations(ca)?;
    for outcast in outcasts(ca, revoked)? {
        match &outcast {
            Outcast::Node(id) => println!("revoked: node {id}"),
            Outcast::Certificate(serial) => println!("revoked: certificate {}", String::from(serial.clone())),
        }
        list = Some(authority.revoke(list.as_ref(), outcast, SystemTime::now())?);
    }
    if let Some(list) = list {
        authority.save_revocations(&list, ca)?;
        let path = ca.join("revoked.list");
        println!("list {} with {} entries written to {}", list.number(), list.len(), path.display());
        println!(
            "next: copy it to each tracker's identity folder, unless that tracker enrols nodes with this CA folder"
        );
    }
    Ok(())
}

fn outcasts(ca: &Path, revoked: Revoked) -> anyhow::Result<Vec<Outcast>> {
    let Some(name) = revoked.name else {
        let nodes = revoked.node.into_iter().map(Outcast::Node);
        return Ok(nodes.chain(revoked.serial.into_iter().map(Outcast::Certificate)).collect());
    };
    let named = Ledger::of(ca).named(&name)?;
    if named.is_empty() {
        bail!(
            "no node was given the name {name:?} by the authority in {}: revoke it by --node, its id is in the logs",
            ca.display()
        );
    }
    Ok(named.into_iter().map(|node| Outcast::Node(node.id)).collect())
}
