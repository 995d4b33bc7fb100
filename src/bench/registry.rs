//! A blob in an agent, and the registry that hands it out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::client::Client;
use crate::cluster::{Cluster, Plan, Ports};
use crate::image::Image;

/// What the agent of a cluster has.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    /// The path of the blob at the registry.
    pub(super) path: String,
    pub(super) bytes: u64,
}

/// Serves what the cluster of that folder has until it is dropped.
pub(super) async fn serve(
    directory: PathBuf,
    listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cluster = Cluster::start(plan(directory)).await?;
    listening(cluster.agent(0).registry_address())?;
    std::future::pending().await
}

/// Pushes a blob of about so many bytes to an origin and pulls it through an agent.
pub(super) async fn prepare(directory: &Path, bytes: u64) -> anyhow::Result<Hit> {
    let image = tokio::task::spawn_blocking(move || Image::generate(bytes, 1, bytes)).await?;
    let cluster = Cluster::start(plan(directory.to_owned())).await?;
    Client::new(cluster.origin().registry_address())?.push(REPOSITORY, "latest", &image, |_| ()).await?;
    let layer = image.layers[0];
    let agent = Client::new(cluster.agent(0).registry_address())?;
    agent.pull_blob(REPOSITORY, &layer.digest, |_| ()).await?;
    cluster.shutdown().await;
    Ok(Hit { path: format!("/v2/{REPOSITORY}/blobs/{}", layer.digest), bytes: layer.length() })
}

fn plan(directory: PathBuf) -> Plan {
    Plan { directory, agents: 1, ports: Ports::Free }
}

const REPOSITORY: &str = "bench/app";
